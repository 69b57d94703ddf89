"""lemlight: train, compare and explain whole-mammogram classifiers from image-level labels (research only)."""

__version__ = "0.1.0"

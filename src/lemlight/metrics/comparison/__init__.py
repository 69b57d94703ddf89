"""Comparing methods that were tested on the same images: differences with intervals and corrected p-values."""

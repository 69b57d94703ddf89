"""Metrics with intervals over patients: arrays and tables only, no network, no data set, no Lightning."""

from typing import Literal

Level = Literal["image", "breast", "exam", "patient"]
LevelRule = Literal["mean_logit", "max", "noisy_or"]
Group = Literal["view", "laterality", "lesion_type", "lesion_size", "density", "vendor", "age_band", "site"]
CLASSIFICATION_NAMES = {
    "auroc": "AUC",
    "acc": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "brier": "Brier score",
}
LOCALIZATION_NAMES = {
    "dsc": "Dice",
    "lesion_recall": "lesion recall",
    "pixel_recall": "pixel recall",
    "pointing": "pointing game",
    "pxap": "PxAP",
    "max_box_acc_v2": "MaxBoxAcc V2",
    "froc": "FROC mean",
}
FAITHFULNESS_NAMES = {
    "deletion": "deletion (best: low)",
    "insertion": "insertion (best: high)",
    "energy": "energy in lesions (best: high)",
    "shuffled_correlation": "shuffled weights: correlation (best: 0)",
    "shuffled_ssim": "shuffled weights: SSIM (best: low)",
}
METRIC_NAMES = {**CLASSIFICATION_NAMES, **LOCALIZATION_NAMES}
"""Key in metrics.json -> the metric's name in a sentence, in the order of tables."""
LOWER_IS_BETTER = ("brier",)

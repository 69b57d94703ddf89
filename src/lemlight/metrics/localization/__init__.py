"""How well a location map finds the lesions, with intervals over patients: counts and histograms, never kept maps."""

from lemlight.metrics.localization.cutoffs import CutoffChooser, dice_per_cutoff
from lemlight.metrics.localization.meter import LocalizationMeter

__all__ = ["CutoffChooser", "LocalizationMeter", "dice_per_cutoff"]

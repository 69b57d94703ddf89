"""The figures of a run, one file each, drawn without pyplot so that nothing is kept between jobs."""

from lemlight.reporting.figures.curves import training_curves
from lemlight.reporting.figures.examples import choose_examples
from lemlight.reporting.figures.froc import froc_figure
from lemlight.reporting.figures.overlay import OverlayItem, overlay_figure, overlay_sheet
from lemlight.reporting.figures.reliability import reliability_figure
from lemlight.reporting.figures.roc import roc_figure
from lemlight.reporting.figures.sheet import SheetItem, image_sheet

__all__ = [
    "OverlayItem",
    "SheetItem",
    "choose_examples",
    "froc_figure",
    "image_sheet",
    "overlay_figure",
    "overlay_sheet",
    "reliability_figure",
    "roc_figure",
    "training_curves",
]

"""The ROC and FROC curves of all methods in one figure each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from lemlight.reporting.comparison.marks import Marks
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.reporting.figures.froc import FEWEST, MOST, curve_points
from lemlight.reporting.figures.style import GREY, new_figure, save, say, tidy

GRID = np.linspace(0, 1, 501)
RATES = np.geomspace(FEWEST, MOST, 400)

Groups = Mapping[str, Sequence[TrainingRun]]
"""Method -> its finished trainings."""


def roc_overlay(groups: Groups, marks: Marks, path: Path) -> Path:
    """Draw the ROC curve of every method: with several trainings the mean true positive rate at each false one."""
    figure = new_figure(5.6, 5.6 + _legend_height(groups))
    axes = figure.add_subplot()
    tidy(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="ROC curves")
    axes.set_box_aspect(1)
    axes.set(xlabel="False positive rate (1 - specificity)", ylabel="True positive rate (sensitivity)")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    for method, runs in groups.items():
        curves = [_roc(run) for run in runs]
        if any(curve is None for curve in curves):
            continue
        areas = [run.summary["auroc"]["value"] for run in runs]
        label = method if None in areas else f"{method}, AUC {np.mean(areas):.3f}"
        axes.plot(*_mean_curve([curve for curve in curves if curve is not None], GRID), label=label, **marks[method])
    return _finish(figure, axes, path, "the ROC curve needs malignant and benign images")


def froc_overlay(groups: Groups, marks: Marks, path: Path) -> Path | None:
    """Draw the FROC curve of every method, likewise; None, and no file, where no training knows a lesion."""
    found = {method: [_froc(run.summary) for run in runs] for method, runs in groups.items()}
    drawn = {method: curves for method, curves in found.items() if all(curve is not None for curve in curves)}
    if not drawn:
        return None
    figure = new_figure(5.6, 5.0 + _legend_height(drawn))
    axes = figure.add_subplot()
    tidy(axes)
    axes.set_xscale("log", base=2, nonpositive="clip")
    axes.set(xlim=(FEWEST, MOST * 1.08), ylim=(-0.01, 1.01), title="FROC curves")
    axes.set(xlabel="False positives per image", ylabel="Sensitivity (share of lesions found)")
    axes.set_xticks(2.0 ** np.arange(-3, 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    for method, curves in drawn.items():
        means = [run.summary["froc"]["mean"]["value"] for run in groups[method]]
        label = method if None in means else f"{method}, mean {np.mean(means):.3f}"
        axes.plot(*_mean_curve([curve for curve in curves if curve is not None], RATES), label=label, **marks[method])
    return _finish(figure, axes, path, "no lesion is known")


Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def _roc(run: TrainingRun) -> Curve | None:
    truth = run.predictions["label"].to_numpy()
    if truth.min() == truth.max():
        return None
    false_rate, true_rate, _ = roc_curve(truth, run.predictions["probability"])
    return false_rate, true_rate


def _froc(summary: Mapping[str, Any]) -> Curve | None:
    section = summary.get("froc")
    curve = section.get("curve") if isinstance(section, Mapping) else None
    if not curve or not curve["false_positives_per_image"]:
        return None
    return curve_points(curve["false_positives_per_image"], curve["sensitivity"])


def _mean_curve(curves: Sequence[Curve], grid: NDArray[np.float64]) -> Curve:
    """Return the one curve as it is, or the mean height of several over a grid."""
    if len(curves) == 1:
        return curves[0]
    return grid, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)


def _legend_height(groups: Mapping[str, Any]) -> float:
    return 0.22 * len(groups)


def _finish(figure: Figure, axes: Axes, path: Path, empty: str) -> Path:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=9, borderaxespad=1)
    else:
        say(axes, empty)
    return save(figure, path)

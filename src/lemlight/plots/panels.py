"""Several methods in one figure: ROC, FROC, training and reliability curves, forest plot and score maps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from lemlight.metrics import METRIC_NAMES
from lemlight.metrics.comparison import Comparison
from lemlight.metrics.significance import PairDifference, p_text
from lemlight.plots.curves import curve_points
from lemlight.plots.sheets import SheetItem, draw_scores, draw_truth
from lemlight.plots.style import (
    BLUE,
    FEWEST,
    GREY,
    MOST,
    Marks,
    bare,
    froc_axes,
    method_marks,
    new_figure,
    roc_axes,
    save,
    say,
    tidy,
)

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


Groups = Mapping[str, Sequence[Any]]
"""Method -> its runs, each a `TrainingRun` of `lemlight.reporting.comparison.runs`."""


def curve_panels(groups: Groups, path: Path) -> Path:
    """Draw the ROC curves of all methods and, where lesions are known, their FROC curves.

    A method with several runs has the mean height of theirs; one of whose runs has no curve is left out.
    """
    marks = method_marks(groups)
    roc = _curves(groups, lambda run: _roc(run.predictions))
    froc = _curves(groups, lambda run: _froc(run.summary))
    figure = new_figure(5.6 * (1 + bool(froc)), 5.2 + 0.22 * len(groups))
    left, *right = figure.subplots(1, 1 + bool(froc), squeeze=False, subplot_kw={"box_aspect": 1})[0]
    roc_axes(left, "ROC curves")
    _draw_means(left, roc, np.linspace(0, 1, 501), marks)
    if not roc:
        say(left, "the ROC curve needs malignant and benign images")
    for axes in right:
        froc_axes(axes, "FROC curves")
        _draw_means(axes, froc, np.geomspace(FEWEST, MOST, 400), marks)
    _legend(figure, marks)
    return save(figure, path)


def _curves(groups: Groups, curve_of: Callable[[Any], Curve | None]) -> dict[str, list[Curve]]:
    found = {method: [curve for run in runs if (curve := curve_of(run))] for method, runs in groups.items()}
    return {method: curves for method, curves in found.items() if len(curves) == len(groups[method])}


def _roc(predictions: pd.DataFrame) -> Curve | None:
    if predictions["label"].nunique() < 2:
        return None
    false_rate, true_rate, _ = roc_curve(predictions["label"], predictions["probability"])
    return false_rate, true_rate


def _froc(summary: Mapping[str, Any]) -> Curve | None:
    curve = summary.get("froc", {}).get("curve")
    if not curve or not curve["false_positives_per_image"]:
        return None
    return curve_points(curve["false_positives_per_image"], curve["sensitivity"])


def _draw_means(axes: Axes, found: Mapping[str, list[Curve]], grid: NDArray[np.float64], marks: Marks) -> None:
    for method, curves in found.items():
        one = curves[0] if len(curves) == 1 else (grid, np.mean([np.interp(grid, *curve) for curve in curves], axis=0))
        axes.plot(*one, **marks[method])


def _legend(figure: Figure, marks: Marks) -> None:
    handles = [Line2D([], [], label=method, **mark) for method, mark in marks.items()]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


MOST_PAIRS = 36  # more are too many to read: then those with the method of the highest value


def forest_plot(comparison: Comparison, metric: str, path: Path) -> Path | None:
    """Draw the differences of one metric, first minus second, with 95 % intervals; None where there is no pair.

    Filled blue where the difference is shown after correction, hollow grey where it is not.
    """
    pairs, title = forest_pairs(comparison, metric)
    if not pairs:
        return None
    figure = new_figure(9.0, 1.5 + 0.27 * len(pairs))
    axes = figure.add_subplot()
    tidy(axes)
    axes.set_title(title, fontsize=11)
    axes.axvline(0, color="black", linewidth=1)
    heights = range(len(pairs), 0, -1)
    for height, pair in zip(heights, pairs, strict=True):
        estimate, shown, colour = pair.difference.estimate, pair.shown, BLUE if pair.shown else GREY
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=2 if shown else 1.4)
        if estimate.value is not None:
            axes.plot(estimate.value, height, "o", color=colour, markerfacecolor=colour if shown else "white")
        note = "not tested" if pair.p_corrected is None else p_text(pair.p_corrected)
        axes.annotate(
            note, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False
        )
    axes.set_yticks(
        list(heights), [f"{pair.first} minus {pair.second}" for pair in pairs], fontsize=8, parse_math=False
    )
    axes.set(ylim=(0.3, len(pairs) + 0.7), xlabel=f"Difference in {METRIC_NAMES[metric]}")
    if all(pair.difference.estimate.value is None for pair in pairs):
        say(axes, "the images do not define it")
    return save(figure, path)


def forest_pairs(comparison: Comparison, metric: str) -> tuple[Sequence[PairDifference], str]:
    """Return the pairs that a plot has room for, and its title, which says where it leaves some out."""
    pairs = [pair for pair in comparison.pairs if pair.metric == metric]
    name = METRIC_NAMES[metric]
    means = {method: one.value for (method, of), one in comparison.values.items() if of == metric}
    values = {method: value for method, value in means.items() if value is not None}
    if len(pairs) <= MOST_PAIRS or not values:
        return pairs, f"{name}: differences of all pairs, 95 % intervals, corrected p"
    top = max(values, key=lambda method: values[method])
    own = [pair for pair in pairs if top in (pair.first, pair.second)]
    return own, f"{name}: {len(own)} of {len(pairs)} pairs, those with {top} (highest value); corrected p"


PANELS = {"train/loss": "Training loss", "val/loss": "Validation loss", "val/auroc": "Validation AUC"}
COLUMNS = 4


def training_overlay(groups: Groups, path: Path) -> Path | None:
    """Draw losses and validation AUC over the epochs, a line per run; None where nothing was logged."""
    logs = {method: [run.log.replace([np.inf, -np.inf], np.nan) for run in runs] for method, runs in groups.items()}
    logged = [name for name in PANELS if any(name in log for own in logs.values() for log in own)]
    if not logged:
        return None
    figure = new_figure(4.2 * len(logged), 3.8 + 0.22 * -(-len(groups) // 3))
    panels = figure.subplots(1, len(logged), squeeze=False)[0]
    marks = method_marks(groups)
    for axes, name in zip(panels, logged, strict=True):
        tidy(axes)
        axes.set(title=PANELS[name], xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for method, own in logs.items():
            for values in (log[name].dropna() for log in own if name in log):
                axes.plot(values.index, values, marker="o" if len(values) < 5 else "", markersize=3, **marks[method])
        if "loss" in name and axes.dataLim.ymin > 0:
            axes.set_yscale("log")
    _legend(figure, marks)
    return save(figure, path)


def reliability_panels(groups: Groups, path: Path) -> Path | None:
    """Draw observed against predicted malignancy, a panel per method, a line per run; None without any bin.

    With one run its 95 % intervals are drawn, too.
    """
    bins = {method: [table for run in runs if len(table := _bins(run.summary))] for method, runs in groups.items()}
    drawn = {method: tables for method, tables in bins.items() if tables}
    if not drawn:
        return None
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = new_figure(2.6 * columns + 0.4, 2.8 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(drawn) :]:
        axes.set_axis_off()
    marks = method_marks(groups)
    for axes, (method, tables) in zip(grid.flat, drawn.items(), strict=False):
        tidy(axes)
        axes.set_title(method, fontsize=9, parse_math=False, wrap=True)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        for table in tables:
            axes.plot(table["predicted"], table["observed"], marker="o", markersize=3.5, **marks[method])
        if len(tables) == 1:
            axes.vlines(tables[0]["predicted"], tables[0]["low"], tables[0]["high"], color=GREY, linewidth=1)
    figure.supxlabel("Predicted probability of malignancy", fontsize=10)
    figure.supylabel("Fraction of malignant images", fontsize=10)
    return save(figure, path)


def _bins(summary: Mapping[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(summary.get("calibration", {}).get("bins", []))
    return table if {"predicted", "observed", "low", "high"} <= set(table.columns) else pd.DataFrame()


MOST_METHODS = 10  # methods in a figure


def score_map_panels(images: Sequence[Mapping[str, SheetItem]], path: Path) -> Path | None:
    """Draw a column per image (its score maps by method): its true lesions, and a row below for every method.

    Every method has a colour scale of its own, symmetric about 0. Methods beyond the tenth are left out. None where
    there is no score map.
    """
    images = [items for items in images if items]
    methods = list(dict.fromkeys(method for items in images for method in items))[:MOST_METHODS]
    if not methods:
        return None
    tallest = max(item.image.shape[0] / item.image.shape[1] for items in images for item in items.values())
    figure = new_figure(1.6 * len(images) + 0.4, (len(methods) + 1) * (1.6 * tallest + 0.3))
    grid = figure.subplots(len(methods) + 1, len(images), squeeze=False)
    for axes in grid.flat:
        bare(axes)
    for items, axes in zip(images, grid[0], strict=True):
        draw_truth(axes, next(iter(items.values())))
    for method, panels in zip(methods, grid[1:], strict=True):
        drawn = [(items[method], axes) for items, axes in zip(images, panels, strict=True) if method in items]
        largest = max(float(np.abs(item.score_map).max()) for item, _ in drawn)
        for item, axes in drawn:
            draw_scores(axes, item, Normalize(-largest or -1.0, largest or 1.0))
        panels[0].text(
            -0.06, 0.5, method, transform=panels[0].transAxes, rotation=90, ha="right", va="center", parse_math=False
        )
    return save(figure, path)

"""The training curves of all trainings, and the reliability of every method."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lemlight.reporting.comparison.curves_overlaid import Groups
from lemlight.reporting.comparison.marks import Marks
from lemlight.reporting.comparison.results_files import read_log
from lemlight.reporting.figures.style import GREY, new_figure, save, tidy

PANELS = {"train/loss": "Training loss", "val/loss": "Validation loss", "val/auroc": "Validation AUC"}
COLUMNS = 4


def training_overlay(groups: Groups, marks: Marks, path: Path) -> Path | None:
    """Draw losses and validation AUC over the epochs, a line per training; None where nothing was logged."""
    logs = {
        method: [log for run in runs if len(log := _by_epoch(read_log(run.folder)))] for method, runs in groups.items()
    }
    logged = [name for name in PANELS if any(name in log for own in logs.values() for log in own)]
    if not logged:
        return None
    figure = new_figure(4.2 * len(logged), 3.8 + 0.22 * -(-len(groups) // 3))
    panels = figure.subplots(1, len(logged), squeeze=False)[0]
    for axes, name in zip(panels, logged, strict=True):
        tidy(axes)
        axes.set(title=PANELS[name], xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for method, own in logs.items():
            for log in own:
                _line(axes, log, name, marks[method])
        if "loss" in name and axes.dataLim.ymin > 0:
            axes.set_yscale("log")
    handles = [panels[0].plot([], [], label=method, **marks[method])[0] for method in groups]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, path)


def reliability_panels(groups: Groups, marks: Marks, path: Path) -> Path | None:
    """Draw observed against predicted malignancy, a panel per method, a line per training; None without any bin.

    With one training its 95 % intervals are drawn, too.
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
    figure.supylabel("Share of malignant images", fontsize=10)
    return save(figure, path)


def _by_epoch(log: pd.DataFrame) -> pd.DataFrame:
    if "epoch" not in log:
        return pd.DataFrame()
    numbers: pd.DataFrame = log.apply(pd.to_numeric, errors="coerce")
    return numbers.groupby("epoch").mean()


def _line(axes: Axes, log: pd.DataFrame, name: str, mark: Mapping[str, Any]) -> None:
    if name in log and len(values := log[name].replace([np.inf, -np.inf], np.nan).dropna()):
        axes.plot(values.index, values, marker="o" if len(values) < 5 else "", markersize=3, **mark)


def _bins(summary: Mapping[str, Any]) -> pd.DataFrame:
    calibration = summary.get("calibration")
    table = pd.DataFrame(calibration.get("bins", []) if isinstance(calibration, Mapping) else [])
    return table if {"predicted", "observed", "low", "high"} <= set(table.columns) else pd.DataFrame()

"""The ROC curve with its band."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from lemlight.metrics.estimate import Undefined
from lemlight.metrics.roc import RocBand, roc_band
from lemlight.reporting.figures.style import BLUE, GREY, RED, new_figure, save, say, tidy
from lemlight.reporting.names import interval_text, value_text


def roc_figure(predictions: pd.DataFrame, summary: Mapping[str, Any], path: Path) -> Path:
    """Draw the ROC curve of predictions with its pointwise 95 % band over patients and the AUC of their summary.

    The band is drawn with the resamples and the seed of the summary; one class only gives an empty figure that says so.
    """
    band = roc_band(
        predictions["label"],
        predictions["probability"],
        predictions["patient_id"],
        resamples=summary["interval"]["resamples"],
        seed=summary["interval"]["seed"],
    )
    figure = new_figure(5.4, 5.4)
    axes = figure.add_subplot()
    tidy(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=f"ROC curve, {summary['split']} split")
    axes.set(xlabel="False positive rate (1 - specificity)", ylabel="True positive rate (sensitivity)")
    if isinstance(band, Undefined):
        say(axes, band.reason)
    else:
        _draw(axes, band, summary)
    return save(figure, path)


def _draw(axes: Axes, band: RocBand, summary: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
    interval = interval_text(summary["auroc"])
    label = f"AUC {value_text(summary['auroc'])}" + (f" (95 %: {interval})" if interval else "")
    if band.low is not None and band.high is not None:
        axes.fill_between(
            band.grid, band.low, band.high, color=BLUE, alpha=0.18, linewidth=0, label="95 % band over patients"
        )
    axes.plot(band.false_positive_rate, band.true_positive_rate, color=BLUE, linewidth=2, label=label)
    axes.plot(
        1 - summary["specificity"]["value"],
        summary["sensitivity"]["value"],
        color=RED,
        marker="o",
        markersize=7,
        linestyle="none",
        label=f"threshold {summary['threshold']:g}",
    )
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")

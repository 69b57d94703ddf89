"""The reliability diagram with its counts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lemlight.reporting.figures.style import BLUE, GREY, SKY, new_figure, save, say, tidy
from lemlight.reporting.names import interval_text, value_text


def reliability_figure(summary: Mapping[str, Any], path: Path) -> Path:
    """Draw observed against predicted malignancy per bin of a summary, with 95 % Wilson intervals and image counts."""
    bins = summary["calibration"]["bins"]
    figure = new_figure(5.4, 6.4)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for axes in (curve, counts):
        tidy(axes)
    brier, interval = summary["calibration"]["brier"], interval_text(summary["calibration"]["brier"])
    curve.set_title(
        f"Reliability, {summary['split']} split\nBrier score {value_text(brier)}" + f" ({interval})" * bool(interval)
    )
    curve.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    curve.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), ylabel="Share of malignant images")
    counts.set(xlabel="Predicted probability of malignancy", ylabel="Images")
    if not bins:
        say(curve, "no images")
        return save(figure, path)
    table = {key: np.array([part[key] for part in bins]) for key in bins[0]}
    observed = table["observed"]
    curve.errorbar(
        table["predicted"],
        observed,
        yerr=np.clip([observed - table["low"], table["high"] - observed], 0, None),
        color=BLUE,
        marker="o",
        markersize=6,
        linewidth=1.6,
        elinewidth=1.2,
        capsize=3,
        label="observed, 95 % interval",
    )
    curve.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none")
    drawn = counts.bar(
        table["start"], table["images"], table["end"] - table["start"], align="edge", color=SKY, edgecolor="white"
    )
    counts.bar_label(drawn, fontsize=8, padding=1)
    counts.margins(y=0.3)
    counts.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    return save(figure, path)

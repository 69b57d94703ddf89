"""The free-response ROC curve with the points that are reported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from lemlight.reporting.figures.style import BLUE, RED, new_figure, save, say, tidy
from lemlight.reporting.names import interval_text, value_text

FEWEST, MOST = 0.125, 8.0  # false positives per image, the ends of the axis


def froc_figure(section: Mapping[str, Any], path: Path) -> Path:
    """Draw sensitivity against false positives per image, on an axis that doubles, with the intervals at its points.

    section: `froc` of the localization figures in metrics.json: `mean`, `at` and `curve`. Without a curve (no lesion)
    the figure says why it is empty.
    """
    figure = new_figure(5.4, 5.0)
    axes = figure.add_subplot()
    tidy(axes)
    axes.set_xscale("log", base=2, nonpositive="clip")
    axes.set(xlim=(FEWEST, MOST * 1.08), ylim=(-0.01, 1.01), title="FROC curve")
    axes.set(xlabel="False positives per image", ylabel="Sensitivity (share of lesions found)")
    axes.set_xticks(2.0 ** np.arange(-3, 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    rates, sensitivity = section["curve"]["false_positives_per_image"], section["curve"]["sensitivity"]
    if rates:
        _draw(axes, section, *curve_points(rates, sensitivity))
    else:
        say(axes, section["mean"].get("reason") or "no lesions")
    return save(figure, path)


def curve_points(
    rates: Sequence[float], sensitivity: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points close enough to draw the curve's straight lines, which bend on this axis, up to its right end.

    Behind its last point it stays level: there are no more regions.
    """
    x, y = np.append(rates, max(MOST * 2, rates[-1])), np.append(sensitivity, sensitivity[-1])
    between = np.geomspace(FEWEST, MOST * 2, 400)
    parts = []
    for start, end in zip(range(len(x) - 1), range(1, len(x)), strict=True):
        inside = between[(between > x[start]) & (between < x[end])]
        heights = np.interp(inside, x[start : end + 1], y[start : end + 1])
        parts.append(np.stack([np.r_[x[start], inside, x[end]], np.r_[y[start], heights, y[end]]]))
    points = np.concatenate(parts, axis=1)
    return points[0], points[1]


def _draw(axes: Axes, section: Mapping[str, Any], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    mean, interval = value_text(section["mean"]), interval_text(section["mean"])
    label = f"mean of the points {mean}" + (f" (95 %: {interval})" if interval else "")
    axes.plot(x, y, color=BLUE, linewidth=2, label=label)
    points = [(float(rate), figure) for rate, figure in section["at"].items() if figure["value"] is not None]
    values = np.array([figure["value"] for _, figure in points])
    ends = [
        [figure["value"] if figure.get(end) is None else figure[end] for _, figure in points] for end in ("low", "high")
    ]
    drawn = any(figure.get("low") is not None for _, figure in points)
    axes.errorbar(
        [rate for rate, _ in points],
        values,
        yerr=np.clip([values - ends[0], ends[1] - values], 0, None),
        color=RED,
        marker="o",
        markersize=5,
        linestyle="none",
        elinewidth=1.2,
        capsize=3,
        label="reported, 95 % interval over patients" if drawn else "reported",
    )
    axes.legend(loc="upper left" if y[x <= 1].max(initial=0) < 0.5 else "lower right", framealpha=0.9, edgecolor="none")

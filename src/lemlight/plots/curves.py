"""The ROC curve with its band."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lemlight.metrics.bootstrap import Undefined
from lemlight.metrics.classification import RocBand, roc_band
from lemlight.plots.style import BLUE, GREY, RED, SERIES, SKY, interval_text, new_figure, save, say, tidy, value_text


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
        _draw_froc(axes, section, *curve_points(rates, sensitivity))
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


def _draw_froc(axes: Axes, section: Mapping[str, Any], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
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


LAMBDA = "lambda"
NAMES = {
    "train/loss": "training, total",
    "train/loss_gap": "training, GAP",
    "train/loss_pool": "training, pooling",
    "train/loss_regularizer": "training, regularizer",
    "val/loss": "validation, total",
    "val/auroc": "AUC",
    "val/acc": "accuracy",
}


def training_curves(metrics: pd.DataFrame, path: Path) -> Path:
    """Draw the sparse metrics.csv of Lightning's CSVLogger; whatever columns are missing are left out.

    Args:
        metrics: a row per logging call: epoch, step, train/*, val/*, lambda, NaN where a call did not log a value.
        path: of the PNG.
    """
    position = next((name for name in ("epoch", "step") if name in metrics and metrics[name].notna().any()), "row")
    logged = metrics if position != "row" else metrics.assign(row=range(len(metrics)))
    curves = logged.groupby(position).mean(numeric_only=True)
    logged_names = [str(name) for name in curves if curves[name].notna().any()]
    columns = sorted((name for name in logged_names if name.startswith(("train/", "val/"))), key=_order)
    losses = [name for name in columns if "loss" in name]
    figure = new_figure(9.6, 4.8)
    left, right = figure.subplots(1, 2)
    positive = curves[losses].where(curves[losses] > 0).dropna(axis=1, how="all")
    _panel(left, positive, "Losses", "no loss was logged")
    if len(positive.columns):
        left.set_yscale("log")  # the regularizer lies far above or below the others
    _panel(right, curves[[name for name in columns if name not in losses]], "Validation", "no figure was logged")
    for axes in (left, right):
        axes.set_xlabel(position.capitalize())
    if LAMBDA in curves and curves[LAMBDA].notna().any():
        _lambda(left, curves[LAMBDA].dropna())
    return save(figure, path)


def _order(name: str) -> tuple[int, str]:
    known = list(NAMES)
    return (known.index(name) if name in known else len(known), name)


def _panel(axes: Axes, curves: pd.DataFrame, title: str, empty: str) -> None:
    tidy(axes)
    axes.set_title(title)
    if curves.empty:
        say(axes, empty)
        return
    for number, name in enumerate(curves):
        values = curves[name].dropna()
        axes.plot(
            values.index,
            values,
            color=SERIES[number % len(SERIES)],
            linestyle="--" if str(name).startswith("val/") and "loss" in str(name) else "-",
            marker="o" if len(values) < 30 else "",
            markersize=3.5,
            linewidth=1.8,
            label=NAMES.get(str(name), str(name)),
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=9, frameon=False)


def _lambda(axes: Axes, values: "pd.Series[float]") -> None:
    """Show lambda, the share of the pooling loss in the total, on an axis of its own behind the losses."""
    twin = axes.twinx()
    twin.plot(values.index, values, color=GREY, linestyle=":", linewidth=1.8)
    twin.set(ylim=(-0.02, 1.05), ylabel="λ (dotted)")
    twin.yaxis.label.set_color(GREY)
    twin.tick_params(axis="y", colors=GREY)
    twin.spines[["top", "left"]].set_visible(False)

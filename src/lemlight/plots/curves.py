"""Figures of one run: ROC, reliability, FROC, subgroups, and the losses and metrics over the training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lemlight.metrics.classification import roc_band
from lemlight.metrics.subgroups import TESTED, group_name, subgroup_rows
from lemlight.plots.style import (
    BLUE,
    FEWEST,
    GREY,
    MOST,
    RED,
    SERIES,
    SKY,
    froc_axes,
    new_figure,
    roc_axes,
    save,
    say,
    tidy,
)
from lemlight.text import heading, interval_text, value_text

LEGEND: dict[str, Any] = {"framealpha": 0.9, "edgecolor": "none"}


def roc_figure(predictions: pd.DataFrame, summary: Mapping[str, Any], path: Path) -> Path:
    """Draw the ROC curve of predictions with its pointwise 95 % band over patients and the AUC of their summary.

    The band is drawn with the resamples and the seed of the summary; one class only gives an empty figure that says so.
    """
    drawn = {name: summary["interval"][name] for name in ("resamples", "seed")}
    band = roc_band(predictions["label"], predictions["probability"], predictions["patient_id"], **drawn)
    figure = new_figure(5.4, 5.4)
    axes = figure.add_subplot(aspect="equal")
    roc_axes(axes, f"ROC curve, {summary['split']} split")
    if band is None:
        say(axes, "the ROC curve needs malignant and benign images")
        return save(figure, path)
    if band.low is not None and band.high is not None:
        shade: dict[str, Any] = {"color": BLUE, "alpha": 0.18, "linewidth": 0, "label": "95 % band over patients"}
        axes.fill_between(band.grid, band.low, band.high, **shade)
    label = _labelled("AUC", summary["auroc"])
    axes.plot(band.false_positive_rate, band.true_positive_rate, color=BLUE, linewidth=2, label=label)
    if summary["threshold"] is not None:
        point = 1 - summary["specificity"]["value"], summary["sensitivity"]["value"]
        axes.plot(*point, "o", color=RED, markersize=7, label=f"threshold {summary['threshold']:.3g}")
    oracle = summary.get("operating", {}).get("oracle", {})
    if oracle.get("threshold") is not None:
        point = 1 - oracle["specificity"], oracle["sensitivity"]
        axes.plot(*point, "o", color=RED, markersize=9, fillstyle="none", label="oracle: what this split would choose")
    axes.legend(loc="lower right", **LEGEND)
    return save(figure, path)


def _labelled(name: str, metric: Mapping[str, Any]) -> str:
    interval = interval_text(metric)
    return f"{name} {value_text(metric)}" + (f" (95 %: {interval})" if interval else "")


def _with_intervals(axes: Axes, x: ArrayLike, value: ArrayLike, low: ArrayLike, high: ArrayLike, **style: Any) -> None:
    """Draw values (K,) with their intervals."""
    reach = np.clip([np.subtract(value, low), np.subtract(high, value)], 0, None)
    axes.errorbar(x, value, yerr=reach, marker="o", elinewidth=1.2, capsize=3, **style)


def reliability_figure(summary: Mapping[str, Any], path: Path) -> Path:
    """Draw observed against predicted malignancy per bin of a summary, with 95 % Wilson intervals and image counts."""
    figure = new_figure(5.4, 6.4)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for axes in (curve, counts):
        tidy(axes)
    brier = _labelled("Brier score", summary["calibration"]["brier"])
    curve.set_title(f"Reliability, {summary['split']} split\n{brier}")
    curve.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    curve.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), ylabel="Fraction of malignant images")
    counts.set(xlabel="Predicted probability of malignancy", ylabel="Images")
    bins = pd.DataFrame(summary["calibration"]["bins"])
    if bins.empty:
        say(curve, "no images")
        return save(figure, path)
    ends = [bins[name].to_numpy() for name in ("predicted", "observed", "low", "high")]
    _with_intervals(curve, *ends, color=BLUE, markersize=6, linewidth=1.6, label="observed, 95 % interval")
    if before := summary["calibration"].get("before"):
        raw = pd.DataFrame(before["bins"])
        label = f"before the temperature of {summary['calibration']['temperature']:.2f}"
        curve.plot(raw["predicted"], raw["observed"], color=RED, marker="s", markersize=4, linestyle="--", label=label)
    curve.legend(loc="upper left", **LEGEND)
    width = bins["end"] - bins["start"]
    drawn = counts.bar(bins["start"], bins["images"], width, align="edge", color=SKY, edgecolor="white")
    counts.bar_label(drawn, fontsize=8, padding=1)
    counts.margins(y=0.3)
    counts.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    return save(figure, path)


def froc_figure(section: Mapping[str, Any], path: Path) -> Path:
    """Draw sensitivity against false positives per image, on an axis that doubles, with the intervals at its points.

    section: `froc` of the localization figures in metrics.json: `mean`, `at` and `curve`. Without a curve (no lesion)
    the figure says why it is empty.
    """
    figure = new_figure(5.4, 5.0)
    axes = figure.add_subplot()
    froc_axes(axes, "FROC curve")
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
    between = np.setdiff1d(np.geomspace(FEWEST, MOST * 2, 400), x)
    between = between[(between > x[0]) & (between < x[-1])]
    together, heights = np.append(x, between), np.append(y, np.interp(between, x, y))
    order = np.argsort(together, kind="stable")  # both ends of a jump stay in their order
    return together[order], heights[order]


def _draw_froc(axes: Axes, section: Mapping[str, Any], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    axes.plot(x, y, color=BLUE, linewidth=2, label=_labelled("mean of the points", section["mean"]))
    points = {float(rate): metric for rate, metric in section["at"].items() if metric["value"] is not None}
    values, low, high = (
        [metric["value"] if metric.get(name) is None else metric[name] for metric in points.values()]
        for name in ("value", "low", "high")
    )
    known = any(metric.get("low") is not None for metric in points.values())
    label = "reported, 95 % interval over patients" if known else "reported"
    _with_intervals(axes, list(points), values, low, high, color=RED, markersize=5, linestyle="none", label=label)
    axes.legend(loc="upper left" if y[x <= 1].max(initial=0) < 0.5 else "lower right", **LEGEND)


def any_group_is_large_enough(summary: Mapping[str, Any]) -> bool:
    """Whether a subgroup of a summary (metrics.json) has a value that can be drawn."""
    return any(group[metric]["value"] is not None for _, _, group in subgroup_rows(summary) for metric in TESTED)


def subgroup_figure(summary: Mapping[str, Any], path: Path) -> Path:
    """Draw AUC, sensitivity and specificity of every subgroup with 95 % intervals; the line is that of all images.

    A subgroup that is too small has no point, which is said in its place.
    """
    rows = subgroup_rows(summary)
    figure = new_figure(10.0, 1.3 + 0.3 * len(rows))
    panels = figure.subplots(1, len(TESTED), sharey=True)
    heights = range(len(rows), 0, -1)
    for axes, metric in zip(panels, TESTED, strict=True):
        tidy(axes)
        axes.set_title(heading(metric), fontsize=11)
        if summary[metric]["value"] is not None:
            axes.axvline(summary[metric]["value"], color=GREY, linewidth=1, linestyle=":")
        for height, (_, _, group) in zip(heights, rows, strict=True):
            found = group[metric]
            if found["value"] is None:
                why = "too small" if "too small" in found["reason"] else "undefined"
                axes.text(0.5, height, why, ha="center", va="center", color=GREY, fontsize=7)
                continue
            if found.get("low") is not None:
                axes.plot([found["low"], found["high"]], [height, height], color=BLUE, linewidth=1.6)
            axes.plot(found["value"], height, "o", color=BLUE, markersize=5)
        axes.set(xlim=(-0.02, 1.02), ylim=(0.3, len(rows) + 0.7))
    names = [f"{group_name(name, value)} ({group['images']}, {group['patients']})" for name, value, group in rows]
    panels[0].set_yticks(list(heights), names, fontsize=8, parse_math=False)
    return save(figure, path)


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

    It has a row per logging call: epoch, step, train/*, val/*, lambda, NaN where a call did not log a value.
    """
    position = next((name for name in ("epoch", "step") if name in metrics and metrics[name].notna().any()), "row")
    logged = metrics if position != "row" else metrics.assign(row=range(len(metrics)))
    curves = logged.groupby(position).mean(numeric_only=True).dropna(axis=1, how="all")
    others = sorted(name for name in map(str, curves) if name.startswith(("train/", "val/")) and name not in NAMES)
    columns = [*(name for name in NAMES if name in curves), *others]
    losses = [name for name in columns if "loss" in name]
    figure = new_figure(9.6, 4.8)
    left, right = figure.subplots(1, 2)
    positive = curves[losses].where(curves[losses] > 0).dropna(axis=1, how="all")
    _panel(left, positive, "Losses", "no loss was logged")
    if len(positive.columns):
        left.set_yscale("log")  # the regularizer lies far above or below the others
    _panel(right, curves[[name for name in columns if name not in losses]], "Validation", "no metric was logged")
    for axes in (left, right):
        axes.set_xlabel(position.capitalize())
    if "lambda" in curves:  # the fraction of the pooling loss in the total, on an axis of its own behind the losses
        values, twin = curves["lambda"].dropna(), left.twinx()
        twin.plot(values.index, values, color=GREY, linestyle=":", linewidth=1.8)
        twin.set(ylim=(-0.02, 1.05), ylabel="λ (dotted)")
        twin.yaxis.label.set_color(GREY)
        twin.tick_params(axis="y", colors=GREY)
        twin.spines[["top", "left"]].set_visible(False)
    return save(figure, path)


def _panel(axes: Axes, curves: pd.DataFrame, title: str, empty: str) -> None:
    tidy(axes)
    axes.set_title(title)
    if curves.empty:
        say(axes, empty)
        return
    for number, name in enumerate(map(str, curves)):
        values = curves[name].dropna()
        axes.plot(
            values.index,
            values,
            color=SERIES[number % len(SERIES)],
            linestyle="--" if name.startswith("val/") and "loss" in name else "-",
            marker="o" if len(values) < 30 else "",
            markersize=3.5,
            linewidth=1.8,
            label=NAMES.get(name, name),
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=9, frameon=False)

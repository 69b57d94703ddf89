"""The curves of a training: losses, figures on the validation split, and lambda."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lemlight.reporting.figures.style import GREY, SERIES, new_figure, save, say, tidy

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

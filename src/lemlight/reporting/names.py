"""How figures of merit and classes are called in front of a reader, and how a value with its interval is written."""

from collections.abc import Mapping
from typing import Any

METRIC_NAMES = {
    "auroc": "AUC",
    "acc": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "brier": "Brier score",
}
CLASS_NAMES = ("benign", "malignant")


def interval_text(figure: Mapping[str, Any]) -> str:
    """Return the interval of one figure of metrics.json as `0.85 to 0.96`, or an empty string where there is none."""
    return "" if figure.get("low") is None else f"{figure['low']:.3f} to {figure['high']:.3f}"


def value_text(figure: Mapping[str, Any]) -> str:
    """Return the value of one figure of metrics.json with three digits, or `undefined`."""
    return "undefined" if figure["value"] is None else f"{figure['value']:.3f}"


def metric_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return name, value, interval and reason (where something is undefined) of every figure in a summary."""
    figures = [(name, summary[key]) for key, name in METRIC_NAMES.items() if key in summary]
    return [(name, value_text(figure), interval_text(figure), figure.get("reason", "")) for name, figure in figures]


def how_text(summary: Mapping[str, Any]) -> str:
    """Return in one line what was evaluated and how the intervals were drawn."""
    how = summary["interval"]
    return (
        f"{summary['split'] or 'unnamed'} split: {summary['images']} images of {summary['patients']} patients; "
        f"malignant above {summary['threshold']:g}; {100 * how['level']:g} % intervals: {how['method']}, "
        f"{how['resamples']} resamples, seed {how['seed']}"
    )

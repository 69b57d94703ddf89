"""The files that a finished training leaves, read with care: they may be damaged or of another version."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.errors import LemlightError
from lemlight.reporting.names import METRIC_NAMES

PREDICTION_COLUMNS = ("image_id", "patient_id", "label", "probability")
AS_TEXT = {"image_id": str, "patient_id": str}


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what metrics.json holds; LemlightError if it is not what a training writes."""
    try:
        summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LemlightError("metrics.json cannot be read: it is damaged; train again") from error
    if not isinstance(summary, dict) or not all(_is_figure(summary.get(name)) for name in METRIC_NAMES):
        raise LemlightError("metrics.json lacks figures of a training: it is damaged, or of another version")
    if not isinstance(summary.get("threshold"), int | float):
        raise LemlightError("metrics.json lacks the threshold: it is damaged, or of another version")
    return summary


def read_predictions(folder: Path) -> pd.DataFrame:
    """Return predictions.csv with identifiers as text; LemlightError if it is not what a training writes."""
    table = _table(folder / "predictions.csv")
    if table is None or table.empty or not set(PREDICTION_COLUMNS) <= set(table.columns):
        raise LemlightError("predictions.csv cannot be read, is empty or lacks columns: train again")
    numbers = table[["label", "probability"]].apply(pd.to_numeric, errors="coerce")
    if not (numbers["label"].isin([0, 1]).all() and numbers["probability"].between(0, 1).all()):
        raise LemlightError("predictions.csv holds labels or probabilities that are none: it is damaged; train again")
    if table[["image_id", "patient_id"]].isna().any(axis=None) or table["image_id"].duplicated().any():
        raise LemlightError("predictions.csv has rows without an image, or an image twice: it is damaged; train again")
    return table.assign(**numbers)


def read_dice(folder: Path, method: str) -> "pd.Series[float] | None":
    """Return the Dice of every image (index image_id) under one localization method; None where nothing was left."""
    table = _table(folder / "localization_images.csv")
    if table is None or not {"image_id", "dsc", "method"} <= set(table.columns):
        return None
    own = table[table["method"] == method].drop_duplicates("image_id").set_index("image_id")["dsc"]
    return pd.to_numeric(own, errors="coerce") if len(own) else None


def read_log(folder: Path) -> pd.DataFrame:
    """Return logs/metrics.csv, empty where there is none."""
    table = _table(folder / "logs" / "metrics.csv")
    return pd.DataFrame() if table is None else table


def read_leaks(folder: Path) -> dict[str, Any]:
    """Return leaks.json, empty where there is none."""
    try:
        leaks = json.loads((folder / "leaks.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return leaks if isinstance(leaks, dict) else {}


def _table(path: Path) -> pd.DataFrame | None:
    try:
        return pd.read_csv(path, dtype=AS_TEXT)
    except (OSError, ValueError):  # pandas' own errors of reading are ValueErrors
        return None


def _is_figure(figure: Any) -> bool:
    return isinstance(figure, dict) and isinstance(figure.get("value", ""), int | float | None)

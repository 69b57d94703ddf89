"""What is asked of labels and probabilities before anything is computed from them."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError

SUMMARY_COLUMNS = ("image_id", "patient_id", "split", "label", "probability")


def as_vector(values: ArrayLike, name: str, problems: list[str]) -> NDArray[np.float64]:
    """Return values as float64 (N,), adding to problems what keeps them from being finite numbers in one dimension."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        problems.append(f"{name} has entries that are not numbers")
        return np.zeros(0)
    if vector.ndim != 1:
        problems.append(f"{name} must have shape (N,), got {vector.shape}")
    elif bad := int(np.sum(~np.isfinite(vector))):
        remedy = ": the training has probably diverged, lower the learning rate" if name == "probability" else ""
        problems.append(f"{bad} of {vector.size} values in {name} are NaN or infinite{remedy}")
    return vector


def check_scored(label: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return label (N,) as bool and probability (N,) as float64.

    Raises:
        LemlightError: everything wrong at once: shapes, labels other than 0 and 1, values that are no probabilities.
    """
    problems: list[str] = []
    truth = as_vector(label, "label", problems)
    scored = as_vector(probability, "probability", problems)
    if not problems:
        if truth.shape != scored.shape:
            problems.append(f"{truth.size} labels but {scored.size} probabilities")
        if bad := int(np.sum((truth != 0) & (truth != 1))):
            problems.append(f"{bad} of {truth.size} labels are neither 0 (benign) nor 1 (malignant)")
        if bad := int(np.sum((scored < 0) | (scored > 1))):
            problems.append(
                f"{bad} of {scored.size} probabilities lie outside [0, 1]: they look like logits, apply a sigmoid first"
            )
    if problems:
        raise LemlightError("cannot compute metrics: " + "; ".join(problems))
    return truth.astype(bool), scored


def check_threshold(threshold: float) -> None:
    """Raise LemlightError unless the decision threshold is a probability."""
    if not 0 <= threshold <= 1:
        raise LemlightError(f"the decision threshold must be a probability in [0, 1], got {threshold}")


def check_predictions(predictions: pd.DataFrame, columns: tuple[str, ...] = SUMMARY_COLUMNS) -> None:
    """Raise LemlightError unless the frame has these columns, one split, one row per image and a patient for each."""
    if missing := [column for column in columns if column not in predictions.columns]:
        raise LemlightError(f"predictions lack the columns {', '.join(missing)}; they have {_names(predictions)}")
    problems: list[str] = []
    if repeated := int(predictions["image_id"].duplicated().sum()):
        problems.append(f"{repeated} rows repeat an image_id: drop the duplicates of the distributed sampler first")
    patients = predictions["patient_id"]
    if nameless := int((patients.isna() | (patients.astype(str).str.strip() == "")).sum()):
        problems.append(f"{nameless} rows have no patient_id: intervals are drawn over patients")
    if len(splits := predictions["split"].astype(str).unique()) > 1:
        problems.append(f"rows of several splits ({', '.join(sorted(splits))}): select one split first")
    if problems:
        raise LemlightError("cannot use these predictions: " + "; ".join(problems))


def _names(frame: pd.DataFrame) -> str:
    columns: list[Any] = list(frame.columns)
    return ", ".join(map(str, columns)) or "none"

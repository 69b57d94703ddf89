"""What a run leaves about its figures: metrics.json and predictions.csv."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.files import write_json, written_aside
from lemlight.metrics.calibration import reliability_curve
from lemlight.metrics.checks import SUMMARY_COLUMNS, check_predictions, check_scored
from lemlight.metrics.classification import METRICS, classification_metrics, weighted_metrics
from lemlight.metrics.intervals import LEVEL, bootstrap, estimate

PREDICTION_COLUMNS = (*SUMMARY_COLUMNS, "n_maxima", "n_minima")


def summarize(
    predictions: pd.DataFrame, *, threshold: float = 0.5, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return what metrics.json holds: the figures of one split with 95 % intervals over patients, and the calibration.

    Args:
        predictions: one row per image with image_id, patient_id, split, label (0 or 1), probability in [0, 1].
        threshold: an image is called malignant where its probability lies above it.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.

    Raises:
        LemlightError: predictions that lack columns, repeat images, mix splits, or hold NaN or logits.
    """
    check_predictions(predictions)
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    patients = predictions["patient_id"].astype(str).to_numpy()
    count = int(np.unique(patients).size)
    values = classification_metrics(truth, probability, threshold)
    draws = {name: np.zeros(0) for name in METRICS}
    if count:
        draws |= bootstrap(
            partial(weighted_metrics, truth, probability, threshold=threshold), patients, resamples=resamples, seed=seed
        )
    figures = {name: estimate(values[name], draws[name], count).to_dict() for name in METRICS}
    return {
        "split": str(predictions["split"].iloc[0]) if len(predictions) else "",
        "images": len(predictions),
        "patients": count,
        "threshold": float(threshold),
        **figures,
        "calibration": {
            "brier": figures["brier"],
            "bins": [part.to_dict() for part in reliability_curve(truth, probability, patients)],
        },
        "interval": _interval_section(draws, resamples, seed),
    }


def _interval_section(draws: dict[str, NDArray[np.float64]], resamples: int, seed: int) -> dict[str, Any]:
    """Return how the intervals were drawn, and how many resamples were dropped since they left a figure undefined."""
    dropped = {name: int(np.isnan(values).sum()) for name, values in draws.items()}
    return {
        "level": LEVEL,
        "method": "percentile bootstrap over patients",
        "resamples": resamples,
        "seed": seed,
        "dropped": dropped,
    }


def write_metrics(summary: dict[str, Any], path: Path) -> None:
    """Write a summary as JSON that has no NaN; an undefined figure is null.

    Raises:
        LemlightError: the file cannot be written.
    """
    write_json(summary, path)


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write predictions.csv: image_id, patient_id, split, label, probability, n_maxima, n_minima, in that order.

    Raises:
        LemlightError: a column is missing, an image is there twice, or the file cannot be written.
    """
    check_predictions(predictions, PREDICTION_COLUMNS)
    with written_aside(path) as aside:
        predictions.loc[:, list(PREDICTION_COLUMNS)].to_csv(aside, index=False)

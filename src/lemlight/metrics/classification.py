"""Accuracy, AUC, sensitivity, specificity, F1 and Brier score of probabilities, for many weightings of the images.

A bootstrap resample is an integer weight per image, so that the figure itself (all weights 1) and its resamples come
from the same few lines; tests hold them against scikit-learn and torchmetrics.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemlight.metrics.checks import check_scored, check_threshold
from lemlight.metrics.estimate import Undefined

METRICS = ("acc", "auroc", "sensitivity", "specificity", "f1", "brier")


def predicted_malignant(probability: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Return which probabilities (N,) lie above the threshold, as in the paper (p > 0.5) and in torchmetrics."""
    return probability > threshold


def classification_metrics(
    label: ArrayLike, probability: ArrayLike, threshold: float = 0.5
) -> dict[str, float | Undefined]:
    """Return every figure of METRICS for label (N,) in {0, 1} and probability (N,) in [0, 1].

    Higher is better, except for the Brier score. A figure that the labels do not define is Undefined with its reason.

    Raises:
        LemlightError: NaN, logits instead of probabilities, other labels, other shapes.
    """
    truth, scored = check_scored(label, probability)
    check_threshold(threshold)
    rows = weighted_metrics(truth, scored, np.ones((1, truth.size)), threshold)
    reasons = _reasons(truth)
    values = {name: float(row[0]) for name, row in rows.items()}
    return {name: Undefined(reasons[name]) if np.isnan(value) else value for name, value in values.items()}


def weighted_metrics(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64], threshold: float
) -> dict[str, NDArray[np.float64]]:
    """Return for every row of weights (R, N), counts of the N images, each figure of METRICS (R,); NaN is undefined."""
    called = predicted_malignant(probability, threshold)
    squared_error = (probability - truth) ** 2
    columns = np.stack([truth, ~truth, truth & called, ~truth & called, squared_error], axis=1).astype(np.float64)
    malignant, benign, hits, alarms, error = (weights @ columns).T
    images = malignant + benign
    return {
        "acc": _ratio(hits + benign - alarms, images),
        "auroc": weighted_auroc(truth, probability, weights),
        "sensitivity": _ratio(hits, malignant),
        "specificity": _ratio(benign - alarms, benign),
        "f1": _ratio(2 * hits, np.where(malignant > 0, malignant + hits + alarms, 0)),  # no recall, no F1
        "brier": _ratio(error, images),
    }


def weighted_auroc(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for every row of weights (R, N) the share of (malignant, benign) pairs in the right order, ties half."""
    if truth.size == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(probability, kind="stable")
    # Images of equal probability form one step of the ROC curve: add up their weights, then count pairs between steps.
    steps = np.flatnonzero(np.diff(probability[order], prepend=-1.0))
    ordered = weights[:, order]
    malignant = np.add.reduceat(ordered * truth[order], steps, axis=1)
    benign = np.add.reduceat(ordered * ~truth[order], steps, axis=1)
    below = np.cumsum(benign, axis=1) - benign / 2
    pairs = malignant.sum(axis=1) * benign.sum(axis=1)
    return _ratio(np.einsum("rs,rs->r", malignant, below), pairs)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _reasons(truth: NDArray[np.bool_]) -> dict[str, str]:
    if truth.size == 0:
        return dict.fromkeys(METRICS, "no images")
    one_class = "malignant" if truth.all() else "benign"
    return {
        "acc": "no images",
        "auroc": f"one class only: all images are {one_class}",
        "sensitivity": "no malignant image",
        "specificity": "no benign image",
        "f1": "no malignant image",
        "brier": "no images",
    }

"""The ROC curve with its pointwise 95 % band over patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from lemlight.metrics.checks import check_scored
from lemlight.metrics.estimate import Undefined
from lemlight.metrics.intervals import bootstrap, percentiles, too_few


@dataclass(frozen=True)
class RocBand:
    """The curve (K,) from (0, 0) to (1, 1), and on a grid of false positive rates (G,) the band [low, high].

    `low` and `high` (G,) are None where the patients are too few for a band.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    grid: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def roc_band(
    label: ArrayLike, probability: ArrayLike, patients: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> RocBand | Undefined:
    """Return the ROC curve of label and probability with its band, patients (N,) drawn anew in every resample.

    Raises:
        LemlightError: what `check_scored` and `bootstrap` refuse.
    """
    truth, scored = check_scored(label, probability)
    if truth.size == 0 or truth.all() or not truth.any():
        return Undefined("the ROC curve needs malignant and benign images")
    false_rate, true_rate, _ = roc_curve(truth, scored)
    grid = np.linspace(0, 1, 101)
    draws = bootstrap(
        lambda weights: {"tpr": weighted_roc(truth, scored, weights, grid)}, patients, resamples=resamples, seed=seed
    )["tpr"]
    defined = draws[~np.isnan(draws[:, 0])]
    if too_few(len(defined), len(draws), np.unique(np.asarray(patients).astype(str)).size):
        return RocBand(false_rate, true_rate, grid, None, None)
    low, high = percentiles(defined)
    return RocBand(false_rate, true_rate, grid, low, high)


def weighted_roc(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    weights: NDArray[np.float64],
    grid: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the true positive rate (R, G) at every false positive rate of grid (G,), NaN in rows with one class."""
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.diff(probability[order], append=-1.0))  # equal probabilities are one step of the curve
    hits = np.cumsum(weights[:, order] * truth[order], axis=1)[:, ends]
    alarms = np.cumsum(weights[:, order] * ~truth[order], axis=1)[:, ends]
    curve = np.full((len(weights), grid.size), np.nan)
    for row in np.flatnonzero((hits[:, -1] > 0) & (alarms[:, -1] > 0)):
        # On a vertical step np.interp takes the last, hence the upper, of the points that share a false positive rate.
        false_rate = np.append(0.0, alarms[row] / alarms[row, -1])
        curve[row] = np.interp(grid, false_rate, np.append(0.0, hits[row] / hits[row, -1]))
    return curve

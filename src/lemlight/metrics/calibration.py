"""Calibration: does a probability mean what it says? Temperature, slope, intercept, expected calibration error."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.special import logit as logit_of

from lemlight.metrics.bootstrap import ratio

COLDEST, HOTTEST = 0.05, 20.0  # a best temperature at one of these ends is none
STEPS = 30  # of Newton, which needs some six
FLAT = 1e-9
HIGHEST = 1 - 2.0**-53  # the largest probability below 1, of logit 36.7: a probability of 1 has no finite one


def log_odds(probability: ArrayLike) -> NDArray[np.float64]:
    """Return the logits of probabilities in [0, 1]; those of 0 and 1 are those of the nearest number between."""
    scored = np.asarray(probability, dtype=np.float64)
    return np.asarray(logit_of(np.clip(scored, np.finfo(np.float64).tiny, HIGHEST)))


def fit_temperature(truth: NDArray[np.bool_], logit: NDArray[np.float64]) -> tuple[float, str]:
    """Return the temperature by which logits (N,) are to be divided, and why it is 1 where none can be found.

    It minimizes the cross-entropy (Guo et al., ICML 2017), which is convex in 1 / temperature. It changes no order:
    the AUC stays. A split without both classes, or that the logits part without an error, has no temperature.
    """
    if truth.all() or not truth.any():
        return 1.0, "the validation split has one class only"
    sign = np.where(truth, -1.0, 1.0)
    ends = np.log([COLDEST, HOTTEST])
    best = minimize_scalar(
        lambda log: np.logaddexp(0, sign * logit * np.exp(-log)).mean(), bounds=ends, options={"xatol": 1e-10}
    )
    if min(abs(best.x - ends)) < 1e-3:
        if best.x < 0:
            return 1.0, "the validation split parts the classes without an error: no temperature is best"
        return 1.0, "on the validation split no temperature does better than a probability of 0.5 for all"
    return float(np.exp(best.x)), ""


def weighted_recalibration(
    truth: NDArray[np.bool_], logit: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return slope and intercept (R,) for every row of weights (R, N); NaN with one class, or parted without an error.

    slope: that of a logistic regression of the label on the logit (Cox 1958); 1 is best, below it the probabilities
    are too extreme. intercept: with the slope held at 1 (calibration in the large); 0 is best, above it they are too
    low (Van Calster et al., BMC Medicine 2019).
    """
    if not truth.size:
        return {name: np.full(len(weights), np.nan) for name in ("slope", "intercept")}
    unparted = _unparted(truth, logit, weights)
    free = _newton(np.stack([np.ones_like(logit), logit], axis=1), np.zeros_like(logit), truth, weights)
    alone = _newton(np.ones((logit.size, 1)), logit, truth, weights)
    both = (weights @ truth > 0) & (weights @ ~truth > 0)
    return {"slope": np.where(unparted, free[:, 1], np.nan), "intercept": np.where(both, alone[:, 0], np.nan)}


def _unparted(truth: NDArray[np.bool_], logit: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the classes overlap in every row: else the likelihood has no maximum."""
    malignant, benign = (weights > 0) & truth, (weights > 0) & ~truth
    above = np.where(malignant, logit, np.inf).min(axis=1) < np.where(benign, logit, -np.inf).max(axis=1)
    below = np.where(benign, logit, np.inf).min(axis=1) < np.where(malignant, logit, -np.inf).max(axis=1)
    return np.asarray(above & below)


def _newton(
    design: NDArray[np.float64], offset: NDArray[np.float64], truth: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The coefficients (R, P) of weighted logistic regressions on design (N, P) with an offset (N,), NaN if lost."""
    rows, parameters = len(weights), design.shape[1]
    found = np.zeros((rows, parameters))
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, parameters**2)
    for _ in range(STEPS):
        probability = expit(offset + found @ design.T)
        gradient = (weights * (truth - probability)) @ design
        curvature = ((weights * probability * (1 - probability)) @ products).reshape(rows, parameters, parameters)
        step = np.linalg.solve(curvature + FLAT * np.eye(parameters), gradient[:, :, None])[:, :, 0]
        found += np.clip(step, -2, 2)
        if np.abs(step).max(initial=0) < 1e-10:
            break
    settled = np.abs(step).max(axis=1, initial=0) < 1e-6
    return np.where(settled[:, None], found, np.nan)


def expected_calibration_error(truth: NDArray[np.bool_], probability: NDArray[np.float64], bins: int = 10) -> float:
    """Return the mean distance of predicted and observed malignancy over bins of equal width, weighed by images.

    NaN without images. It is never 0 for a finite sample, also of a calibrated network: compare, do not take it alone.
    """
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, bins - 1)
    off = np.bincount(bin_of, probability - truth, minlength=bins)
    return float(ratio(np.abs(off).sum(keepdims=True), np.array([float(truth.size)]))[0])


def uncalibrated(probability: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities (N,) from before the logits were divided by the temperature."""
    return np.asarray(expit(log_odds(probability) * temperature))

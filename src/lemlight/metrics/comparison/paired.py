"""Paired bootstrap over patients of the difference of one figure of two methods."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.comparison.outcomes import Metric, Outcomes, named_metric
from lemlight.metrics.estimate import Estimate
from lemlight.metrics.intervals import LEVEL, bootstrap, too_few

CONSTANT = 1e-12  # draws closer together than this differ by rounding only


@dataclass(frozen=True)
class Difference:
    """First minus second with its 95 % interval and two-sided p-value; what is unknown is None and has a reason."""

    estimate: Estimate
    p: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return value, low, high, p, with a reason where one of them is null."""
        return self.estimate.to_dict() | {"p": self.p}


def paired_bootstrap(
    metric: str | Metric,
    first: Outcomes,
    second: Outcomes,
    patients: ArrayLike,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the difference of a metric of two methods, both measured on the same resamples of the patients.

    Args:
        metric: its name (acc, auroc, sensitivity, specificity, f1, brier, dsc), or a function of outcomes and weights.
        first: what the first method said of the N images.
        second: what the second method said of the same images in the same order.
        patients: (N,) the patient of every image, drawn together or not at all.
        resamples: of the bootstrap; the smallest p-value is 2 / (resamples + 1).
        seed: of the bootstrap.

    Raises:
        LemlightError: other images, an unknown metric, too few resamples for a 95 % interval.
    """
    owners = np.asarray(patients).astype(str)
    if first.truth.size == 0 or not np.array_equal(first.truth, second.truth) or owners.shape != first.truth.shape:
        raise LemlightError("a paired comparison needs the same images with the same labels, and a patient for each")
    measure = named_metric(metric) if isinstance(metric, str) else metric
    one, other = (measure(outcomes, np.ones((1, first.truth.size)))[0] for outcomes in (first, second))
    draws = bootstrap(
        lambda weights: {"difference": measure(first, weights) - measure(second, weights)},
        owners,
        resamples=resamples,
        seed=seed,
    )["difference"]
    if np.isnan(one - other):
        return Difference(Estimate(None, reason="the images do not define the metric"), None)
    return drawn_difference(float(one - other), draws, np.unique(owners).size)


def drawn_difference(value: float, draws: NDArray[np.float64], patients: int) -> Difference:
    """Return the difference with the interval and the p-value of its draws (R,), of which NaN are dropped.

    With R draws left, p = min(1, 2 (k + 1) / (R + 1)), k the smaller of the numbers of draws <= 0 and of draws >= 0,
    and the interval goes from the j-th smallest to the j-th largest draw, j = floor(0.025 (R + 1)). So 0 lies outside
    of the interval if and only if p <= 0.05 (Davison and Hinkley, Bootstrap Methods and their Application, 1997).

    Draws that are all 0 (two methods that do the same) give p = 1 and no interval. Draws that are all alike but not
    0 (one method right, the other wrong on every image) give neither: the bootstrap cannot tell how certain that is.
    """
    drawn = np.sort(draws[~np.isnan(draws)])
    drawn[np.abs(drawn) < CONSTANT] = 0  # equal figures are a draw of 0, whatever their rounding
    place = int((1 - LEVEL) / 2 * (drawn.size + 1) + 1e-9)
    reason = too_few(drawn.size, draws.size, patients)
    if not reason and place < 1:
        reason = f"{drawn.size} resamples that define the difference are too few for a 95 % interval"
    if reason:
        return Difference(Estimate(value, reason=reason), None)
    if np.ptp(drawn) < CONSTANT:
        reason = "every resample gives the same difference: the bootstrap cannot tell how certain it is"
        return Difference(Estimate(value, reason=reason), None if drawn[0] else 1.0)
    tail = int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0))
    p = min(1.0, 2 * (min(tail) + 1) / (drawn.size + 1))
    return Difference(Estimate(value, float(drawn[place - 1]), float(drawn[-place])), p)

"""The value of a metric with its interval over patients, or the reason why there is none."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError

LEVEL = 0.95
FEWEST_RESAMPLES = 40  # 2.5 % of them must be one resample at least
LARGEST_BLOCK = 2**21  # weights at a time (16 MiB): memory does not grow with images times resamples


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval `[low, high]`; what is unknown is None and has a reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, float | str | None]:
        """Return value, low, high as metrics.json has them, with a reason where one of them is null."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        known: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return known | ({"reason": self.reason} if self.reason else {})


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, NaN where the whole is 0: undefined, never 0."""
    quotient = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def patient_weights(patients: ArrayLike, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield blocks (R, N): how often each resample of the patients draws each of the N > 0 images.

    Each of the `resamples` over all blocks draws as many patients as there are, with replacement.
    """
    _, patient = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    count = int(patient.max()) + 1
    generator = np.random.default_rng(seed)
    rows = max(1, LARGEST_BLOCK // patient.size)
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        drawn = generator.integers(count, size=(block, count)) + count * np.arange(block)[:, None]
        times = np.bincount(drawn.ravel(), minlength=block * count).reshape(block, count)
        yield times.astype(np.float64)[:, patient]


Key = TypeVar("Key", bound=Hashable)


def bootstrap(
    statistics: Callable[[NDArray[np.float64]], Mapping[Key, NDArray[np.float64]]],
    patients: ArrayLike,
    *,
    resamples: int,
    seed: int,
) -> dict[Key, NDArray[np.float64]]:
    """Return the statistics, arrays (R, ...) for weights (R, N), over all resamples of the patients.

    Raises:
        LemlightError: fewer resamples than a 95 % interval needs.
    """
    if resamples < FEWEST_RESAMPLES:
        raise LemlightError(
            f"a 95 % interval needs at least {FEWEST_RESAMPLES} resamples, got {resamples}: 2000 is the default"
        )
    blocks = [statistics(weights) for weights in patient_weights(patients, resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def how_drawn(resamples: int, seed: int) -> dict[str, Any]:
    """Return how intervals were drawn, as metrics.json says it."""
    method = "percentile bootstrap over patients"
    return {"level": LEVEL, "method": method, "resamples": resamples, "seed": seed}


def percentiles(draws: NDArray[np.float64]) -> NDArray[Any]:
    """Return the bounds (2, ...) of the central 95 % of draws (R, ...)."""
    return np.asarray(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))


def too_few(defined: int, resamples: int, patients: int) -> str:
    """Return why the resamples that define a metric are too few for an interval, or an empty string."""
    if patients < 2:
        return "one patient only: an interval over patients needs at least two"
    if 2 * defined < resamples:
        return f"undefined in {resamples - defined} of {resamples} resamples of the patients: too few patients"
    return ""


def estimate(value: float, draws: NDArray[np.float64], patients: int, undefined: str) -> Estimate:
    """Return the value with the interval of its draws (R,), of which the undefined ones (NaN) are dropped.

    There is an interval unless there is one patient only, or more than half of the draws are undefined, or all of
    them are equal: a bootstrap that never varies (every image right) would claim a certainty that it cannot know.
    A value of NaN has the reason `undefined`.
    """
    if np.isnan(value):
        return Estimate(None, reason=undefined)
    defined = draws[~np.isnan(draws)]
    reason = too_few(defined.size, draws.size, patients)
    if not reason and np.ptp(defined) < 1e-12:
        reason = "every resample gives the same value: the bootstrap cannot tell how certain it is"
    if reason:
        return Estimate(value, reason=reason)
    low, high = percentiles(defined)
    return Estimate(value, float(low), float(high))

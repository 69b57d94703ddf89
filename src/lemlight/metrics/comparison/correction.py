"""Holm's correction of the p-values of several comparisons."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError


class Holm(NamedTuple):
    """What the correction makes of K p-values, in the order in which they were given."""

    p_corrected: NDArray[np.float64]
    """(K,) in [0, 1]: those up to 0.05 are significant with an error of 5 % over all comparisons together."""
    rank: NDArray[np.int64]
    """(K,) 1 for the smallest p-value; equal ones keep their order."""


def holm(p_values: ArrayLike) -> Holm:
    """Return the corrected p-values of K comparisons (Holm, Scandinavian Journal of Statistics 1979).

    The k-th smallest is multiplied by K + 1 - k, raised to the largest before it, and cut at 1. Unlike Bonferroni's,
    the correction is never larger than needed, and it holds whatever the dependence of the comparisons.

    Raises:
        LemlightError: values (K,) that are no probabilities.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise LemlightError(f"p-values must be one row of numbers in [0, 1], got shape {p.shape}: {p}")
    order = np.argsort(p, kind="stable")
    grown = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    corrected, rank = np.empty(p.size), np.empty(p.size, dtype=np.int64)
    corrected[order] = grown
    rank[order] = np.arange(1, p.size + 1)
    return Holm(corrected, rank)

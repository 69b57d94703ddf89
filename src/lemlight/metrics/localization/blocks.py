"""Weighted ratios, and rows of weights in blocks, so that memory does not grow with the number of resamples."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LARGEST_BLOCK = 2**20  # numbers at a time (8 MiB)


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, NaN where the whole is 0: undefined, never 0."""
    result = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def in_blocks(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], weights: NDArray[np.float64], width: int
) -> NDArray[np.float64]:
    """Return the statistic (R, ...) of weights (R, N), computed for a few rows at a time.

    Args:
        statistic: maps weights (B, N) to (B, ...), row by row.
        weights: at least one row.
        width: how many numbers the statistic needs per row.
    """
    rows = max(1, LARGEST_BLOCK // max(1, width))
    return np.concatenate([statistic(weights[start : start + rows]) for start in range(0, len(weights), rows)])

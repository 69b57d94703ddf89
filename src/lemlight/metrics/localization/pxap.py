"""Pixel average precision (PxAP) from histograms: Choe et al., CVPR 2020, "Evaluating weakly supervised object
localization methods right", section 4.1.
"""

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.localization.blocks import in_blocks, ratio

LEVELS = 1024  # a power of two: the level of a strength is then exact in float32
BINS = LEVELS + 1  # level j holds strengths in [j / LEVELS, (j + 1) / LEVELS), the last one exactly 1


def strength_histogram(lesions: NDArray[np.uint8], strength: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return (2, BINS): how many pixels of each level of strength (H, W) lie outside and inside the lesions (H, W)."""
    level = (strength * np.float32(LEVELS)).astype(np.int32)
    everywhere = np.bincount(level.ravel(), minlength=BINS)
    inside = np.bincount(level[lesions > 0], minlength=BINS)
    return np.stack([everywhere - inside, inside]).astype(np.int64)


def at_or_above(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many pixels have at least each level, for histograms (..., BINS)."""
    return np.flip(np.cumsum(np.flip(histogram, axis=-1), axis=-1), axis=-1)


def weighted_pxap(histograms: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pixel average precision (R,) of the pooled pixels; NaN where no pixel is a lesion's.

    The step-wise area under the precision-recall curve: sum of (recall_j - recall_(j+1)) * precision_j over the levels,
    pixels without any strength included, as in `average_precision_score` of scikit-learn and in wsolevaluation.

    Args:
        histograms: of the images or patients that hold a lesion, (P, 2, BINS).
        weights: how often each of them counts, (R, P).
    """
    flat = histograms.reshape(len(histograms), 2 * BINS).astype(np.float64)

    def block(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        outside, inside = np.moveaxis((rows @ flat).reshape(len(rows), 2, BINS), 1, 0)
        found = at_or_above(inside)
        precision = ratio(found, found + at_or_above(outside))
        return ratio(np.sum(inside * np.nan_to_num(precision), axis=1), found[:, 0])

    return in_blocks(block, weights, 2 * BINS)

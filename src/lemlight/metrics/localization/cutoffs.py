"""Dice at many cutoffs, and the cutoff of the highest mean Dice, to be chosen on the validation split only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.localization.blocks import ratio
from lemlight.metrics.localization.checks import check_maps
from lemlight.metrics.localization.pxap import LEVELS, at_or_above, strength_histogram

Cutoffs = Sequence[float] | NDArray[np.float64]


def predicted(strength: NDArray[np.float32], cutoff: float) -> NDArray[np.bool_]:
    """Return which pixels (H, W) belong to the prediction: strength >= cutoff, and above 0."""
    return (strength >= np.float32(cutoff)) & (strength > 0)


def dice_per_cutoff(lesions: ArrayLike, strength: ArrayLike, cutoffs: Cutoffs) -> NDArray[np.float64]:
    """Return the Dice coefficient (K,) of `strength >= cutoff` (and > 0) with the lesions; NaN without a lesion.

    Args:
        lesions: labels (H, W), 0 none.
        strength: (H, W) in [0, 1], compared in float32.
        cutoffs: (K,) in [0, 1], in any order.

    Raises:
        LemlightError: other shapes, values outside [0, 1].
    """
    labels, strengths = check_maps(lesions, strength)
    asked = np.asarray(cutoffs, dtype=np.float32)
    ordered = np.sort(asked)
    positive = strengths > 0
    passed = np.searchsorted(ordered, strengths[positive], side="right")  # how many cutoffs a pixel reaches
    everywhere = np.bincount(passed, minlength=ordered.size + 1)
    inside = np.bincount(passed[labels[positive] > 0], minlength=ordered.size + 1)
    reached = at_or_above(np.stack([everywhere, inside]).astype(np.float64))[:, 1:]
    size = float(np.count_nonzero(labels))
    dice = ratio(2 * reached[1], np.where(size > 0, reached[0] + size, 0.0))
    return dice[np.searchsorted(ordered, asked)]


class CutoffChooser:
    """The mean Dice over images at each of the cutoffs 1/1024, 2/1024 ... 1, in constant memory."""

    def __init__(self) -> None:
        self.cutoffs: NDArray[np.float64] = np.arange(1, LEVELS + 1) / LEVELS
        self._total = np.zeros(LEVELS)
        self._images = 0

    def add(self, lesions: ArrayLike, strength: ArrayLike) -> None:
        """Add one image: lesions (H, W) labels, strength (H, W) in [0, 1]; an image without a lesion changes nothing.

        Raises:
            LemlightError: other shapes, values outside [0, 1].
        """
        outside, inside = strength_histogram(*check_maps(lesions, strength)).astype(np.float64)
        if inside.any():
            everywhere = at_or_above(outside + inside)[1:]
            self._total += 2 * at_or_above(inside)[1:] / (everywhere + inside.sum())
            self._images += 1

    def curve(self) -> NDArray[np.float64]:
        """Return the mean Dice (1024,) at `cutoffs`.

        Raises:
            LemlightError: no image with a lesion was added.
        """
        if not self._images:
            raise LemlightError(
                "cannot choose a cutoff: no image with a known lesion; give the cutoff, or lesions for this split"
            )
        return self._total / self._images

    def best(self) -> tuple[float, float]:
        """Return the cutoff of the highest mean Dice and that mean; of several equal cutoffs the middle one.

        Raises:
            LemlightError: no image with a lesion was added.
        """
        curve = self.curve()
        tied = np.flatnonzero(curve == curve.max())
        chosen = tied[(tied.size - 1) // 2]
        return float(self.cutoffs[chosen]), float(curve[chosen])

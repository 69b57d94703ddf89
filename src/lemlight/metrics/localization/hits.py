"""Which lesions the predicted regions hit, and whether the highest point does: a lesion is dilated by the tolerance,
so that a small lesion, a single-pixel calcification say, can be hit at all.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lemlight.metrics.localization.cutoffs import predicted

Window = tuple[slice, slice]


class NearLesion(NamedTuple):
    """The pixels within the tolerance of one lesion."""

    label: int
    window: Window
    """Of the image, as large as the lesion and the tolerance."""
    near: NDArray[np.bool_]
    """(h, w) of the window."""


class Candidates(NamedTuple):
    """What the regions of one image found; a score is the confidence of the call times the highest strength inside."""

    lesion_scores: NDArray[np.float64]
    """(K,) best score of the regions that hit each lesion, NaN where none does."""
    false_positive_scores: NDArray[np.float64]
    """(F,) of the regions that hit no lesion."""


def near_lesions(lesions: NDArray[np.uint8], tolerance_px: float) -> list[NearLesion]:
    """Return for every drawn label of lesions (H, W) the pixels with a distance of at most tolerance_px from it."""
    found = []
    reach = int(tolerance_px)
    for label, box in enumerate(ndimage.find_objects(lesions), start=1):
        if box is None:  # a label that is not drawn, or covered by later ones
            continue
        rows, columns = (slice(max(0, side.start - reach), side.stop + reach) for side in box)
        own = lesions[rows, columns] == label
        near = ndimage.distance_transform_edt(~own) <= tolerance_px if reach else own
        found.append(NearLesion(label, (rows, columns), near))
    return found


def find_candidates(
    strength: NDArray[np.float32], cutoff: float, confidence: float, lesions: list[NearLesion]
) -> Candidates:
    """Return what the regions of strength (H, W), 8-connected pixels of at least the cutoff, find of the lesions.

    A region that hits several lesions counts for each; lesions hit by several regions count once, by the best of them.
    """
    mask = predicted(strength, cutoff)
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    highest = np.zeros(count + 1)
    np.maximum.at(highest, regions[mask], strength[mask])
    scores = confidence * highest
    lesion_scores = np.full(len(lesions), np.nan)
    false = np.arange(count + 1) > 0
    for index, lesion in enumerate(lesions):
        touching = np.unique(regions[lesion.window][lesion.near])
        touching = touching[touching > 0]
        false[touching] = False
        if touching.size:
            lesion_scores[index] = scores[touching].max()
    return Candidates(lesion_scores, scores[false])


def pointing(strength: NDArray[np.float32], lesions: list[NearLesion]) -> float:
    """Return the share of the highest points of strength (H, W) within the tolerance of any lesion, in [0, 1].

    One highest point gives 0 or 1; equally high ones count by their share; a map of zeros points nowhere: 0.
    """
    top = strength.max()
    if top <= 0:
        return 0.0
    highest = strength == top
    points = np.count_nonzero(highest)
    for lesion in lesions:
        highest[lesion.window] &= ~lesion.near
    return 1 - np.count_nonzero(highest) / points

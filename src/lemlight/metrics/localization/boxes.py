"""MaxBoxAccV2: boxes of all contours of a location map against the boxes of the lesions, at the best threshold.

Choe et al. 2020, "Evaluation for weakly supervised object localization: protocol, metrics, and datasets"
(arXiv 2007.04178), section 4.1. The threshold is chosen on the evaluated images: an oracle, comparable between methods,
no performance to expect.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lemlight.metrics.localization.blocks import ratio
from lemlight.metrics.localization.cutoffs import predicted

OVERLAPS = (0.3, 0.5, 0.7)  # intersection over union
BOX_CUTOFFS = tuple(step / 20 for step in range(20))  # 0 stands for: everything above 0

Boxes = NDArray[np.int64]
"""(B, 4) as (x0, y0, x1, y1) in px, half open: a box covers its pixels wholly, x1 - x0 of them in width."""


def contour_boxes(mask: NDArray[np.bool_]) -> Boxes:
    """Return the boxes of all contours of mask (H, W): of 8-connected regions, and of holes, whose contour runs on the
    predicted pixels around them. Holes count since the reference takes every contour that OpenCV finds [reading].
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return _half_open(cv2.boundingRect(contour) for contour in contours)


def lesion_boxes(lesions: NDArray[np.uint8]) -> Boxes:
    """Return one box for every drawn label of lesions (H, W), also where a lesion consists of several pieces."""
    drawn = (box for box in ndimage.find_objects(lesions) if box is not None)
    return _half_open((x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in drawn)


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """Return the intersection over union (B, O) of the areas of boxes (B, 4) and others (O, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(0, high - low), axis=2)
    areas, other_areas = (np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (boxes, others))
    return np.asarray(shared / (areas[:, None] + other_areas[None, :] - shared))


def box_hits(lesions: NDArray[np.uint8], strength: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (3, 20): at each overlap and each cutoff, does any box of the map match any box of the lesions."""
    truth = lesion_boxes(lesions)
    hits = np.zeros((len(OVERLAPS), len(BOX_CUTOFFS)), dtype=np.bool_)
    for column, cutoff in enumerate(BOX_CUTOFFS):
        best = overlaps(contour_boxes(predicted(strength, cutoff)), truth).max(initial=0)
        hits[:, column] = best >= np.array(OVERLAPS)
    return hits


def weighted_max_box_acc(
    hits: NDArray[np.bool_], with_lesion: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return MaxBoxAccV2 (R,): the best cutoff for each overlap and row of weights, then the mean over the overlaps.

    Args:
        hits: (N, 3, 20), False in images without a lesion.
        with_lesion: (N,), the images that count.
        weights: how often each image counts, (R, N).
    """
    grid = (len(OVERLAPS), len(BOX_CUTOFFS))
    flat = hits.reshape(len(hits), grid[0] * grid[1]).astype(np.float64)
    right = (weights @ flat).reshape(len(weights), *grid)
    return ratio(right.max(axis=2).mean(axis=1), weights @ with_lesion.astype(np.float64))


def _half_open(boxes: Iterable[Sequence[int]]) -> Boxes:
    corner_and_size = np.array(list(boxes), dtype=np.int64).reshape(-1, 4)
    corner, size = corner_and_size[:, :2], corner_and_size[:, 2:]
    return np.concatenate([corner, corner + size], axis=1)

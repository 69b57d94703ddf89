"""What one location map and the lesions of its image have in common: pixels, Dice, boxes, the highest point."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lemlight.metrics.bootstrap import ratio

LEVELS = 1024  # a power of two: the level of a strength is then exact in float32
BINS = LEVELS + 1  # level j holds strengths in [j / LEVELS, (j + 1) / LEVELS), the last one exactly 1
OVERLAPS = (0.3, 0.5, 0.7)  # intersection over union
BOX_CUTOFFS = tuple(step / 20 for step in range(20))  # 0 stands for: everything above 0
LARGEST_BLOCK = 2**20  # numbers at a time (8 MiB)


def in_blocks(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], weights: NDArray[np.float64], width: int
) -> NDArray[np.float64]:
    """Return the statistic (R, ...) of weights (R, N), row by row, for a few rows at a time of `width` numbers each."""
    rows = max(1, LARGEST_BLOCK // max(1, width))
    return np.concatenate([statistic(weights[start : start + rows]) for start in range(0, len(weights), rows)])


def predicted(strength: NDArray[np.float32], cutoff: float) -> NDArray[np.bool_]:
    """Return which pixels (H, W) belong to the prediction: strength >= cutoff, and above 0."""
    return (strength >= np.float32(cutoff)) & (strength > 0)


def some(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the strengths (N,) above 0: few, as a rule."""
    return np.asarray(strength[strength > 0])


def levels(strength: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the level of each strength (N,)."""
    return (strength * np.float32(LEVELS)).astype(np.int32)


def strength_histogram(lesions: NDArray[np.uint8], strength: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return (2, BINS): how many pixels of each level of strength (H, W) lie outside and inside the lesions (H, W)."""
    everywhere, inside = (np.bincount(levels(part), minlength=BINS) for part in (some(strength), strength[lesions > 0]))
    everywhere[0] += strength.size - everywhere.sum()
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


def dice_curve(lesions: NDArray[np.uint8], strength: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return the Dice (1024,) of lesions and strength in [0, 1], both (H, W), at the cutoffs 1/1024, 2/1024 ... 1.

    None without a lesion.
    """
    outside, inside = strength_histogram(lesions, strength).astype(np.float64)
    if not inside.any():
        return None
    everywhere = at_or_above(outside + inside)[1:]
    return np.asarray(2 * at_or_above(inside)[1:] / (everywhere + inside.sum()))


def cutoffs_by_mass(strength: NDArray[np.float32], fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each fraction (Q,) of the mass of strength (H, W) the cutoff above which the map holds that much.

    That is the highest of 1/1024, 2/1024 ... 1 at which the pixels of at least that strength hold the fraction of the
    sum of all; the lowest one where none does.
    """
    above_zero = some(strength)
    of_level = np.bincount(levels(above_zero), weights=above_zero, minlength=BINS)
    mass = at_or_above(of_level.astype(np.float64))
    # rising from the strongest level down; 1e-9: a sum that reaches its fraction exactly is a rounding error away
    held = mass[:0:-1] / max(float(mass[0]), np.finfo(np.float64).tiny)
    place = np.searchsorted(held, np.asarray(fractions) - 1e-9)
    return np.maximum(LEVELS - place, 1) / LEVELS


def dice_curve_by_mass(curve: NDArray[np.float64], strength: NDArray[np.float32]) -> NDArray[np.float64]:
    """Turn the `dice_curve` of strength (H, W) into the Dice (1024,) where 1/1024, 2/1024 ... 1 of the mass is kept."""
    cutoffs = cutoffs_by_mass(strength, np.arange(1, BINS) / LEVELS)
    return np.asarray(curve[np.rint(cutoffs * LEVELS).astype(np.intp) - 1])


def level_of(cutoff: float) -> int:
    """Return where a cutoff in (0, 1] stands in such a curve: the nearest that it has."""
    return max(1, round(cutoff * LEVELS)) - 1


def best_cutoff(curve: NDArray[np.float64]) -> tuple[float, float]:
    """Return the cutoff of the highest (mean) Dice of such a curve, of several the middle one, and that Dice."""
    tied = np.flatnonzero(curve == curve.max())
    chosen = tied[(tied.size - 1) // 2]
    return (int(chosen) + 1) / LEVELS, float(curve[chosen])


class NearLesion(NamedTuple):
    """The pixels within the tolerance of one lesion: `near` (h, w) of a `window` as large as lesion and tolerance."""

    label: int
    window: tuple[slice, slice]
    near: NDArray[np.bool_]


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


def pointing(strength: NDArray[np.float32], lesions: list[NearLesion]) -> float:
    """Return the fraction of the highest points of strength (H, W) within the tolerance of any lesion, in [0, 1].

    One highest point gives 0 or 1; equally high ones count by their fraction; a map of zeros points nowhere: 0.
    """
    top = strength.max()
    if top <= 0:
        return 0.0
    highest = strength == top
    points = np.count_nonzero(highest)
    for lesion in lesions:
        highest[lesion.window] &= ~lesion.near
    return 1 - np.count_nonzero(highest) / points


Boxes = NDArray[np.int64]  # (B, 4) as (x0, y0, x1, y1) in px, half open: a box covers its pixels wholly


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


def _half_open(boxes: Iterable[Sequence[int]]) -> Boxes:
    corner_and_size = np.array(list(boxes), dtype=np.int64).reshape(-1, 4)
    corner, size = corner_and_size[:, :2], corner_and_size[:, 2:]
    return np.concatenate([corner, corner + size], axis=1)


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """Return the intersection over union (B, O) of the areas of boxes (B, 4) and others (O, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(0, high - low), axis=2)
    areas, other_areas = (np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (boxes, others))
    return np.asarray(shared / (areas[:, None] + other_areas[None, :] - shared))


def box_matches(lesions: NDArray[np.uint8], strength: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (3, 20): at each overlap and each cutoff, does any box of the map match any box of the lesions."""
    truth = lesion_boxes(lesions)
    matches = np.zeros((len(OVERLAPS), len(BOX_CUTOFFS)), dtype=np.bool_)
    for column, cutoff in enumerate(BOX_CUTOFFS if len(truth) else ()):
        best = overlaps(contour_boxes(predicted(strength, cutoff)), truth).max(initial=0)
        matches[:, column] = best >= np.array(OVERLAPS)
    return matches


def weighted_max_box_acc(
    matches: NDArray[np.bool_], with_lesion: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return MaxBoxAccV2 (R,): the best cutoff for each overlap and row of weights, then the mean over the overlaps.

    Args:
        matches: `box_matches` of N images, (N, 3, 20), False in images without a lesion.
        with_lesion: (N,), the images that count.
        weights: how often each image counts, (R, N).
    """
    flat = matches.reshape(len(matches), len(OVERLAPS) * len(BOX_CUTOFFS)).astype(np.float64)
    right = (weights @ flat).reshape(len(weights), len(OVERLAPS), len(BOX_CUTOFFS))
    return ratio(right.max(axis=2).mean(axis=1), weights @ with_lesion.astype(np.float64))

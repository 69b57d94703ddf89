"""FROC: how many lesions the regions of location maps find, against their false positives per image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lemlight.metrics.bootstrap import ratio
from lemlight.metrics.overlap import NearLesion, in_blocks, predicted

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per image


class Candidates(NamedTuple):
    """What the regions of one image found; a score is the image's probability times the highest strength inside.

    lesion_scores: (K,) best score of the regions that hit each lesion, NaN where none does.
    false_positive_scores: (F,) of the regions that hit no lesion.
    """

    lesion_scores: NDArray[np.float64]
    false_positive_scores: NDArray[np.float64]


def find_candidates(
    strength: NDArray[np.float32], cutoff: float, probability: float, lesions: list[NearLesion]
) -> Candidates:
    """Return what the regions of strength (H, W), 8-connected pixels of at least the cutoff, find of the lesions.

    A region that hits several lesions counts for each; lesions hit by several regions count once, by the best of them.
    """
    mask = predicted(strength, cutoff)
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    highest = np.zeros(count + 1)
    np.maximum.at(highest, regions[mask], strength[mask])
    scores = probability * highest
    lesion_scores = np.full(len(lesions), np.nan)
    false = np.arange(count + 1) > 0
    for index, lesion in enumerate(lesions):
        touching = np.unique(regions[lesion.window][lesion.near])
        touching = touching[touching > 0]
        false[touching] = False
        if touching.size:
            lesion_scores[index] = scores[touching].max()
    return Candidates(lesion_scores, scores[false])


@dataclass(frozen=True)
class Findings:
    """All lesions found and all false positives of N images, by falling score.

    image: (E,) index of the image.
    found: (E,) True: a lesion, by the best region that hits it. False: a region that hits none.
    steps: (T,) the last entry of every distinct score: findings of one score come together.
    lesions: (N,) lesions of every image, found or not.
    images: (N,) how many images each is: 1, or the views of a breast.
    """

    image: NDArray[np.int64]
    found: NDArray[np.bool_]
    steps: NDArray[np.int64]
    lesions: NDArray[np.float64]
    images: NDArray[np.float64]


def collect(images: Sequence[Candidates], counts: Sequence[int] | None = None) -> Findings:
    """Return the findings of N images, or of N breasts with so many images each."""
    found_scores = [image.lesion_scores[~np.isnan(image.lesion_scores)] for image in images]
    groups = [*found_scores, *(image.false_positive_scores for image in images)]
    sizes = [group.size for group in groups]
    score = np.concatenate([np.zeros(0), *groups])
    image = np.repeat(np.tile(np.arange(len(images)), 2), sizes)
    found = np.arange(score.size) < sum(sizes[: len(images)])
    order = np.argsort(-score, kind="stable")
    steps = np.flatnonzero(np.diff(score[order], append=-1.0))
    lesions = np.array([image.lesion_scores.size for image in images], dtype=np.float64)
    views = np.ones(len(images)) if counts is None else np.array(counts, dtype=np.float64)
    return Findings(image[order], found[order], steps, lesions, views)


def weighted_counts(
    findings: Findings, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false positives and found lesions (R, T + 1), both rising from 0, for weights (R, N) of the images."""
    drawn = weights[:, findings.image]
    false, found = (
        np.pad(np.cumsum(drawn * counted, axis=1)[:, findings.steps], ((0, 0), (1, 0)))
        for counted in (~findings.found, findings.found)
    )
    return false, found


def weighted_sensitivity(findings: Findings, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sensitivity (R, 6) at every rate of RATES for weights (R, N); NaN where there is no lesion.

    Between two points the curve is a straight line, at a jump the upper end counts, and behind its last point (the map
    has no more regions) it stays level: as in LUNA16, CAMELYON16 and MONAI.
    """
    return in_blocks(partial(_sensitivity, findings), weights, findings.image.size)


def _sensitivity(findings: Findings, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    false, found = weighted_counts(findings, weights)
    images, lesions = weights @ findings.images, weights @ findings.lesions
    columns = []
    for rate in RATES:
        allowed = (rate * images)[:, None]
        before = np.sum(false <= allowed, axis=1, keepdims=True) - 1
        after = np.minimum(before + 1, false.shape[1] - 1)
        start, end = (np.take_along_axis(false, at, axis=1) for at in (before, after))
        low, high = (np.take_along_axis(found, at, axis=1) for at in (before, after))
        along = np.nan_to_num(ratio(allowed - start, end - start))
        columns.append(ratio((low + (high - low) * along)[:, 0], lesions))
    return np.stack(columns, axis=1)


def curve(findings: Findings) -> tuple[list[float], list[float]]:
    """Return false positives per image and sensitivity along the curve, only the points where it bends.

    Both are empty where no lesion defines a sensitivity.
    """
    images, lesions = findings.lesions.size, findings.lesions.sum()
    if lesions == 0:
        return [], []
    (false,), (found,) = weighted_counts(findings, np.ones((1, images)))
    right, up = np.diff(false), np.diff(found)
    bends = np.ones(false.size, dtype=bool)
    bends[1:-1] = right[:-1] * up[1:] != right[1:] * up[:-1]
    return (false[bends] / images).tolist(), (found[bends] / lesions).tolist()

"""Free-response ROC (FROC): the share of lesions found against the false positives per image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.localization.blocks import in_blocks, ratio

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per image


@dataclass(frozen=True)
class Findings:
    """All lesions found and all false positives of N images, by falling score."""

    image: NDArray[np.int64]
    """(E,) index of the image."""
    found: NDArray[np.bool_]
    """(E,) True: a lesion, by the best region that hits it. False: a region that hits none."""
    steps: NDArray[np.int64]
    """(T,) the last entry of every distinct score: findings of one score come together."""
    lesions: NDArray[np.float64]
    """(N,) lesions of every image, found or not."""


def collect(lesion_scores: list[NDArray[np.float64]], false_positive_scores: list[NDArray[np.float64]]) -> Findings:
    """Return the findings of N images from the scores of their lesions (NaN: missed) and of their false positives."""
    found_scores = [scores[~np.isnan(scores)] for scores in lesion_scores]
    groups = [*found_scores, *false_positive_scores]
    sizes = [group.size for group in groups]
    score = np.concatenate([np.zeros(0), *groups])
    image = np.repeat(np.tile(np.arange(len(lesion_scores)), 2), sizes)
    found = np.arange(score.size) < sum(sizes[: len(lesion_scores)])
    order = np.argsort(-score, kind="stable")
    steps = np.flatnonzero(np.diff(score[order], append=-1.0))
    return Findings(image[order], found[order], steps, np.array([scores.size for scores in lesion_scores], dtype=float))


def weighted_counts(
    findings: Findings, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false positives and found lesions (R, T + 1), both rising from 0, for weights (R, N) of the images."""
    drawn = weights[:, findings.image]
    curves = []
    for counted in (~findings.found, findings.found):
        curve = np.cumsum(drawn * counted, axis=1)[:, findings.steps]
        curves.append(np.concatenate([np.zeros((len(weights), 1)), curve], axis=1))
    return curves[0], curves[1]


def weighted_sensitivity(findings: Findings, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sensitivity (R, 6) at every rate of RATES for weights (R, N); NaN where there is no lesion.

    Between two points the curve is a straight line, at a jump the upper end counts, and behind its last point (the map
    has no more regions) it stays level: as in LUNA16, CAMELYON16 and MONAI.
    """
    if not weights.shape[1]:
        return np.full((len(weights), len(RATES)), np.nan)
    return in_blocks(lambda rows: _sensitivity(findings, rows), weights, findings.image.size)


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


def _sensitivity(findings: Findings, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    false, found = weighted_counts(findings, weights)
    images, lesions = weights.sum(axis=1), weights @ findings.lesions
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

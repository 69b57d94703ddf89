"""Figures of localization over many images, with intervals over patients: Dice, recall, pointing, boxes, FROC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.bootstrap import LEVEL, Estimate, bootstrap, estimate
from lemlight.metrics.overlap import (
    BINS,
    BOX_CUTOFFS,
    OVERLAPS,
    Candidates,
    box_hits,
    check_maps,
    find_candidates,
    in_blocks,
    near_lesions,
    pointing,
    predicted,
    ratio,
    strength_histogram,
    weighted_max_box_acc,
    weighted_pxap,
)

Column = NDArray[np.float64]
Figures = Mapping[str, NDArray[np.float64]]

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per image
FIGURES = ("dsc", "dsc_pooled", "pixel_recall", "lesion_recall", "pxap", "max_box_acc_v2", "pointing")
RULES = {
    "prediction": "pixels whose strength is at least the cutoff and above 0; a region is a set of 8-connected ones",
    "tolerance": "a lesion is hit by a pixel within tolerance_px of it (Euclidean distance), so that small lesions and "
    "single-pixel calcifications can be hit; holds for lesion_recall, pointing and froc, not for pixels and boxes",
    "dsc": "Dice per image, mean over images with a lesion",
    "dsc_pooled": "Dice of the pixels of all images with a lesion together",
    "pixel_recall": "fraction of the lesion pixels of all images that are predicted",
    "lesion_recall": "fraction of lesions that any predicted pixel hits",
    "pointing": "fraction of images with a lesion whose highest point hits one; equally high points count by their "
    "fraction, a map of zeros is a miss",
    "pxap": "pixel average precision (Choe et al. 2020) over the pixels of all images with a lesion, 1024 levels",
    "max_box_acc_v2": "oracle: fraction of images in which a box of any contour matches the box of any lesion, at the "
    "threshold (of 20) that is best on these very images, mean over intersection over union 0.3, 0.5, 0.7",
    "froc": "detection of malignant lesions, those of images labelled malignant; regions come from a map of what "
    "speaks for malignancy on every image, whatever is predicted, and score the image's probability times their "
    "highest strength; one hit per lesion counts, a region that hits no malignant lesion is one false positive; "
    "all images with known lesions count, also those with none; straight lines between the points",
    "by_type": "lesion_recall over the lesions of one type, dsc over images whose lesions are all of that type",
}
COLUMNS = (
    "image_id", "patient_id", "probability", "lesions", "hit_lesions", "regions_outside",
    "lesion_pixels", "predicted_pixels", "shared_pixels", "dsc", "pointing",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One measured image: counts and scores of its map and its lesions, never the map itself.

    types, hits: of the K lesions that are drawn; hits (K,) says which of them the prediction hits.
    regions_outside: how many predicted regions hit no lesion.
    suspicious: the candidates of FROC and the malignant lesions that they find; none of these on a benign image.
    pointing: fraction of the highest points in a lesion, NaN without a lesion.
    box_hits: (3, 20), False without a lesion.
    histogram: (2, BINS), see `strength_histogram`.
    """

    image_id: str
    patient_id: str
    malignant: bool
    probability: float
    types: tuple[str, ...]
    tolerance_px: float
    lesion_pixels: int
    predicted_pixels: int
    shared_pixels: int
    hits: NDArray[np.bool_]
    regions_outside: int
    suspicious: Candidates
    pointing: float
    box_hits: NDArray[np.bool_]
    histogram: NDArray[np.int64]

    @property
    def dsc(self) -> float:
        """Dice coefficient of prediction and lesions, NaN without a lesion."""
        if not self.lesion_pixels:
            return float("nan")
        return 2 * self.shared_pixels / (self.lesion_pixels + self.predicted_pixels)


def measure(
    *,
    cutoff: float,
    image_id: str,
    patient_id: str,
    malignant: bool,
    lesions: ArrayLike,
    types: Sequence[str],
    strength: ArrayLike,
    suspicion: ArrayLike,
    probability: float,
    tolerance_px: float,
) -> Measured:
    """Measure one image whose lesions are known; one of which nothing is known must not be measured.

    Args:
        cutoff: in [0, 1]: the prediction is where the strength is at least this, and above 0 (compared in float32).
        image_id: of the image.
        patient_id: of its patient; intervals are drawn over patients.
        malignant: the label of the image; its lesions are then taken to be malignant.
        lesions: labels (H, W) of an integer type, 0 none, k the k-th lesion; all 0: known to have none.
        types: of the lesions, types[k - 1] of the k-th; "" unknown. A lesion that is not drawn is left out.
        strength: (H, W) in [0, 1], the smoothed location map, its highest value 1, or 0 everywhere.
        suspicion: (H, W) in [0, 1], the same of what speaks for malignancy.
        probability: of malignancy, in [0, 1].
        tolerance_px: a lesion counts as hit within this distance of it, in px of these arrays.

    Raises:
        LemlightError: other shapes, values outside their range, missing types, no patient.
    """
    try:
        labels, strengths = check_maps(lesions, strength)
        _, suspicions = check_maps(lesions, suspicion)
        _check_values(types, int(labels.max()), patient_id, probability, tolerance_px)
    except LemlightError as error:
        raise LemlightError(f"image {image_id}: {error}") from None
    mask, near = predicted(strengths, cutoff), near_lesions(labels, tolerance_px)
    found = find_candidates(strengths, cutoff, 1.0, near)
    return Measured(
        image_id=image_id,
        patient_id=patient_id,
        malignant=malignant,
        probability=float(probability),
        types=tuple(types[lesion.label - 1] for lesion in near),
        tolerance_px=float(tolerance_px),
        lesion_pixels=int(np.count_nonzero(labels)),
        predicted_pixels=int(np.count_nonzero(mask)),
        shared_pixels=int(np.count_nonzero(mask & (labels > 0))),
        hits=~np.isnan(found.lesion_scores),
        regions_outside=found.false_positive_scores.size,
        suspicious=find_candidates(suspicions, cutoff, float(probability), near if malignant else []),
        pointing=pointing(strengths, near) if near else float("nan"),
        box_hits=box_hits(labels, strengths),
        histogram=strength_histogram(labels, strengths),
    )


def _check_values(
    types: Sequence[str], highest_label: int, patient_id: str, probability: float, tolerance_px: float
) -> None:
    problems: list[str] = []
    if not patient_id.strip():
        problems.append("no patient_id: intervals are drawn over patients")
    if highest_label > len(types):
        problems.append(
            f"lesion {highest_label} is drawn, but there are {len(types)} types: one per lesion, '' unknown"
        )
    if not 0 <= probability <= 1:
        problems.append(f"probability must lie in [0, 1], got {probability}")
    if not 0 <= tolerance_px < np.inf:
        problems.append(f"tolerance_px must be a number of pixels of at least 0, got {tolerance_px}")
    if problems:
        raise LemlightError("cannot measure a location map: " + "; ".join(problems))


class LocalizationMeter:
    """Figures of measured images; keeps counts per image and a histogram per patient, never a map.

    Args:
        cutoff: in [0, 1], that the images are measured at.

    Raises:
        LemlightError: the cutoff lies outside [0, 1].
    """

    def __init__(self, cutoff: float) -> None:
        if not 0 <= cutoff <= 1:
            raise LemlightError(f"the cutoff of a location map must lie in [0, 1], got {cutoff}")
        self._cutoff = float(cutoff)
        self._records: dict[str, Measured] = {}
        self._histograms: dict[str, NDArray[np.int64]] = {}  # of the patients with a lesion

    def add(self, measured: Measured) -> None:
        """Add one image that was measured at the meter's cutoff.

        Raises:
            LemlightError: an image given twice.
        """
        if measured.image_id in self._records:
            raise LemlightError(f"image {measured.image_id}: measured twice: drop the duplicates of the sampler first")
        self._records[measured.image_id] = replace(measured, histogram=np.zeros((0,), np.int64))
        if measured.lesion_pixels:
            patient = measured.patient_id
            self._histograms[patient] = self._histograms.get(patient, 0) + measured.histogram

    def per_image(self) -> pd.DataFrame:
        """Return one row per image, ordered by image_id; dsc and pointing are NaN where there is no lesion.

        `regions_outside` counts predicted regions that hit no lesion; pixels are counted at the cutoff.
        """
        rows = [
            (
                record.image_id, record.patient_id, record.probability, len(record.types), int(record.hits.sum()),
                record.regions_outside, record.lesion_pixels, record.predicted_pixels, record.shared_pixels,
                record.dsc, record.pointing,
            )
            for record in self._ordered()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def summary(self, *, resamples: int, seed: int = 0) -> dict[str, Any]:
        """Return what metrics.json holds of the localization: each figure with its 95 % interval over patients.

        Raises:
            LemlightError: fewer resamples than a 95 % interval needs.
        """
        records = self._ordered()
        evidence = gather(records, self._histograms)
        values = weighted_figures(evidence, np.ones((1, len(records))))
        draws = {name: np.zeros((0, *value.shape[1:])) for name, value in values.items()}
        if records:
            draws = bootstrap(partial(weighted_figures, evidence), evidence.patients, resamples=resamples, seed=seed)
        tolerances = [record.tolerance_px for record in records]
        return {
            "cutoff": self._cutoff,
            "tolerance_px": [min(tolerances), max(tolerances)] if tolerances else None,
            "images": len(records),
            "images_with_lesion": int(evidence.with_lesion.sum()),
            "lesions": sum(len(record.types) for record in records),
            "patients": int(np.unique(evidence.patients).size),
            **{name: _estimated(values[name][0], draws[name], evidence.with_lesion, evidence) for name in FIGURES},
            "froc": _froc_section(evidence, values, draws),
            "by_type": {kind: _type_section(kind, evidence, values, draws) for kind in known_types(records)},
            "rules": dict(RULES),
            "interval": {
                "level": LEVEL,
                "method": "percentile bootstrap over patients",
                "resamples": resamples,
                "seed": seed,
            },
        }

    def _ordered(self) -> list[Measured]:
        return [self._records[image_id] for image_id in sorted(self._records)]


@dataclass(frozen=True)
class Findings:
    """All lesions found and all false positives of N images, by falling score.

    image: (E,) index of the image.
    found: (E,) True: a lesion, by the best region that hits it. False: a region that hits none.
    steps: (T,) the last entry of every distinct score: findings of one score come together.
    lesions: (N,) lesions of every image, found or not.
    """

    image: NDArray[np.int64]
    found: NDArray[np.bool_]
    steps: NDArray[np.int64]
    lesions: Column


def collect(images: Sequence[Candidates]) -> Findings:
    """Return the findings of N images."""
    found_scores = [image.lesion_scores[~np.isnan(image.lesion_scores)] for image in images]
    groups = [*found_scores, *(image.false_positive_scores for image in images)]
    sizes = [group.size for group in groups]
    score = np.concatenate([np.zeros(0), *groups])
    image = np.repeat(np.tile(np.arange(len(images)), 2), sizes)
    found = np.arange(score.size) < sum(sizes[: len(images)])
    order = np.argsort(-score, kind="stable")
    steps = np.flatnonzero(np.diff(score[order], append=-1.0))
    return Findings(image[order], found[order], steps, _column([image.lesion_scores.size for image in images]))


def weighted_counts(findings: Findings, weights: Column) -> tuple[Column, Column]:
    """Return false positives and found lesions (R, T + 1), both rising from 0, for weights (R, N) of the images."""
    drawn = weights[:, findings.image]
    curves = []
    for counted in (~findings.found, findings.found):
        curve = np.cumsum(drawn * counted, axis=1)[:, findings.steps]
        curves.append(np.concatenate([np.zeros((len(weights), 1)), curve], axis=1))
    return curves[0], curves[1]


def weighted_sensitivity(findings: Findings, weights: Column) -> Column:
    """Return the sensitivity (R, 6) at every rate of RATES for weights (R, N); NaN where there is no lesion.

    Between two points the curve is a straight line, at a jump the upper end counts, and behind its last point (the map
    has no more regions) it stays level: as in LUNA16, CAMELYON16 and MONAI.
    """
    if not weights.shape[1]:
        return np.full((len(weights), len(RATES)), np.nan)
    return in_blocks(partial(_sensitivity, findings), weights, findings.image.size)


def _sensitivity(findings: Findings, weights: Column) -> Column:
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


@dataclass(frozen=True)
class Evidence:
    """All that the figures of N images need, as arrays.

    patients: (N,) the patient of every image.
    ratios: name of a figure -> part (N,) and whole (N,), each added up over the images before dividing.
    box_hits: (N, 3, 20).
    histograms: (P, 2, BINS) of the patients with a lesion.
    first_image: (P,) index of an image of each of these patients: all images of a patient have the same weight.
    """

    patients: NDArray[np.str_]
    ratios: Mapping[str, tuple[Column, Column]]
    with_lesion: NDArray[np.bool_]
    box_hits: NDArray[np.bool_]
    findings: Findings
    histograms: NDArray[np.int64]
    first_image: NDArray[np.int64]


def gather(records: Sequence[Measured], histograms: Mapping[str, NDArray[np.int64]]) -> Evidence:
    """Return the evidence of the records, with the strength histograms (2, BINS) of the patients with a lesion."""
    patients = [record.patient_id for record in records]
    hits = np.array([record.box_hits for record in records], dtype=np.bool_)
    return Evidence(
        patients=np.array(patients, dtype=np.str_),
        ratios=_ratios(records),
        with_lesion=np.array([record.lesion_pixels > 0 for record in records], dtype=np.bool_),
        box_hits=hits.reshape(len(records), len(OVERLAPS), len(BOX_CUTOFFS)),
        findings=collect([record.suspicious for record in records]),
        histograms=np.array(list(histograms.values()), dtype=np.int64).reshape(-1, 2, BINS),
        first_image=np.array([patients.index(patient) for patient in histograms], dtype=np.int64),
    )


def weighted_figures(evidence: Evidence, weights: Column) -> dict[str, Column]:
    """Return every figure for weights (R, N) of the images: (R,) each, "froc" (R, 6); NaN is undefined.

    The weights of all images of one patient must be equal, as those of a bootstrap over patients are.
    """
    figures = {name: ratio(weights @ part, weights @ whole) for name, (part, whole) in evidence.ratios.items()}
    return figures | {
        "pxap": weighted_pxap(evidence.histograms, weights[:, evidence.first_image]),
        "max_box_acc_v2": weighted_max_box_acc(evidence.box_hits, evidence.with_lesion, weights),
        "froc": weighted_sensitivity(evidence.findings, weights),
    }


def known_types(records: Sequence[Measured]) -> list[str]:
    """Return the types of all lesions in alphabetical order, without the unknown one."""
    return sorted({kind for record in records for kind in record.types} - {""})


def _ratios(records: Sequence[Measured]) -> dict[str, tuple[Column, Column]]:
    dsc, pointed = (np.nan_to_num(_column([getattr(one, name) for one in records])) for name in ("dsc", "pointing"))
    lesion, mask, shared = (
        _column([getattr(record, f"{name}_pixels") for record in records]) for name in ("lesion", "predicted", "shared")
    )
    present = _column([record.lesion_pixels > 0 for record in records])
    ratios = {
        "dsc": (dsc, present),
        "dsc_pooled": (2 * shared, (mask + lesion) * present),
        "pixel_recall": (shared, lesion),
        "lesion_recall": _lesion_recall(records, None),
        "pointing": (pointed, present),
    }
    for kind in known_types(records):
        only = _column([set(record.types) == {kind} for record in records])
        ratios[f"dsc of {kind}"] = (dsc * only, only)
        ratios[f"lesion_recall of {kind}"] = _lesion_recall(records, kind)
    return ratios


def _lesion_recall(records: Sequence[Measured], kind: str | None) -> tuple[Column, Column]:
    """Return lesions hit and lesions of every image, of one type or of all."""
    wanted = [np.array([kind in (None, own) for own in record.types], dtype=np.bool_) for record in records]
    hit = [int(np.count_nonzero(of_kind & record.hits)) for of_kind, record in zip(wanted, records, strict=True)]
    return _column(hit), _column([int(np.count_nonzero(of_kind)) for of_kind in wanted])


def _column(values: Sequence[float]) -> Column:
    return np.array(values, dtype=np.float64)


def _froc_section(evidence: Evidence, values: Figures, draws: Figures) -> dict[str, Any]:
    counted, reason = evidence.findings.lesions > 0, "no image with a malignant lesion"
    false_positives, sensitivity = curve(evidence.findings)
    return {
        "counts": "malignant lesions",
        "lesions": int(evidence.findings.lesions.sum()),
        "mean": _estimated(values["froc"].mean(), draws["froc"].mean(axis=1), counted, evidence, reason),
        "at": {
            f"{rate:g}": _estimated(values["froc"][0, column], draws["froc"][:, column], counted, evidence, reason)
            for column, rate in enumerate(RATES)
        },
        "curve": {"false_positives_per_image": false_positives, "sensitivity": sensitivity},
    }


def _type_section(kind: str, evidence: Evidence, values: Figures, draws: Figures) -> dict[str, Any]:
    """Return the figures of one type of lesion; `images` are those whose lesions are all of that type."""
    section: dict[str, Any] = {}
    for figure, unit in (("lesion_recall", "lesions"), ("dsc", "images")):
        name = f"{figure} of {kind}"
        whole = evidence.ratios[name][1]
        reason = f"no image whose lesions are all of type {kind}"
        section[unit] = int(whole.sum())
        section[figure] = _estimated(values[name][0], draws[name], whole > 0, evidence, reason)
    return section


def _estimated(
    value: float,
    draws: Column,
    counted: NDArray[np.bool_],
    evidence: Evidence,
    reason: str = "no image with a lesion",
) -> dict[str, Any]:
    """Return a figure as metrics.json has it; `counted` (N,) are the images that can contribute to it."""
    if np.isnan(value):
        return Estimate(None, reason=reason if counted.size else "no images").to_dict()
    return estimate(float(value), draws, int(np.unique(evidence.patients[counted]).size)).to_dict()

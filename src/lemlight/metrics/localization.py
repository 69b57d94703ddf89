"""Free-response ROC (FROC): the share of lesions found against the false positives per image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    ImageRecord,
    check_call,
    check_cutoff,
    check_maps,
    in_blocks,
    measure,
    ratio,
    strength_histogram,
    weighted_max_box_acc,
    weighted_pxap,
)

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


Column = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """All that the figures of N images need, as arrays."""

    patients: NDArray[np.str_]
    """(N,) the patient of every image."""
    ratios: Mapping[str, tuple[Column, Column]]
    """Name of a figure -> part (N,) and whole (N,), each added up over the images before dividing."""
    with_lesion: NDArray[np.bool_]
    box_hits: NDArray[np.bool_]
    """(N, 3, 20)."""
    findings: Findings
    histograms: NDArray[np.int64]
    """(P, 2, BINS) of the patients with a lesion."""
    first_image: NDArray[np.int64]
    """(P,) index of an image of each of these patients: all images of a patient have the same weight."""


def gather(records: Sequence[ImageRecord], histograms: Mapping[str, NDArray[np.int64]]) -> Evidence:
    """Return the evidence of the records, with the strength histograms (2, BINS) of the patients with a lesion."""
    patients = np.array([record.patient_id for record in records], dtype=np.str_)
    first: dict[str, int] = {}
    for index, record in enumerate(records):
        first.setdefault(record.patient_id, index)
    return Evidence(
        patients=patients,
        ratios=_ratios(records),
        with_lesion=np.array([record.lesion_pixels > 0 for record in records], dtype=np.bool_),
        box_hits=np.array([record.box_hits for record in records], dtype=np.bool_).reshape(
            len(records), len(OVERLAPS), len(BOX_CUTOFFS)
        ),
        findings=collect(
            [record.candidates.lesion_scores for record in records],
            [record.candidates.false_positive_scores for record in records],
        ),
        histograms=np.array(list(histograms.values()), dtype=np.int64).reshape(-1, 2, BINS),
        first_image=np.array([first[patient] for patient in histograms], dtype=np.int64),
    )


def weighted_figures(evidence: Evidence, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return every figure for weights (R, N) of the images: (R,) each, "froc" (R, 6); NaN is undefined.

    The weights of all images of one patient must be equal, as those of a bootstrap over patients are.
    """
    figures = {name: ratio(weights @ part, weights @ whole) for name, (part, whole) in evidence.ratios.items()}
    return figures | {
        "pxap": weighted_pxap(evidence.histograms, weights[:, evidence.first_image]),
        "max_box_acc_v2": weighted_max_box_acc(evidence.box_hits, evidence.with_lesion, weights),
        "froc": weighted_sensitivity(evidence.findings, weights),
    }


def known_types(records: Sequence[ImageRecord]) -> list[str]:
    """Return the types of all lesions in alphabetical order, without the unknown one."""
    return sorted({kind for record in records for kind in record.types} - {""})


def of_type(figure: str, kind: str) -> str:
    """Return the name under which a figure of one type of lesion is kept."""
    return f"{figure} of {kind}"


def _ratios(records: Sequence[ImageRecord]) -> dict[str, tuple[Column, Column]]:
    dsc, pointing = (_column([getattr(record, name) for record in records]) for name in ("dsc", "pointing"))
    lesion, mask, shared = (
        _column([getattr(record, f"{name}_pixels") for record in records]) for name in ("lesion", "predicted", "shared")
    )
    present = _column([record.lesion_pixels > 0 for record in records])
    ratios = {
        "dsc": (np.nan_to_num(dsc), present),
        "dsc_pooled": (2 * shared, (mask + lesion) * present),
        "pixel_recall": (shared, lesion),
        "lesion_recall": _lesion_recall(records, None),
        "pointing": (np.nan_to_num(pointing), present),
    }
    for kind in known_types(records):
        only = _column([set(record.types) == {kind} for record in records])
        ratios[of_type("dsc", kind)] = (np.nan_to_num(dsc) * only, only)
        ratios[of_type("lesion_recall", kind)] = _lesion_recall(records, kind)
    return ratios


def _lesion_recall(records: Sequence[ImageRecord], kind: str | None) -> tuple[Column, Column]:
    """Return lesions hit and lesions of every image, of one type or of all."""
    wanted = [np.array([kind in (None, own) for own in record.types], dtype=np.bool_) for record in records]
    hit = [int(np.count_nonzero(of_kind & record.hits)) for of_kind, record in zip(wanted, records, strict=True)]
    return _column(hit), _column([int(np.count_nonzero(of_kind)) for of_kind in wanted])


def _column(values: Sequence[float]) -> Column:
    return np.array(values, dtype=np.float64)


Figures = Mapping[str, NDArray[np.float64]]

FIGURES = ("dsc", "dsc_pooled", "pixel_recall", "lesion_recall", "pointing", "pxap", "max_box_acc_v2")

RULES = {
    "prediction": "pixels whose strength is at least the cutoff and above 0; a region is a set of 8-connected ones",
    "tolerance": "a lesion is hit by a pixel within tolerance_px of it (Euclidean distance), so that small lesions and "
    "single-pixel calcifications can be hit; holds for lesion_recall, pointing and froc, not for pixels and boxes",
    "dsc": "Dice per image, mean over images with a lesion",
    "dsc_pooled": "Dice of the pixels of all images with a lesion together",
    "pixel_recall": "share of the lesion pixels of all images that are predicted",
    "lesion_recall": "share of lesions that any predicted pixel hits",
    "pointing": "share of images with a lesion whose highest point hits one; equally high points count by their share, "
    "a map of zeros is a miss",
    "pxap": "pixel average precision (Choe et al. 2020) over the pixels of all images with a lesion, 1024 levels",
    "max_box_acc_v2": "oracle: share of images in which a box of any contour matches the box of any lesion, at the "
    "threshold (of 20) that is best on these very images, mean over intersection over union 0.3, 0.5, 0.7",
    "froc": "a region scores confidence times highest strength; one hit per lesion counts, a region that hits none is "
    "one false positive; all images with known lesions count, also those with none; straight lines between the points",
    "by_type": "lesion_recall over the lesions of one type, dsc over images whose lesions are all of that type",
}


def summarize_localization(
    records: Sequence[ImageRecord], histograms: Mapping[str, NDArray[np.int64]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return counts, figures with intervals, FROC, figures by type, the rules and how the intervals were drawn.

    Args:
        records: of the images.
        histograms: strength histograms (2, BINS) of the patients with a lesion.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.

    Raises:
        LemlightError: fewer resamples than a 95 % interval needs.
    """
    evidence = gather(records, histograms)
    values = weighted_figures(evidence, np.ones((1, len(records))))
    draws = {name: np.zeros((0, *value.shape[1:])) for name, value in values.items()}
    if records:
        draws = bootstrap(partial(weighted_figures, evidence), evidence.patients, resamples=resamples, seed=seed)
    return {
        "images": len(records),
        "images_with_lesion": int(evidence.with_lesion.sum()),
        "lesions": sum(len(record.types) for record in records),
        "patients": int(np.unique(evidence.patients).size),
        **{name: _figure(name, evidence, values, draws) for name in FIGURES},
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


def _figure(name: str, evidence: Evidence, values: Figures, draws: Figures) -> dict[str, Any]:
    return _estimated(values[name][0], draws[name], evidence.with_lesion, evidence)


def _froc_section(evidence: Evidence, values: Figures, draws: Figures) -> dict[str, Any]:
    counted = evidence.with_lesion
    false_positives, sensitivity = curve(evidence.findings)
    return {
        "mean": _estimated(values["froc"].mean(), draws["froc"].mean(axis=1), counted, evidence),
        "at": {
            f"{rate:g}": _estimated(values["froc"][0, column], draws["froc"][:, column], counted, evidence)
            for column, rate in enumerate(RATES)
        },
        "curve": {"false_positives_per_image": false_positives, "sensitivity": sensitivity},
    }


def _type_section(kind: str, evidence: Evidence, values: Figures, draws: Figures) -> dict[str, Any]:
    """Return the figures of one type of lesion; `images` are those whose lesions are all of that type."""
    section: dict[str, Any] = {}
    for figure, unit in (("lesion_recall", "lesions"), ("dsc", "images")):
        name = of_type(figure, kind)
        whole = evidence.ratios[name][1]
        reason = f"no image whose lesions are all of type {kind}"
        section[unit] = int(whole.sum())
        section[figure] = _estimated(values[name][0], draws[name], whole > 0, evidence, reason)
    return section


def _estimated(
    value: float,
    draws: NDArray[np.float64],
    counted: NDArray[np.bool_],
    evidence: Evidence,
    reason: str = "no image with a lesion",
) -> dict[str, Any]:
    """Return a figure as metrics.json has it; `counted` (N,) are the images that can contribute to it."""
    if np.isnan(value):
        return Estimate(None, reason=reason if counted.size else "no images").to_dict()
    return estimate(float(value), draws, int(np.unique(evidence.patients[counted]).size)).to_dict()


COLUMNS = (
    "image_id", "patient_id", "confidence", "lesions", "hit_lesions", "regions_outside",
    "lesion_pixels", "predicted_pixels", "shared_pixels", "dsc", "pointing",
)  # fmt: skip


class LocalizationMeter:
    """Compares location maps with lesions; keeps counts per image and a histogram per patient, never a map.

    Args:
        cutoff: in [0, 1]: the prediction is where the strength is at least this, and above 0 (compared in float32).

    Raises:
        LemlightError: the cutoff lies outside [0, 1].
    """

    def __init__(self, cutoff: float) -> None:
        self._cutoff = check_cutoff(cutoff)
        self._records: dict[str, ImageRecord] = {}
        self._histograms: dict[str, NDArray[np.int64]] = {}
        self._tolerances: set[float] = set()

    def update(
        self,
        *,
        image_id: str,
        patient_id: str,
        lesions: ArrayLike,
        types: Sequence[str],
        strength: ArrayLike,
        confidence: float,
        tolerance_px: float,
    ) -> None:
        """Add one image whose lesions are known; one of which nothing is known must not be added.

        Args:
            image_id: of the image, given once.
            patient_id: of its patient; intervals are drawn over patients.
            lesions: labels (H, W) of an integer type, 0 none, k the k-th lesion; all 0: known to have none.
            types: of the lesions, types[k - 1] of the k-th; "" unknown. A lesion that is not drawn is left out.
            strength: (H, W) in [0, 1], the smoothed location map, its highest value 1, or 0 everywhere.
            confidence: of the call, in [0, 1].
            tolerance_px: a lesion counts as hit within this distance of it, in px of these arrays.

        Raises:
            LemlightError: an image given twice, other shapes, values outside their range, missing types.
        """
        try:
            self._add(image_id, patient_id, lesions, types, strength, confidence, tolerance_px)
        except LemlightError as error:
            raise LemlightError(f"image {image_id}: {error}") from None

    def per_image(self) -> pd.DataFrame:
        """Return one row per image, ordered by image_id; dsc and pointing are NaN where there is no lesion.

        `regions_outside` counts predicted regions that hit no lesion; pixels are counted at the cutoff.
        """
        rows = [
            (
                record.image_id, record.patient_id, record.confidence, len(record.types), int(record.hits.sum()),
                record.candidates.false_positive_scores.size, record.lesion_pixels, record.predicted_pixels,
                record.shared_pixels, record.dsc, record.pointing,
            )
            for record in self._ordered()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def summary(self, *, resamples: int, seed: int = 0) -> dict[str, Any]:
        """Return what metrics.json holds of the localization: each figure with its 95 % interval over patients.

        Raises:
            LemlightError: fewer resamples than a 95 % interval needs.
        """
        return {
            "cutoff": self._cutoff,
            "tolerance_px": [min(self._tolerances), max(self._tolerances)] if self._tolerances else None,
            **summarize_localization(self._ordered(), self._histograms, resamples=resamples, seed=seed),
        }

    def _ordered(self) -> list[ImageRecord]:
        return [self._records[image_id] for image_id in sorted(self._records)]

    def _add(
        self,
        image_id: str,
        patient_id: str,
        lesions: ArrayLike,
        types: Sequence[str],
        strength: ArrayLike,
        confidence: float,
        tolerance_px: float,
    ) -> None:
        if image_id in self._records:
            raise LemlightError("measured twice: drop the duplicates of the distributed sampler first")
        if not patient_id.strip():
            raise LemlightError("no patient_id: intervals are drawn over patients")
        labels, strengths = check_maps(lesions, strength)
        check_call(types, int(labels.max()), confidence, tolerance_px)
        record = measure(
            labels,
            strengths,
            image_id=image_id,
            patient_id=patient_id,
            types=types,
            confidence=float(confidence),
            tolerance_px=float(tolerance_px),
            cutoff=self._cutoff,
        )
        self._records[image_id] = record
        self._tolerances.add(float(tolerance_px))
        if record.lesion_pixels:
            histogram = strength_histogram(labels, strengths)
            self._histograms[patient_id] = self._histograms.get(patient_id, 0) + histogram

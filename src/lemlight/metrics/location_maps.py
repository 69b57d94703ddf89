"""Metrics of location maps over many images, with intervals over patients: Dice, recall, pointing, boxes, FROC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.bootstrap import bootstrap, estimate, how_drawn, ratio
from lemlight.metrics.froc import RATES, Candidates, collect, curve, find_candidates, weighted_sensitivity
from lemlight.metrics.overlap import (
    BINS,
    BOX_CUTOFFS,
    OVERLAPS,
    box_matches,
    near_lesions,
    pointing,
    predicted,
    strength_histogram,
    weighted_max_box_acc,
    weighted_pxap,
)

Column = NDArray[np.float64]

SIZES = {"below 1 cell": 0.0, "1 to 8 cells": 1.0, "8 cells and more": 8.0}  # from that area on

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
    "by_type": "lesion_recall over the lesions of one type, dsc and pointing over images whose lesions are all of it",
    "by_breast": "lesion_recall and froc with a lesion counted once for its breast, found in either view, where the "
    "data tell which marks are one lesion; false positives are counted per image all the same",
    "by_size": "the same by the area of a lesion in cells of the score map, on the prepared image: a map of cells "
    "cannot outline what is smaller than one",
}
COLUMNS = (
    "image_id", "patient_id", "probability", "lesions", "hit_lesions", "regions_outside",
    "lesion_pixels", "predicted_pixels", "shared_pixels", "dsc", "pointing",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One measured image: counts and scores of its map and its lesions, never the map itself.

    row: what `LocalizationMeter.per_image` tells of it.
    types, sizes, hits: of the K lesions that are drawn; hits (K,) says which of them the prediction hits.
    names: of these lesions: the same name in two views of a breast is one lesion; "" where the data do not tell.
    suspicious: the candidates of FROC and the malignant lesions that they find; none of these on a benign image.
    box_matches: (3, 20), False without a lesion.
    histogram: (2, BINS), see `strength_histogram`.
    """

    row: Mapping[str, Any]
    types: tuple[str, ...]
    sizes: tuple[str, ...]
    names: tuple[str, ...]
    hits: NDArray[np.bool_]
    tolerance_px: float
    suspicious: Candidates
    box_matches: NDArray[np.bool_]
    histogram: NDArray[np.int64]


def measure(
    *,
    cutoff: float,
    suspicion_cutoff: float,
    image_id: str,
    patient_id: str,
    malignant: bool,
    lesions: NDArray[np.uint8],
    types: Sequence[str],
    strength: NDArray[np.float32],
    suspicion: NDArray[np.float32],
    probability: float,
    tolerance_px: float,
    cell_px: float,
    breast: str = "",
    names: Sequence[str] = (),
) -> Measured:
    """Measure one image whose lesions are known; one of which nothing is known must not be measured.

    Args:
        cutoff: in [0, 1]: the prediction is where the strength is at least this, and above 0 (compared in float32).
        suspicion_cutoff: the same for `suspicion`.
        image_id: of the image.
        patient_id: of its patient; intervals are drawn over patients.
        malignant: the label of the image; its lesions are then taken to be malignant.
        lesions: labels (H, W), 0 none, k the k-th lesion; all 0: known to have none.
        types: of the lesions, types[k - 1] of the k-th; "" unknown. A lesion that is not drawn is left out.
        strength: (H, W) in [0, 1], the smoothed location map, its highest value 1, or 0 everywhere.
        suspicion: (H, W) in [0, 1], the same of what speaks for malignancy.
        probability: of malignancy, in [0, 1].
        tolerance_px: a lesion counts as hit within this distance of it, in px of these arrays.
        cell_px: area of a cell of the score map, in px of these arrays.
        breast: its side, "" where that is not known.
        names: of the lesions, names[k - 1] of the k-th, see `Measured`.
    """
    mask, near = predicted(strength, cutoff), near_lesions(lesions, tolerance_px)
    found = find_candidates(strength, cutoff, 1.0, near)
    hits = ~np.isnan(found.lesion_scores)
    image = {"image_id": image_id, "patient_id": patient_id, "breast": breast, "probability": float(probability)}
    counts = {"lesions": len(near), "hit_lesions": int(hits.sum()), "regions_outside": len(found.false_positive_scores)}
    pixels = {"lesion_pixels": lesions > 0, "predicted_pixels": mask, "shared_pixels": mask & (lesions > 0)}
    counts |= {name: int(np.count_nonzero(part)) for name, part in pixels.items()}
    both = counts["lesion_pixels"] + counts["predicted_pixels"]
    defined = {"dsc": 2 * counts["shared_pixels"] / both, "pointing": pointing(strength, near)} if near else {}
    return Measured(
        row={**image, **counts, "dsc": float("nan"), "pointing": float("nan"), **defined},
        types=tuple(types[lesion.label - 1] for lesion in near),
        sizes=tuple(size_of(np.count_nonzero(lesions == lesion.label) / cell_px) for lesion in near),
        names=tuple(names[lesion.label - 1] if names else "" for lesion in near),
        hits=hits,
        tolerance_px=float(tolerance_px),
        suspicious=find_candidates(suspicion, suspicion_cutoff, float(probability), near if malignant else []),
        box_matches=box_matches(lesions, strength),
        histogram=strength_histogram(lesions, strength),
    )


def size_of(cells: float) -> str:
    """Return the name of the size of a lesion of so many cells of the score map."""
    return [name for name, least in SIZES.items() if cells >= least][-1]


class LocalizationMeter:
    """Metrics of images that were measured; keeps counts per image and a histogram per patient, never a map."""

    def __init__(self) -> None:
        self._records: dict[str, Measured] = {}
        self._histograms: dict[str, NDArray[np.int64]] = {}  # of the patients with a lesion

    def add(self, measured: Measured) -> None:
        """Add one image.

        Raises:
            LemlightError: an image given twice.
        """
        image_id, patient = measured.row["image_id"], measured.row["patient_id"]
        if image_id in self._records:
            raise LemlightError(f"image {image_id}: measured twice: drop the duplicates of the sampler first")
        self._records[image_id] = replace(measured, histogram=np.zeros((0,), np.int64))
        if measured.types:
            self._histograms[patient] = self._histograms.get(patient, 0) + measured.histogram

    def per_image(self) -> pd.DataFrame:
        """Return one row per image, ordered by image_id; dsc and pointing are NaN where there is no lesion.

        `regions_outside` counts predicted regions that hit no lesion; pixels are counted at the cutoff of the image.
        """
        return pd.DataFrame([self._records[name].row for name in sorted(self._records)], columns=list(COLUMNS))

    def summary(self, *, resamples: int, seed: int = 0) -> dict[str, Any]:
        """Return what metrics.json holds of the localization: each figure with its 95 % interval over patients.

        Raises:
            LemlightError: fewer resamples than a 95 % interval needs.
        """
        records = [self._records[name] for name in sorted(self._records)]
        evidence = Evidence(self.per_image(), records, self._histograms, resamples, seed)
        tolerances = [record.tolerance_px for record in records]
        return {
            "tolerance_px": [min(tolerances), max(tolerances)] if tolerances else None,
            "images": len(records),
            "images_with_lesion": int(evidence.with_lesion.sum()),
            "lesions": sum(len(record.types) for record in records),
            "patients": int(np.unique(evidence.patients).size),
            **{name: evidence.figure(name, evidence.with_lesion, "no image with a lesion") for name in FIGURES},
            "froc": evidence.froc_section(),
            "by_breast": by_breast(records, resamples=resamples, seed=seed),
            "by_type": {kind: evidence.kind_section(kind) for kind in evidence.types},
            "by_size": {size: evidence.kind_section(size) for size in evidence.sizes},
            "rules": dict(RULES),
            "interval": how_drawn(resamples, seed),
        }


class Evidence:
    """All that the figures of N images need, as arrays, and their values and draws.

    patients: (N,) the patient of every image.
    types: of lesions, in alphabetical order, without the unknown one; sizes: those of SIZES that occur.
    ratios: name of a figure -> part (N,) and whole (N,), each added up over the images before dividing.
    with_lesion: (N,) bool.
    findings: of malignant lesions, for FROC.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        records: Sequence[Measured],
        histograms: Mapping[str, NDArray[np.int64]],
        resamples: int,
        seed: int,
    ) -> None:
        self.patients = rows["patient_id"].to_numpy(dtype=np.str_)
        self.types = sorted({kind for record in records for kind in record.types} - {""})
        self.sizes = [size for size in SIZES if any(size in record.sizes for record in records)]
        self.with_lesion = rows["lesions"].to_numpy() > 0
        self.findings = collect([record.suspicious for record in records])
        matches = np.array([record.box_matches for record in records], dtype=np.bool_)
        self._matches = matches.reshape(len(records), len(OVERLAPS), len(BOX_CUTOFFS))
        self._histograms = np.array(list(histograms.values()), dtype=np.int64).reshape(-1, 2, BINS)
        # an image of each patient with a lesion: all images of a patient have the same weight
        owners = list(self.patients)
        self._first_image = np.array([owners.index(patient) for patient in histograms], dtype=np.int64)

        present = self.with_lesion.astype(np.float64)
        dsc, pointed, lesion, mask, shared, lesions, hit = (
            np.nan_to_num(rows[name].to_numpy(dtype=np.float64))
            for name in (
                "dsc", "pointing", "lesion_pixels", "predicted_pixels", "shared_pixels", "lesions", "hit_lesions",
            )
        )  # fmt: skip
        self.ratios = {
            "dsc": (dsc, present),
            "dsc_pooled": (2 * shared, (mask + lesion) * present),
            "pixel_recall": (shared, lesion),
            "lesion_recall": (hit, lesions),
            "pointing": (pointed, present),
        }
        for kind in (*self.types, *self.sizes):
            kinds = [np.array(record.types if kind in self.types else record.sizes) for record in records]
            of_kind = [own == kind for own in kinds]
            only = np.array([own.size > 0 and bool(np.all(own == kind)) for own in kinds], dtype=np.float64)
            found = [np.sum(own & record.hits) for own, record in zip(of_kind, records, strict=True)]
            self.ratios[f"dsc of {kind}"] = (dsc * only, only)
            self.ratios[f"pointing of {kind}"] = (pointed * only, only)
            self.ratios[f"lesion_recall of {kind}"] = (
                np.array(found, float),
                np.array(list(map(np.sum, of_kind)), float),
            )
        self.values = self.weighted_figures(np.ones((1, self.patients.size)))
        self.draws = {name: value[:0] for name, value in self.values.items()}
        if self.patients.size:
            self.draws = bootstrap(self.weighted_figures, self.patients, resamples=resamples, seed=seed)

    def weighted_figures(self, weights: Column) -> dict[str, Column]:
        """Return every figure for weights (R, N) of the images: (R,) each, "froc" (R, 6); NaN is undefined.

        The weights of all images of one patient must be equal, as those of a bootstrap over patients are.
        """
        figures = {name: ratio(weights @ part, weights @ whole) for name, (part, whole) in self.ratios.items()}
        return figures | {
            "pxap": weighted_pxap(self._histograms, weights[:, self._first_image]),
            "max_box_acc_v2": weighted_max_box_acc(self._matches, self.with_lesion, weights),
            "froc": weighted_sensitivity(self.findings, weights),
        }

    def figure(self, name: str, counted: NDArray[np.bool_], undefined: str, rate: int | None = None) -> dict[str, Any]:
        """Return a figure as metrics.json has it; `counted` (N,) are the images that can contribute to it."""
        value, draws = self.values[name], self.draws[name]
        if value.ndim > 1:  # FROC: at one rate, or the mean over all of them
            value, draws = (one.mean(axis=1) if rate is None else one[:, rate] for one in (value, draws))
        patients = int(np.unique(self.patients[counted]).size)
        return estimate(float(value[0]), draws, patients, undefined if self.patients.size else "no images").to_dict()

    def froc_section(self) -> dict[str, Any]:
        """Return FROC: the mean over the rates, the sensitivity at each, and the curve."""
        malignant = self.findings.lesions > 0, "no image with a malignant lesion"
        rates, sensitivity = curve(self.findings)
        return {
            "counts": "malignant lesions",
            "lesions": int(self.findings.lesions.sum()),
            "mean": self.figure("froc", *malignant),
            "at": {f"{rate:g}": self.figure("froc", *malignant, rate=place) for place, rate in enumerate(RATES)},
            "curve": {"false_positives_per_image": rates, "sensitivity": sensitivity},
        }

    def kind_section(self, kind: str) -> dict[str, Any]:
        """Return the figures of one type or size of lesion; `images` are those whose lesions are all of that kind."""
        section: dict[str, Any] = {}
        for name, unit in (("lesion_recall", "lesions"), ("dsc", "images"), ("pointing", "images")):
            whole = self.ratios[f"{name} of {kind}"][1]
            section[unit] = int(whole.sum())
            undefined = f"no image whose lesions are all of this kind: {kind}"
            section[name] = self.figure(f"{name} of {kind}", whole > 0, undefined)
        return section


BY_IMAGE = "lesions are counted in every image"


def by_breast(records: Sequence[Measured], *, resamples: int, seed: int) -> dict[str, Any]:
    """Return lesion recall and FROC of breasts with intervals over patients, or why lesions are counted by image.

    False positives are counted per image, as in FROC by image; a lesion has the score of its best region in any view.
    """
    with_lesion = [record for record in records if record.types]
    if not with_lesion:
        return {"reason": "no image with a lesion"}
    if any(not record.row["breast"] for record in records):
        return {"reason": f"{BY_IMAGE}: an image names no side"}
    if any("" in record.names for record in with_lesion):
        return {"reason": f"{BY_IMAGE}: the data do not tell which marks are one lesion in both views"}
    breasts: dict[tuple[str, str], list[Measured]] = {}
    for record in records:
        breasts.setdefault((record.row["patient_id"], record.row["breast"]), []).append(record)
    hits = [_best_of([(one.names, np.where(one.hits, 1.0, np.nan)) for one in views]) for views in breasts.values()]
    found = np.array([np.count_nonzero(~np.isnan(part)) for part in hits], dtype=float)
    lesions = np.array([part.size for part in hits], dtype=float)
    candidates = [
        Candidates(
            _best_of([(one.names, one.suspicious.lesion_scores) for one in views if one.suspicious.lesion_scores.size]),
            np.concatenate([one.suspicious.false_positive_scores for one in views]),
        )
        for views in breasts.values()
    ]
    findings = collect(candidates, [len(views) for views in breasts.values()])

    def statistics(weights: Column) -> dict[str, Column]:
        froc = weighted_sensitivity(findings, weights).mean(axis=1)
        return {"lesion_recall": ratio(weights @ found, weights @ lesions), "froc": froc}

    patients = np.array([patient for patient, _ in breasts])
    draws = bootstrap(statistics, patients, resamples=resamples, seed=seed)
    why = {"lesion_recall": "no lesion", "froc": "no malignant lesion"}
    figures = {
        name: estimate(float(row[0]), draws[name], np.unique(patients).size, why[name]).to_dict()
        for name, row in statistics(np.ones((1, len(breasts)))).items()
    }
    return {"breasts": len(breasts), "lesions": int(lesions.sum()), **figures}


def _best_of(views: Sequence[tuple[Sequence[str], Column]]) -> Column:
    """The best score of each lesion over the views, (K,), NaN where none finds it."""
    best: dict[str, float] = {}
    for names, scores in views:
        for name, score in zip(names, scores, strict=True):
            best[name] = float(np.fmax(best.get(name, np.nan), score))
    return np.array(list(best.values()), dtype=np.float64)

"""Every localization figure for many weightings of the images: a bootstrap resample is an integer weight per image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.localization import froc
from lemlight.metrics.localization.blocks import ratio
from lemlight.metrics.localization.boxes import BOX_CUTOFFS, OVERLAPS, weighted_max_box_acc
from lemlight.metrics.localization.pxap import BINS, weighted_pxap
from lemlight.metrics.localization.record import ImageRecord

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
    findings: froc.Findings
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
        findings=froc.collect(
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
        "froc": froc.weighted_sensitivity(evidence.findings, weights),
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

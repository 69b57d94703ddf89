"""The localization figures of one split with their intervals, as metrics.json holds them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.estimate import Estimate
from lemlight.metrics.intervals import LEVEL, bootstrap, estimate
from lemlight.metrics.localization import froc
from lemlight.metrics.localization.figures import Evidence, gather, known_types, of_type, weighted_figures
from lemlight.metrics.localization.record import ImageRecord

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
    false_positives, sensitivity = froc.curve(evidence.findings)
    return {
        "mean": _estimated(values["froc"].mean(), draws["froc"].mean(axis=1), counted, evidence),
        "at": {
            f"{rate:g}": _estimated(values["froc"][0, column], draws["froc"][:, column], counted, evidence)
            for column, rate in enumerate(froc.RATES)
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

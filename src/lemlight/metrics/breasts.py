"""Lesions by breast: one counts once, found in either view, where the data tell which marks are one lesion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.bootstrap import bootstrap, estimate, ratio
from lemlight.metrics.froc import Candidates, collect, weighted_sensitivity
from lemlight.metrics.location_maps import Measured

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
    hits = [_joined([(one.names, np.where(one.hits, 1.0, np.nan)) for one in views]) for views in breasts.values()]
    found, lesions = (np.array([kind(part) for part in hits], dtype=float) for kind in (_seen, np.size))
    candidates = [
        Candidates(
            _joined([(one.names, one.suspicious.lesion_scores) for one in views if one.suspicious.lesion_scores.size]),
            np.concatenate([one.suspicious.false_positive_scores for one in views]),
        )
        for views in breasts.values()
    ]
    findings = collect(candidates, [len(views) for views in breasts.values()])

    def statistics(weights: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        froc = weighted_sensitivity(findings, weights).mean(axis=1)
        return {"lesion_recall": ratio(weights @ found, weights @ lesions), "froc": froc}

    patients = np.array([patient for patient, _ in breasts])
    values = {name: float(row[0]) for name, row in statistics(np.ones((1, len(breasts)))).items()}
    draws = bootstrap(statistics, patients, resamples=resamples, seed=seed)
    why = {"lesion_recall": "no lesion", "froc": "no malignant lesion"}
    figures = {
        name: estimate(value, draws[name], np.unique(patients).size, why[name]).to_dict()
        for name, value in values.items()
    }
    return {"breasts": len(breasts), "lesions": int(lesions.sum()), **figures}


def _joined(views: Sequence[tuple[Sequence[str], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """The best score of each lesion over the views, (K,), NaN where none finds it."""
    best: dict[str, float] = {}
    for names, scores in views:
        for name, score in zip(names, scores, strict=True):
            best[name] = float(np.fmax(best.get(name, np.nan), score))
    return np.array(list(best.values()), dtype=np.float64)


def _seen(scores: NDArray[np.float64]) -> int:
    return int(np.sum(~np.isnan(scores)))

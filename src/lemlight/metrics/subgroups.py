"""Metrics by subgroup: for whom does the network work? A difference is said only where it is shown after correction."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.metrics.bootstrap import Estimate, bootstrap, estimate
from lemlight.metrics.classification import AT_A_THRESHOLD, METRICS, check_scored, weighted_metrics, why_undefined
from lemlight.metrics.significance import Difference, corrected, drawn_difference

FEWEST_PATIENTS = 10  # of each class that a metric needs; with fewer a subgroup is too small
TESTED = ("auroc", "sensitivity", "specificity")
UNKNOWN = "unknown"
NEEDS = {"auroc": (True, False), "sensitivity": (True,), "f1": (True,), "specificity": (False,)}  # other: patients
RULES = {
    "groups": "of images; intervals by the bootstrap over patients of the whole split, the same resamples for all",
    "too small": f"fewer than {FEWEST_PATIENTS} patients of a class that the metric needs: no value, no test",
    "differences": "all pairs of groups of one variable, for AUC, sensitivity and specificity; Holm's correction over "
    "all pairs of all variables of one metric; a difference is said only where the corrected p is at most 0.05",
}

Cell = tuple[str, str, str]  # variable, its value, metric


def summarize_subgroups(
    predictions: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    threshold: float | None = 0.5,
    order: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what metrics.json holds of the subgroups of images.

    Args:
        predictions: a row per image with patient_id, label, probability.
        groups: a column of texts per variable with the same index, "" where an image's value is not known.
        threshold: predicted malignant above it; None: what needs one is undefined.
        order: of values; others follow in alphabetical order, what is not known comes last.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.
    """
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    patients = predictions["patient_id"].astype(str).to_numpy(dtype=np.str_)
    inside = _groups(groups, order) if truth.size else {}
    predicted = probability > (1 if threshold is None else threshold)

    def statistics(weights: NDArray[np.float64]) -> dict[Cell, NDArray[np.float64]]:
        rows: dict[Cell, NDArray[np.float64]] = {}
        for (name, value), part in inside.items():
            found = weighted_metrics(truth[part], probability[part], predicted[part], weights[:, part])
            rows |= {(name, value, metric): row for metric, row in found.items()}
        return rows

    draws = bootstrap(statistics, patients, resamples=resamples, seed=seed) if inside else {}
    figures: dict[Cell, Estimate] = {}
    for cell, row in statistics(np.ones((1, truth.size))).items():
        part, metric = inside[cell[:2]], cell[2]
        why = _too_small(metric, truth[part], patients[part])
        if threshold is None and metric in AT_A_THRESHOLD:
            why = "there is no threshold"
        figures[cell] = estimate(np.nan if why else float(row[0]), draws[cell], np.unique(patients[part]).size, why)
    sections: dict[str, Any] = {str(name): {"reason": "neither the table nor the files say"} for name in groups}
    for name in {variable: None for variable, _ in inside}:
        sections[name] = {
            value: {
                "images": int(part.sum()),
                "patients": int(np.unique(patients[part]).size),
                "malignant": int(truth[part].sum()),
                **{metric: figures[name, value, metric].to_dict() for metric in METRICS},
            }
            for (variable, value), part in inside.items()
            if variable == name
        }
    differences = _differences(figures, draws, int(np.unique(patients).size))
    return {"by": sections, "differences": differences, "rules": dict(RULES)}


def _groups(groups: pd.DataFrame, order: Sequence[str]) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """The images (N,) of every value of the variables that are known of any image."""
    places = {value: place for place, value in enumerate(order)} | {UNKNOWN: len(order) + 1}
    inside: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for name in groups:
        texts = groups[name].where(groups[name] != "", UNKNOWN)
        values = sorted(texts.unique(), key=lambda one: (places.get(one, len(order)), one))
        inside |= {(str(name), value): (texts == value).to_numpy() for value in values if values != [UNKNOWN]}
    return inside


def subgroup_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return variable, value and figures of every subgroup of a summary (metrics.json), in the order of the page."""
    by = summary.get("subgroups", {}).get("by", {})
    return [(name, value, group) for name, part in by.items() if "reason" not in part for value, group in part.items()]


def group_name(variable: str, value: str) -> str:
    """Return the name of a subgroup as it is read."""
    return f"{variable.replace('_', ' ')}: {value}"


def _too_small(metric: str, truth: NDArray[np.bool_], patients: NDArray[np.str_]) -> str:
    """Say why a subgroup defines no metric, or has too few patients for it; an empty string where it has enough."""
    for malignant in NEEDS.get(metric, ()):
        count = np.unique(patients[truth == malignant]).size
        if not count:
            return why_undefined(metric, truth)
        if count < FEWEST_PATIENTS:
            return f"{_so_few(count)} with a {'malignant' if malignant else 'benign'} image"
    count = np.unique(patients).size
    return _so_few(count) if count < FEWEST_PATIENTS else ""


def _so_few(patients: int) -> str:
    return f"too small: {patients} patient{'s' * (patients != 1)}"


def _differences(
    figures: Mapping[Cell, Estimate],
    draws: Mapping[Cell, NDArray[np.float64]],
    patients: int,
) -> list[dict[str, Any]]:
    """Every pair of groups of one variable, first minus second, for the metrics that are TESTED."""
    rows = []
    for metric in TESTED:
        values = {cell[:2]: one.value for cell, one in figures.items() if cell[1] != UNKNOWN and cell[2] == metric}
        found: dict[tuple[str, str], Difference] = {}
        places = []
        for (name, first), (other, second) in combinations(values, 2):
            one, two = values[name, first], values[other, second]
            if name == other and one is not None and two is not None:
                drawn = draws[name, first, metric] - draws[name, second, metric]
                found[f"{name} {first}", f"{name} {second}"] = drawn_difference(one - two, drawn, patients)
                places.append({"group": name, "first": first, "second": second})
        for place, pair in zip(places, corrected(metric, found), strict=True):
            rows.append(
                {
                    "metric": metric,
                    **place,
                    "difference": pair.difference.estimate.to_dict(),
                    "p": pair.difference.p,
                    "p_corrected": pair.p_corrected,
                    "comparisons": pair.comparisons,
                    "sentence": pair.sentence,
                }
            )
    return rows

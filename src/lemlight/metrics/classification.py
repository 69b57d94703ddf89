"""Metrics of the classification of images with intervals over patients, ROC curve and calibration.

What the labels do not define (one class only) is undefined, with its reason, and never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.metrics import roc_curve

from lemlight.errors import LemlightError
from lemlight.files import write_csv
from lemlight.metrics.bootstrap import LEVEL, bootstrap, estimate, how_drawn, percentiles, ratio, too_few
from lemlight.metrics.calibration import expected_calibration_error, log_odds, uncalibrated, weighted_recalibration
from lemlight.metrics.operating import (
    DEFAULT,
    FIXED,
    OperatingPoint,
    choose_point,
    predictive_values,
    weighted_fixed_points,
)

AT_A_THRESHOLD = ("acc", "sensitivity", "specificity", "f1")
FIXED_POINTS = ("sensitivity_at_specificity", "specificity_at_sensitivity", "partial_auc")
CALIBRATION = ("slope", "intercept")
HALF = OperatingPoint(threshold=DEFAULT)
ORACLE = "the point that these very images would choose: no figure to expect"
METRICS = ("acc", "auroc", "sensitivity", "specificity", "f1", "brier")
PREDICTION_COLUMNS = (
    "image_id", "patient_id", "laterality", "view", "exam", "split", "label", "probability", "n_maxima", "n_minima",
)  # fmt: skip
BINS = 10  # of the reliability diagram


def check_scored(label: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return label (N,) as bool and probability (N,) as float64.

    Raises:
        LemlightError: everything wrong at once: lengths, labels other than 0 and 1, values that are no probabilities.
    """
    truth, scored = (np.asarray(values, dtype=np.float64) for values in (label, probability))
    problems: list[str] = []
    if truth.shape != scored.shape:
        problems.append(f"{truth.size} labels but {scored.size} probabilities")
    if bad := int(np.sum(~np.isin(truth, (0, 1)))):
        problems.append(f"{bad} of {truth.size} labels are neither 0 (benign) nor 1 (malignant)")
    if bad := int(np.sum(~np.isfinite(scored))):
        problems.append(
            f"{bad} of {scored.size} values in probability are NaN or infinite: the training has probably diverged, "
            "lower the learning rate"
        )
    elif bad := int(np.sum((scored < 0) | (scored > 1))):
        problems.append(
            f"{bad} of {scored.size} probabilities lie outside [0, 1]: they look like logits, apply a sigmoid first"
        )
    if problems:
        raise LemlightError("cannot compute metrics: " + "; ".join(problems))
    return truth.astype(bool), scored


def why_undefined(name: str, truth: NDArray[np.bool_]) -> str:
    """Return why images of these classes (N,), True for malignant, do not define a metric."""
    if name in ("dsc", "pointing"):
        return "no image with a Dice"
    if truth.size == 0:
        return "no images"
    if name == "auroc":
        return f"one class only: all images are {'malignant' if truth.all() else 'benign'}"
    return "no benign image" if name == "specificity" else "no malignant image"


def weighted_metrics(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    predicted: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Return for every row of weights (R, N), counts of the N images, each of METRICS (R,); NaN is undefined.

    `predicted` (N,) are the images that are predicted malignant. Higher is better, except for the Brier score.
    """
    squared_error = (probability - truth) ** 2
    columns = np.stack([truth, ~truth, truth & predicted, ~truth & predicted, squared_error], axis=1)
    malignant, benign, true_positive, false_positive, error = (weights @ columns.astype(np.float64)).T
    images = malignant + benign
    found = malignant + true_positive + false_positive
    return {
        "acc": ratio(true_positive + benign - false_positive, images),
        "auroc": weighted_auroc(truth, probability, weights),
        "sensitivity": ratio(true_positive, malignant),
        "specificity": ratio(benign - false_positive, benign),
        "f1": ratio(2 * true_positive, np.where(malignant > 0, found, 0)),  # no recall, no F1
        "brier": ratio(error, images),
    }


def weighted_auroc(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for every row of weights (R, N) the fraction of pairs of both classes in the right order, ties half."""
    if truth.size == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(probability, kind="stable")
    # Images of equal probability form one step of the ROC curve: add up their weights, then count pairs between steps.
    steps = np.flatnonzero(np.diff(probability[order], prepend=-1.0))
    ordered = weights[:, order]
    malignant = np.add.reduceat(ordered * truth[order], steps, axis=1)
    benign = np.add.reduceat(ordered * ~truth[order], steps, axis=1)
    below = np.cumsum(benign, axis=1) - benign / 2
    pairs = malignant.sum(axis=1) * benign.sum(axis=1)
    return ratio(np.einsum("rs,rs->r", malignant, below), pairs)


@dataclass(frozen=True)
class RocBand:
    """The curve (K,) from (0, 0) to (1, 1), and on a grid of false positive rates (G,) the band [low, high].

    `low` and `high` (G,) are None where the patients are too few for a band.
    """

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    grid: NDArray[np.float64]
    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


def roc_band(
    label: ArrayLike, probability: ArrayLike, patients: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> RocBand | None:
    """Return the ROC curve of label and probability with its band, patients (N,) drawn anew in every resample.

    None where there is one class only.

    Raises:
        LemlightError: what `check_scored` and `bootstrap` refuse.
    """
    truth, scored = check_scored(label, probability)
    if truth.size == 0 or truth.all() or not truth.any():
        return None
    false_rate, true_rate, _ = roc_curve(truth, scored)
    grid = np.linspace(0, 1, 101)
    draws = bootstrap(
        lambda weights: {"tpr": weighted_roc(truth, scored, weights, grid)}, patients, resamples=resamples, seed=seed
    )["tpr"]
    defined = draws[~np.isnan(draws[:, 0])]
    if too_few(len(defined), len(draws), np.unique(np.asarray(patients).astype(str)).size):
        return RocBand(false_rate, true_rate, grid, None, None)
    low, high = percentiles(defined)
    return RocBand(false_rate, true_rate, grid, low, high)


def weighted_roc(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    weights: NDArray[np.float64],
    grid: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the true positive rate (R, G) at every false positive rate of grid (G,), NaN in rows with one class."""
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.diff(probability[order], append=-1.0))  # equal probabilities are one step of the curve
    detected = np.cumsum(weights[:, order] * truth[order], axis=1)[:, ends]
    false = np.cumsum(weights[:, order] * ~truth[order], axis=1)[:, ends]
    curve = np.full((len(weights), grid.size), np.nan)
    for row in np.flatnonzero((detected[:, -1] > 0) & (false[:, -1] > 0)):
        # On a vertical step np.interp takes the last, hence the upper, of the points that share a false positive rate.
        false_rate = np.append(0.0, false[row] / false[row, -1])
        curve[row] = np.interp(grid, false_rate, np.append(0.0, detected[row] / detected[row, -1]))
    return curve


def reliability_curve(label: ArrayLike, probability: ArrayLike, patients: ArrayLike) -> list[dict[str, float]]:
    """Return those of ten bins of equal width that hold images, for label, probability and patients, all (N,).

    A bin is [start, end), the last one includes its end; `images` and `patients` are counts, `predicted` is the mean
    probability, `observed` the fraction of malignant images, [low, high] its 95 % interval: Wilson's, with the number
    of patients as the sample size. Images of one patient are not independent, and a bin often has too few patients
    for a bootstrap; the interval is rather too wide than too narrow.

    Raises:
        LemlightError: what `check_scored` refuses.
    """
    truth, scored = check_scored(label, probability)
    owners = np.asarray(patients).astype(str)
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.clip(np.searchsorted(edges, scored, side="right") - 1, 0, BINS - 1)
    curve: list[dict[str, float]] = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        observed, independent = float(truth[inside].mean()), int(np.unique(owners[inside]).size)
        low, high = wilson_interval(observed, independent)
        curve.append(
            {
                "start": round(float(edges[number]), 12),
                "end": round(float(edges[number + 1]), 12),
                "images": int(inside.sum()),
                "patients": independent,
                "predicted": float(scored[inside].mean()),
                "observed": observed,
                "low": low,
                "high": high,
            }
        )
    return curve


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a fraction in [0, 1] of count > 0 independent cases."""
    z2 = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    centre = (fraction + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (fraction * (1 - fraction) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def summarize(
    predictions: pd.DataFrame,
    *,
    point: OperatingPoint = HALF,
    rule: float | str = DEFAULT,
    temperature: float = 1.0,
    prevalence: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what metrics.json holds: the metrics of one split with 95 % intervals over patients, and the calibration.

    Args:
        predictions: one row per image with image_id, patient_id, split, label (0 or 1), probability in [0, 1].
        point: an image is predicted malignant where its probability lies above the point's threshold.
        rule: by which the point was chosen; beside it stands the point that these very images would choose.
        temperature: by which the logits were divided already; the calibration without that stands beside it.
        prevalence: the fraction of malignant cases for which PPV and NPV are given; None gives none.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.

    Raises:
        LemlightError: what `check_scored` refuses, or fewer resamples than a 95 % interval needs.
    """
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    patients = predictions["patient_id"].astype(str).to_numpy()
    count = int(np.unique(patients).size)
    statistics = partial(_statistics, truth, probability, point.threshold, temperature, prevalence)
    values = {name: float(row[0]) for name, row in statistics(np.ones((1, truth.size))).items()}
    draws = {name: np.zeros(0) for name in values}
    if count:
        draws |= bootstrap(statistics, patients, resamples=resamples, seed=seed)
    figures = {
        name: estimate(values[name], draws[name], count, _undefined(name, truth, point)).to_dict() for name in values
    }
    operating: dict[str, Any] = {"rule": rule, "on_validation": point.model_dump(exclude={"threshold"})}
    if isinstance(rule, str):
        operating["oracle"] = choose_point(truth, probability, rule).model_dump() | {"what": ORACLE}
    operating |= {"fixed": FIXED, "prevalence": prevalence}
    operating |= {name: figures[name] for name in figures if name in (*FIXED_POINTS, "ppv", "npv")}
    dropped = {name: int(np.isnan(draws[name]).sum()) for name in METRICS}  # resamples that left a metric undefined
    calibration = _calibration(truth, probability, patients, figures) | {"temperature": temperature}
    if temperature != 1:
        before = {name: figures[f"{name} before"] for name in ("brier", *CALIBRATION)}
        calibration["before"] = _calibration(truth, uncalibrated(probability, temperature), patients, before)
    return {
        "split": str(predictions["split"].iloc[0]) if len(predictions) else "",
        "images": len(predictions),
        "patients": count,
        "threshold": point.threshold,
        **{name: figures[name] for name in METRICS},
        "operating": operating,
        "calibration": calibration,
        "interval": how_drawn(resamples, seed) | {"dropped": dropped},
    }


def _calibration(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], patients: ArrayLike, figures: Mapping[str, Any]
) -> dict[str, Any]:
    """The calibration of probabilities (N,): figures with intervals, expected calibration error and bins."""
    ece = expected_calibration_error(truth, probability) if truth.size else None
    bins = reliability_curve(truth, probability, patients)
    return {name: figures[name] for name in ("brier", *CALIBRATION)} | {"ece": ece, "bins": bins}


def _statistics(
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    threshold: float | None,
    temperature: float,
    prevalence: float | None,
    weights: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Every figure (R,) of a summary for weights (R, N); NaN is undefined."""
    predicted = probability > (1 if threshold is None else threshold)
    rows = weighted_metrics(truth, probability, predicted, weights)
    if threshold is None:
        rows |= {name: np.full(len(weights), np.nan) for name in AT_A_THRESHOLD}
    rows |= weighted_fixed_points(truth, probability, weights)
    rows |= weighted_recalibration(truth, log_odds(probability), weights)
    if prevalence is not None:
        rows |= predictive_values(rows["sensitivity"], rows["specificity"], prevalence)
    if temperature != 1:
        before = uncalibrated(probability, temperature)
        found = weighted_recalibration(truth, log_odds(before), weights)
        found["brier"] = ratio(weights @ (before - truth) ** 2, weights.sum(axis=1))
        rows |= {f"{name} before": row for name, row in found.items()}
    return rows


def _undefined(name: str, truth: NDArray[np.bool_], point: OperatingPoint) -> str:
    name = name.removesuffix(" before")
    if name in (*AT_A_THRESHOLD, "ppv", "npv") and point.threshold is None and truth.size:
        return point.reason
    if name in (*FIXED_POINTS, *CALIBRATION):
        both = truth.any() and not truth.all()
        return "the probabilities part the classes without an error" if both else why_undefined("auroc", truth)
    if name in ("ppv", "npv"):
        both = truth.any() and not truth.all()
        return "nothing is predicted so" if both else why_undefined("auroc", truth)
    return why_undefined(name, truth)


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write predictions.csv with PREDICTION_COLUMNS, and breast_probability if it is there, whole or not at all."""
    columns = [*PREDICTION_COLUMNS, *predictions.columns.intersection(["breast_probability"])]
    write_csv(predictions[columns], path)

"""What is asked of labels and probabilities before anything is computed from them."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.metrics import roc_curve

from lemlight.errors import LemlightError
from lemlight.files import write_json, written_aside
from lemlight.metrics.bootstrap import LEVEL, Undefined, bootstrap, estimate, percentiles, too_few

SUMMARY_COLUMNS = ("image_id", "patient_id", "split", "label", "probability")


def as_vector(values: ArrayLike, name: str, problems: list[str]) -> NDArray[np.float64]:
    """Return values as float64 (N,), adding to problems what keeps them from being finite numbers in one dimension."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        problems.append(f"{name} has entries that are not numbers")
        return np.zeros(0)
    if vector.ndim != 1:
        problems.append(f"{name} must have shape (N,), got {vector.shape}")
    elif bad := int(np.sum(~np.isfinite(vector))):
        remedy = ": the training has probably diverged, lower the learning rate" if name == "probability" else ""
        problems.append(f"{bad} of {vector.size} values in {name} are NaN or infinite{remedy}")
    return vector


def check_scored(label: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return label (N,) as bool and probability (N,) as float64.

    Raises:
        LemlightError: everything wrong at once: shapes, labels other than 0 and 1, values that are no probabilities.
    """
    problems: list[str] = []
    truth = as_vector(label, "label", problems)
    scored = as_vector(probability, "probability", problems)
    if not problems:
        if truth.shape != scored.shape:
            problems.append(f"{truth.size} labels but {scored.size} probabilities")
        if bad := int(np.sum((truth != 0) & (truth != 1))):
            problems.append(f"{bad} of {truth.size} labels are neither 0 (benign) nor 1 (malignant)")
        if bad := int(np.sum((scored < 0) | (scored > 1))):
            problems.append(
                f"{bad} of {scored.size} probabilities lie outside [0, 1]: they look like logits, apply a sigmoid first"
            )
    if problems:
        raise LemlightError("cannot compute metrics: " + "; ".join(problems))
    return truth.astype(bool), scored


def check_threshold(threshold: float) -> None:
    """Raise LemlightError unless the decision threshold is a probability."""
    if not 0 <= threshold <= 1:
        raise LemlightError(f"the decision threshold must be a probability in [0, 1], got {threshold}")


def check_predictions(predictions: pd.DataFrame, columns: tuple[str, ...] = SUMMARY_COLUMNS) -> None:
    """Raise LemlightError unless the frame has these columns, one split, one row per image and a patient for each."""
    if missing := [column for column in columns if column not in predictions.columns]:
        raise LemlightError(f"predictions lack the columns {', '.join(missing)}; they have {_names(predictions)}")
    problems: list[str] = []
    if repeated := int(predictions["image_id"].duplicated().sum()):
        problems.append(f"{repeated} rows repeat an image_id: drop the duplicates of the distributed sampler first")
    patients = predictions["patient_id"]
    if nameless := int((patients.isna() | (patients.astype(str).str.strip() == "")).sum()):
        problems.append(f"{nameless} rows have no patient_id: intervals are drawn over patients")
    if len(splits := predictions["split"].astype(str).unique()) > 1:
        problems.append(f"rows of several splits ({', '.join(sorted(splits))}): select one split first")
    if problems:
        raise LemlightError("cannot use these predictions: " + "; ".join(problems))


def _names(frame: pd.DataFrame) -> str:
    columns: list[Any] = list(frame.columns)
    return ", ".join(map(str, columns)) or "none"


METRICS = ("acc", "auroc", "sensitivity", "specificity", "f1", "brier")


def predicted_malignant(probability: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Return which probabilities (N,) lie above the threshold, as in the paper (p > 0.5) and in torchmetrics."""
    return probability > threshold


def classification_metrics(
    label: ArrayLike, probability: ArrayLike, threshold: float = 0.5
) -> dict[str, float | Undefined]:
    """Return every figure of METRICS for label (N,) in {0, 1} and probability (N,) in [0, 1].

    Higher is better, except for the Brier score. A figure that the labels do not define is Undefined with its reason.

    Raises:
        LemlightError: NaN, logits instead of probabilities, other labels, other shapes.
    """
    truth, scored = check_scored(label, probability)
    check_threshold(threshold)
    rows = weighted_metrics(truth, scored, np.ones((1, truth.size)), threshold)
    reasons = _reasons(truth)
    values = {name: float(row[0]) for name, row in rows.items()}
    return {name: Undefined(reasons[name]) if np.isnan(value) else value for name, value in values.items()}


def weighted_metrics(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64], threshold: float
) -> dict[str, NDArray[np.float64]]:
    """Return for every row of weights (R, N), counts of the N images, each figure of METRICS (R,); NaN is undefined."""
    called = predicted_malignant(probability, threshold)
    squared_error = (probability - truth) ** 2
    columns = np.stack([truth, ~truth, truth & called, ~truth & called, squared_error], axis=1).astype(np.float64)
    malignant, benign, hits, alarms, error = (weights @ columns).T
    images = malignant + benign
    return {
        "acc": _ratio(hits + benign - alarms, images),
        "auroc": weighted_auroc(truth, probability, weights),
        "sensitivity": _ratio(hits, malignant),
        "specificity": _ratio(benign - alarms, benign),
        "f1": _ratio(2 * hits, np.where(malignant > 0, malignant + hits + alarms, 0)),  # no recall, no F1
        "brier": _ratio(error, images),
    }


def weighted_auroc(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for every row of weights (R, N) the share of (malignant, benign) pairs in the right order, ties half."""
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
    return _ratio(np.einsum("rs,rs->r", malignant, below), pairs)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _reasons(truth: NDArray[np.bool_]) -> dict[str, str]:
    if truth.size == 0:
        return dict.fromkeys(METRICS, "no images")
    one_class = "malignant" if truth.all() else "benign"
    return {
        "acc": "no images",
        "auroc": f"one class only: all images are {one_class}",
        "sensitivity": "no malignant image",
        "specificity": "no benign image",
        "f1": "no malignant image",
        "brier": "no images",
    }


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
) -> RocBand | Undefined:
    """Return the ROC curve of label and probability with its band, patients (N,) drawn anew in every resample.

    Raises:
        LemlightError: what `check_scored` and `bootstrap` refuse.
    """
    truth, scored = check_scored(label, probability)
    if truth.size == 0 or truth.all() or not truth.any():
        return Undefined("the ROC curve needs malignant and benign images")
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
    hits = np.cumsum(weights[:, order] * truth[order], axis=1)[:, ends]
    alarms = np.cumsum(weights[:, order] * ~truth[order], axis=1)[:, ends]
    curve = np.full((len(weights), grid.size), np.nan)
    for row in np.flatnonzero((hits[:, -1] > 0) & (alarms[:, -1] > 0)):
        # On a vertical step np.interp takes the last, hence the upper, of the points that share a false positive rate.
        false_rate = np.append(0.0, alarms[row] / alarms[row, -1])
        curve[row] = np.interp(grid, false_rate, np.append(0.0, hits[row] / hits[row, -1]))
    return curve


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose probability lies in [start, end); the last bin includes its end.

    `predicted` is their mean probability, `observed` their malignant share, [low, high] its 95 % interval.
    """

    start: float
    end: float
    images: int
    patients: int
    predicted: float
    observed: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the bin as metrics.json has it."""
        return asdict(self)


def reliability_curve(
    label: ArrayLike, probability: ArrayLike, patients: ArrayLike, bins: int = 10
) -> list[ReliabilityBin]:
    """Return the bins of equal width that hold images, for label, probability and patients, all (N,).

    The interval is Wilson's with the number of patients in the bin as the sample size: images of one patient are not
    independent, and a bin often has too few patients for a bootstrap. It is rather too wide than too narrow.

    Raises:
        LemlightError: fewer than one bin, patients of another length, or what `check_scored` refuses.
    """
    truth, scored = check_scored(label, probability)
    owners = np.asarray(patients).astype(str)
    if bins < 1 or owners.shape != truth.shape:
        raise LemlightError(f"a reliability curve needs a bin and a patient per image, got {bins}, {owners.shape}")
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, scored, side="right") - 1, 0, bins - 1)
    curve = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        observed, independent = float(truth[inside].mean()), int(np.unique(owners[inside]).size)
        low, high = wilson_interval(observed, independent)
        curve.append(
            ReliabilityBin(
                start=round(float(edges[number]), 12),
                end=round(float(edges[number + 1]), 12),
                images=int(inside.sum()),
                patients=independent,
                predicted=float(scored[inside].mean()),
                observed=observed,
                low=low,
                high=high,
            )
        )
    return curve


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share in [0, 1] of count > 0 independent cases."""
    z2 = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


PREDICTION_COLUMNS = (*SUMMARY_COLUMNS, "n_maxima", "n_minima")


def summarize(
    predictions: pd.DataFrame, *, threshold: float = 0.5, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return what metrics.json holds: the figures of one split with 95 % intervals over patients, and the calibration.

    Args:
        predictions: one row per image with image_id, patient_id, split, label (0 or 1), probability in [0, 1].
        threshold: an image is called malignant where its probability lies above it.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.

    Raises:
        LemlightError: predictions that lack columns, repeat images, mix splits, or hold NaN or logits.
    """
    check_predictions(predictions)
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    patients = predictions["patient_id"].astype(str).to_numpy()
    count = int(np.unique(patients).size)
    values = classification_metrics(truth, probability, threshold)
    draws = {name: np.zeros(0) for name in METRICS}
    if count:
        draws |= bootstrap(
            partial(weighted_metrics, truth, probability, threshold=threshold), patients, resamples=resamples, seed=seed
        )
    figures = {name: estimate(values[name], draws[name], count).to_dict() for name in METRICS}
    return {
        "split": str(predictions["split"].iloc[0]) if len(predictions) else "",
        "images": len(predictions),
        "patients": count,
        "threshold": float(threshold),
        **figures,
        "calibration": {
            "brier": figures["brier"],
            "bins": [part.to_dict() for part in reliability_curve(truth, probability, patients)],
        },
        "interval": _interval_section(draws, resamples, seed),
    }


def _interval_section(draws: dict[str, NDArray[np.float64]], resamples: int, seed: int) -> dict[str, Any]:
    """Return how the intervals were drawn, and how many resamples were dropped since they left a figure undefined."""
    dropped = {name: int(np.isnan(values).sum()) for name, values in draws.items()}
    return {
        "level": LEVEL,
        "method": "percentile bootstrap over patients",
        "resamples": resamples,
        "seed": seed,
        "dropped": dropped,
    }


def write_metrics(summary: dict[str, Any], path: Path) -> None:
    """Write a summary as JSON that has no NaN; an undefined figure is null.

    Raises:
        LemlightError: the file cannot be written.
    """
    write_json(summary, path)


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write predictions.csv: image_id, patient_id, split, label, probability, n_maxima, n_minima, in that order.

    Raises:
        LemlightError: a column is missing, an image is there twice, or the file cannot be written.
    """
    check_predictions(predictions, PREDICTION_COLUMNS)
    with written_aside(path) as aside:
        predictions.loc[:, list(PREDICTION_COLUMNS)].to_csv(aside, index=False)

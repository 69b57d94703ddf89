"""Which method is better? All metrics of all methods on the same images, and the differences of all pairs.

The predictions of every run are brought into one order of the images; all methods are measured on the same resamples
of the patients (and of the seeds), so that a difference is a paired one. What the intervals cover is said in RULES.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.metrics import METRIC_NAMES
from lemlight.metrics.bootstrap import Estimate, bootstrap, estimate, ratio
from lemlight.metrics.classification import AT_A_THRESHOLD, check_scored, weighted_metrics, why_undefined
from lemlight.metrics.significance import (
    SIGNIFICANT,
    Difference,
    PairDifference,
    corrected,
    delong_test,
    drawn_difference,
)

RULES = {
    "seed": {
        "value": "mean over the seeds of a method; a difference is that of two such means",
        "interval": "95 % percentile bootstrap over patients and over seeds jointly: new patients and new trainings. A "
        "method with one seed shows no variation of training, its interval is that of this one network on new "
        "patients. With two to four seeds the part of the training is rough",
    },
    "fold": {
        "value": "mean over the folds, each network on its own test fold; a difference is that of two such means",
        "interval": "95 % percentile bootstrap over patients, given the trained networks: it does not cover new "
        "trainings, as the training sets of the folds overlap and their scatter shows no independent repeats",
    },
}
LOCATED = ("dsc", "pointing")
PRIMARY = (
    "paired bootstrap, every method on the same resamples: two-sided p = 2 (k + 1) / (R + 1), k the smaller of the "
    "numbers of the R differences <= 0 and >= 0; at most 0.05 where the interval excludes 0"
)
CORRECTION = "Holm over all pairs of one metric; the intervals are those of single comparisons, not corrected"
DELONG = "p_delong in differences.csv: clustered DeLong test of the AUCs of two single networks, for information"


@dataclass(frozen=True)
class ScoredRun:
    """What one trained network says of n of the N images.

    images: (n,) their indices.
    truth: (n,) malignant.
    predicted: (n,) predicted malignant at whatever threshold the method has; None where one of them has none.
    located: of the location maps, those of LOCATED that are known (n,), NaN where they are not defined.
    """

    images: NDArray[np.int64]
    truth: NDArray[np.bool_]
    probability: NDArray[np.float64]
    predicted: NDArray[np.bool_] | None
    located: Mapping[str, NDArray[np.float64]]

    def weighted_metrics(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return each metric (R,) for every row of weights (R, n): `classification.METRICS`, the means of `located`."""
        metrics = weighted_metrics(
            self.truth, self.probability, self.truth if self.predicted is None else self.predicted, weights
        )
        if self.predicted is None:
            metrics = {name: values for name, values in metrics.items() if name not in AT_A_THRESHOLD}
        error, every = (self.probability - self.truth) ** 2, np.ones(self.truth.size)
        metrics["brier"] = ratio(weights @ error, weights @ every)
        for name, values in self.located.items():
            known = ~np.isnan(values)
            metrics[name] = ratio(weights @ np.nan_to_num(values), weights @ known.astype(np.float64))
        return metrics


@dataclass(frozen=True)
class ScoredMethods:
    """All methods on the same N images.

    repeat: what the runs of a method are: "seed" (each tested on all images) or "fold" (on its own part of them).
    patients: (N,) of the images, which are sorted by their image_id.
    runs: of every method, in the order of the table, by seed or fold.
    """

    repeat: str
    patients: NDArray[np.str_]
    runs: Mapping[str, Mapping[str, ScoredRun]]

    @property
    def patient_count(self) -> int:
        """How many patients the images are of."""
        return int(np.unique(self.patients).size)


def read_methods(predictions: pd.DataFrame) -> ScoredMethods:
    """Return the predictions in one order of the images.

    Args:
        predictions: one row per method, run and image with method, either seed or fold, image_id, patient_id, label
            (0 or 1), probability in [0, 1], prediction (1 where predicted malignant) if there is a threshold, and dsc
            and pointing (NaN where the image has no lesion) if localized.

    Raises:
        LemlightError: all that is wrong with the table, in numbers: repeated rows, labels, patients, folds or images
            with a Dice that differ between methods; other images.
    """
    repeat = "fold" if "fold" in predictions else "seed"
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    frame = predictions.astype(dict.fromkeys(("method", repeat, "image_id", "patient_id"), str))
    frame = frame.assign(label=truth, probability=probability)
    if problems := _disagreements(frame, repeat):
        raise LemlightError("cannot compare these methods: " + "; ".join(problems))
    images = frame.drop_duplicates("image_id").sort_values("image_id")
    image_ids = images["image_id"].to_numpy(dtype=np.str_)
    runs: dict[str, dict[str, ScoredRun]] = {}
    for method, of_method in frame.groupby("method", sort=False):
        runs[str(method)] = {
            str(name): ScoredRun(
                images=np.searchsorted(image_ids, part["image_id"].to_numpy(dtype=np.str_)).astype(np.int64),
                truth=part["label"].to_numpy(dtype=np.bool_),
                probability=part["probability"].to_numpy(dtype=np.float64),
                predicted=part["prediction"].to_numpy(dtype=np.bool_) if "prediction" in part else None,
                located={name: part[name].to_numpy(dtype=np.float64) for name in LOCATED if name in part},
            )
            for name, part in of_method.sort_values("image_id").groupby(repeat)
        }
    return ScoredMethods(repeat, images["patient_id"].to_numpy(dtype=np.str_), runs)


def _disagreements(frame: pd.DataFrame, repeat: str) -> list[str]:
    """Say in numbers, without the name of an image or a patient, where methods cannot be compared."""
    problems = []
    once = ["method"] if repeat == "fold" else ["method", "seed"]  # what tests every image once
    if twice := frame.loc[frame.duplicated([*once, "image_id"]), "image_id"].nunique():
        problems.append(f"{_images(twice)} several times in one {' and '.join(once)}")
    shared = {name: f"another {name} in another method" for name in ("label", "patient_id")}
    if repeat == "fold":
        shared["fold"] = "another fold in another method"
        folds = frame.groupby(["method", "patient_id"])["fold"].nunique()
        if torn := folds[folds > 1].index.unique("patient_id").size:
            problems.append(f"{torn} patients are in several folds: networks were tested on patients they learned from")
    if "dsc" in frame:
        shared["dsc"] = "a Dice in some methods only"
        frame = frame.assign(dsc=frame["dsc"].notna())
    for column, what in shared.items():
        if differing := int((frame.groupby("image_id")[column].nunique() > 1).sum()):
            problems.append(f"{_images(differing)} with {what}")
    every = frame["image_id"].nunique()
    unit = frame["method"] if repeat == "fold" else frame["method"] + " (seed " + frame["seed"] + ")"
    tested = frame.groupby(unit, sort=False)["image_id"].nunique()
    lacking = [f"{name} lacks {every - images} of {every}" for name, images in tested[tested < every].items()]
    if lacking:
        problems.append(
            f"not all were tested on the same images: {', '.join(lacking)}; test them on the same split of the same "
            "data set"
        )
    return problems


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


Draws = Mapping[tuple[str, str], NDArray[np.float64]]
"""(method, metric) -> the metric (R,) on every resample."""


def draw_metrics(methods: ScoredMethods, resamples: int, seed: int) -> Draws:
    """Return every metric of every method on resamples of the patients, the same ones for all methods.

    Seeds are drawn anew as well, for every method independently of the others, as the same seed does not make two
    methods alike. Folds are not: they are parts of the one set of images, whose patients are drawn.

    Raises:
        LemlightError: fewer resamples than a 95 % interval needs.
    """

    def statistics(weights: NDArray[np.float64]) -> dict[tuple[str, str], NDArray[np.float64]]:
        rows = {}
        for method, runs in methods.runs.items():
            of_runs = [run.weighted_metrics(weights[:, run.images]) for run in runs.values()]
            for metric in of_runs[0]:
                rows[method, metric] = np.stack([one[metric] for one in of_runs], axis=1)
        return rows

    parts = {}
    for method, runs in methods.runs.items():
        parts[method] = np.full((1, len(runs)), 1 / len(runs))
        if methods.repeat == "seed":
            # Only the name (in either case: LEM and lem draw alike) and the seed decide: a pair's result is the same
            # whatever else is in the table.
            generator = np.random.default_rng([seed, *method.upper().encode()])
            parts[method] = seed_weights(len(runs), resamples, generator)
    rows = bootstrap(statistics, methods.patients, resamples=resamples, seed=seed)
    return {(method, metric): (drawn * parts[method]).sum(axis=1) for (method, metric), drawn in rows.items()}


def seed_weights(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return for every resample the weight of each of `count` seeds in the mean, (R, count), rows of sum 1.

    Seeds are drawn with replacement; the deviations from equal weights are stretched by sqrt(S / (S - 1)), without
    which S seeds would show only (S - 1) / S of their variance (Rao and Wu, Journal of the American Statistical
    Association 1988). One seed has weight 1: its variation cannot be seen.
    """
    if count == 1:
        return np.ones((resamples, 1))
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    return np.asarray(1 / count + (count / (count - 1)) ** 0.5 * (drawn - 1 / count))


Values = Mapping[tuple[str, str], Estimate]
"""(method, metric) -> the mean over the runs of the method with its interval."""


@dataclass(frozen=True)
class Comparison:
    """All metrics of all methods, all differences of all pairs, and how they were found."""

    values: Values
    pairs: tuple[PairDifference, ...]
    images: int
    patients: int
    resamples: int
    seed: int
    rules: Mapping[str, str]
    """What the intervals and p-values are and what they cover, in words."""


def compare_methods(predictions: pd.DataFrame, *, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Return the metrics of every method and the differences of every pair.

    Args:
        predictions: one row per method, run and image, see `read_methods`.
        resamples: of the bootstrap: the smallest p-value is 2 / (resamples + 1).
        seed: of the bootstrap.

    Raises:
        LemlightError: a table that `read_methods` refuses; too few resamples for any of so many comparisons to show.
    """
    methods = read_methods(predictions)
    comparisons = len(methods.runs) * (len(methods.runs) - 1) // 2
    if resamples + 1 < (needed := int(2 * comparisons / SIGNIFICANT)):
        raise LemlightError(
            f"with {resamples} resamples no difference could show after correction for {comparisons} comparisons: "
            f"take at least {5 * needed}"
        )
    draws = draw_metrics(methods, resamples, seed)
    metrics = [metric for metric in METRIC_NAMES if any(metric == drawn for _, drawn in draws)]
    values = {(method, metric): _mean(methods, method, metric, draws) for method in methods.runs for metric in metrics}
    pairs = tuple(pair for metric in metrics for pair in _pairs(methods, metric, values, draws))
    rules = {**RULES[methods.repeat], "p": PRIMARY, "correction": CORRECTION}
    return Comparison(
        values=values,
        pairs=pairs,
        images=methods.patients.size,
        patients=methods.patient_count,
        resamples=resamples,
        seed=seed,
        rules=rules | ({"delong": DELONG} if any(pair.p_delong is not None for pair in pairs) else {}),
    )


def _mean(methods: ScoredMethods, method: str, metric: str, draws: Draws) -> Estimate:
    runs = methods.runs[method]
    values = {name: float(run.weighted_metrics(np.ones((1, run.truth.size)))[metric][0]) for name, run in runs.items()}
    undefined = [name for name, value in values.items() if np.isnan(value)]  # one of them undoes the mean
    reason = why_undefined(metric, runs[undefined[0]].truth) if undefined else ""
    if undefined and methods.repeat == "fold":
        reason = f"fold {undefined[0]}: {reason}"
    drawn = np.clip(draws[method, metric], 0, 1)  # stretched deviations of the seeds may leave the range
    return estimate(float(np.mean(list(values.values()))), drawn, methods.patient_count, reason)


def _pairs(methods: ScoredMethods, metric: str, values: Values, draws: Draws) -> list[PairDifference]:
    found: dict[tuple[str, str], Difference] = {}
    for first, second in combinations(methods.runs, 2):
        one, other = values[first, metric], values[second, metric]
        if one.value is None or other.value is None:
            reason = one.reason if one.value is None else other.reason
            found[first, second] = Difference(Estimate(None, reason=reason), None)
        else:
            drawn = draws[first, metric] - draws[second, metric]
            found[first, second] = drawn_difference(one.value - other.value, drawn, methods.patient_count)
    pairs = corrected(metric, found)
    if metric != "auroc":
        return pairs
    return [replace(pair, p_delong=_delong(methods, pair.first, pair.second)) for pair in pairs]


def _delong(methods: ScoredMethods, first: str, second: str) -> float | None:
    """Test two single networks, whose images are in the same order; means over seeds have no such test."""
    runs = [*methods.runs[first].values(), *methods.runs[second].values()]
    if methods.repeat == "fold" or len(runs) > 2:
        return None
    return delong_test(runs[0].truth, runs[0].probability, runs[1].probability, methods.patients)

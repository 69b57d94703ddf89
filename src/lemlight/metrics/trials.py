"""What one trained network said of N images, and its figures for many weightings of them."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.bootstrap import Undefined, bootstrap
from lemlight.metrics.classification import (
    METRICS,
    check_scored,
    classification_metrics,
    weighted_auroc,
    weighted_metrics,
)


@dataclass(frozen=True)
class Outcomes:
    """The images in an order that all methods share."""

    truth: NDArray[np.bool_]
    """(N,) malignant."""
    probability: NDArray[np.float64]
    """(N,) of malignancy."""
    called: NDArray[np.bool_]
    """(N,) called malignant, at whatever threshold the method has."""
    dsc: NDArray[np.float64] | None = None
    """(N,) Dice of the location map, NaN where it is not defined; None where nothing was localized."""


Metric = Callable[[Outcomes, NDArray[np.float64]], NDArray[np.float64]]
"""A figure (R,) of outcomes for every row of weights (R, N); NaN where the weighted images do not define it."""


def weighted_figures(outcomes: Outcomes, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return for every row of weights (R, N), counts of the N images, each figure (R,); NaN is undefined.

    The figures are those of `classification.METRICS`, and `dsc`, the mean Dice, where there is one.
    """
    # A call is a probability of 0 or 1: so the figures of the calls come from the lines that metrics.json comes from.
    figures = weighted_metrics(outcomes.truth, outcomes.called.astype(np.float64), weights, 0.5)
    figures["auroc"] = weighted_auroc(outcomes.truth, outcomes.probability, weights)
    figures["brier"] = _mean((outcomes.probability - outcomes.truth) ** 2, np.ones(outcomes.truth.size), weights)
    if outcomes.dsc is not None:
        figures["dsc"] = _mean(np.nan_to_num(outcomes.dsc), (~np.isnan(outcomes.dsc)).astype(np.float64), weights)
    return figures


def named_metric(name: str) -> Metric:
    """Return the metric of that name: one of `classification.METRICS`, or dsc.

    Raises:
        LemlightError: there is none of that name.
    """
    if name not in (*METRICS, "dsc"):
        raise LemlightError(f"no metric is called {name!r}: take one of {', '.join((*METRICS, 'dsc'))}")

    def metric(outcomes: Outcomes, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        figures: Mapping[str, NDArray[np.float64]] = weighted_figures(outcomes, weights)
        if name not in figures:
            raise LemlightError("there is no Dice to compare: these outcomes have no dsc")
        return figures[name]

    return metric


def _mean(
    values: NDArray[np.float64], counted: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weighted mean (R,) of the values (N,) that are counted (N,), NaN where none of them has weight."""
    part, whole = weights @ (values * counted), weights @ counted
    mean = np.full(part.shape, np.nan)
    np.divide(part, whole, out=mean, where=whole > 0)
    return mean


COLUMNS = ("method", "image_id", "patient_id", "label", "probability", "prediction")
REPEATS = ("seed", "fold")
NAMED = 3  # image ids that a message names


@dataclass(frozen=True)
class Training:
    """One network of a method, tested on some or all of the N images."""

    name: str
    """Its seed or fold."""
    images: NDArray[np.int64]
    """(n,) indices of the images."""
    outcomes: Outcomes
    """Of these n images."""


@dataclass(frozen=True)
class Trials:
    """All methods on the same N images."""

    repeat: str
    """What the trainings of a method are: "seed" (each tested on all images) or "fold" (on its own part of them)."""
    image_ids: NDArray[np.str_]
    """(N,) sorted."""
    patients: NDArray[np.str_]
    """(N,)."""
    methods: Mapping[str, tuple[Training, ...]]
    """In the order of the table."""
    images_left_out: int
    """Images that some method lacks, when only the common ones are compared."""


def read_trials(predictions: pd.DataFrame, *, common_only: bool = False) -> Trials:
    """Return the predictions in one order of the images.

    Args:
        predictions: one row per method, training and image with method, either seed or fold, image_id, patient_id,
            label (0 or 1), probability in [0, 1], prediction (1 where called malignant), and, if localized, dsc
            (NaN where the image has no lesion).
        common_only: leave out images that some method lacks instead of refusing.

    Raises:
        LemlightError: all that is wrong with the table, with counts and a few image ids: columns, values, repeated
            rows, labels, patients, folds or images with a Dice that differ between methods; other images.
    """
    repeat = _repeat(predictions)
    frame = _plain(predictions, repeat)
    problems = _disagreements(frame, repeat)
    # With seeds every training must have all images, with folds every method.
    unit = ["method"] if repeat == "fold" else ["method", "seed"]
    tested = {_unit_name(*key): frozenset(part["image_id"]) for key, part in frame.groupby(unit, sort=False)}
    every, common = frozenset().union(*tested.values()), frozenset.intersection(*tested.values())
    if len(common) < len(every) and not common_only:
        problems.append(_other_images(tested, every))
    if not common:
        problems.append("no image was tested by all methods")
    if problems:
        raise LemlightError("cannot compare these methods: " + "; ".join(problems))
    return _trials(frame[frame["image_id"].isin(common)], repeat, len(every) - len(common))


def _repeat(predictions: pd.DataFrame) -> str:
    """Return which column tells the trainings of a method apart, after a look at the columns."""
    repeats = [column for column in REPEATS if column in predictions.columns]
    missing = [column for column in COLUMNS if column not in predictions.columns]
    if missing or len(repeats) != 1:
        wrong = [f"lacks the columns {', '.join(missing)}"] if missing else []
        wrong += [] if len(repeats) == 1 else [f"needs a column seed or a column fold, and has {len(repeats)} of them"]
        raise LemlightError(f"the table of predictions {'; '.join(wrong)}")
    if predictions.empty:
        raise LemlightError("the table of predictions has no rows: there is nothing to compare")
    return repeats[0]


def _plain(predictions: pd.DataFrame, repeat: str) -> pd.DataFrame:
    """Return the columns that count, with plain types."""
    names = ["method", repeat, "image_id", "patient_id"]
    empty = [name for name in names if predictions[name].isna().any()]
    if empty:
        raise LemlightError(f"the table of predictions has rows without {', '.join(empty)}")
    frame = predictions[names].astype(str)
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    called = pd.to_numeric(predictions["prediction"], errors="coerce").to_numpy(dtype=np.float64)
    if not np.all((called == 0) | (called == 1)):
        raise LemlightError("prediction must be 1 where the image is called malignant and 0 elsewhere")
    frame = frame.assign(label=truth, probability=probability, prediction=called.astype(bool))
    if "dsc" in predictions.columns:
        frame["dsc"] = pd.to_numeric(predictions["dsc"], errors="coerce")
        if not frame["dsc"].dropna().between(0, 1).all():
            raise LemlightError("dsc must lie in [0, 1], or be empty where the image has no lesion")
    return frame


def _disagreements(frame: pd.DataFrame, repeat: str) -> list[str]:
    problems = []
    # In folds a method tests an image once, whichever the fold.
    once = ["method"] if repeat == "fold" else ["method", "seed"]
    if (twice := frame.duplicated([*once, "image_id"])).any():
        problems.append(f"{_images(frame.loc[twice, 'image_id'])} several times in one {' and '.join(once)}")
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
        several = frame.groupby("image_id")[column].nunique()
        if (differs := several[several > 1]).size:
            problems.append(f"{_images(differs.index)} with {what}")
    return problems


def _other_images(tested: Mapping[str, frozenset[str]], every: frozenset[str]) -> str:
    lines = [
        f"{name} lacks {_images(sorted(every - own))} of {len(every)}" for name, own in tested.items() if own != every
    ]
    return f"not all were tested on the same images: {', '.join(lines)}; compare on the common ones with common_only"


def _images(image_ids: Iterable[str]) -> str:
    names = [str(name) for name in dict.fromkeys(image_ids)]
    shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} images ({shown})" if len(names) > 1 else f"1 image ({shown})"


def _unit_name(method: Hashable, seed: Hashable = None) -> str:
    return str(method) if seed is None else f"{method} (seed {seed})"


def _trials(frame: pd.DataFrame, repeat: str, left_out: int) -> Trials:
    first = frame.drop_duplicates("image_id").sort_values("image_id")
    image_ids = first["image_id"].to_numpy(dtype=np.str_)
    methods: dict[str, tuple[Training, ...]] = {}
    for method, of_method in frame.groupby("method", sort=False):
        parts = of_method.sort_values("image_id").groupby(repeat)
        methods[str(method)] = tuple(_training(str(name), part, image_ids) for name, part in parts)
    return Trials(repeat, image_ids, first["patient_id"].to_numpy(dtype=np.str_), methods, left_out)


def _training(name: str, part: pd.DataFrame, image_ids: NDArray[np.str_]) -> Training:
    outcomes = Outcomes(
        truth=part["label"].to_numpy(dtype=np.bool_),
        probability=part["probability"].to_numpy(dtype=np.float64),
        called=part["prediction"].to_numpy(dtype=np.bool_),
        dsc=part["dsc"].to_numpy(dtype=np.float64) if "dsc" in part else None,
    )
    images = np.searchsorted(image_ids, part["image_id"].to_numpy(dtype=np.str_))
    return Training(name, images.astype(np.int64), outcomes)


Draws = Mapping[tuple[str, str], NDArray[np.float64]]
"""(method, metric) -> the figure (R,) of every resample."""


def training_values(outcomes: Outcomes) -> dict[str, float | Undefined]:
    """Return every figure of one training on its own images."""
    figures = weighted_figures(outcomes, np.ones((1, outcomes.truth.size)))
    known = classification_metrics(outcomes.truth, outcomes.probability)  # for the reasons: they come from the labels
    values: dict[str, float | Undefined] = {}
    for name, row in figures.items():
        reason = known.get(name, Undefined("no image with a Dice"))
        values[name] = reason if np.isnan(row[0]) and isinstance(reason, Undefined) else float(row[0])
    return values


def mean_value(values: Mapping[str, float | Undefined], repeat: str) -> float | Undefined:
    """Return the mean over the trainings of a method, named by their seed or fold; one without a value undoes it."""
    for name, value in values.items():
        if isinstance(value, Undefined):
            return Undefined(f"{repeat} {name}: {value.reason}" if repeat == "fold" else value.reason)
    return float(np.mean(list(values.values())))


def draw_figures(trials: Trials, resamples: int, seed: int) -> Draws:
    """Return every figure of every method on resamples of the patients, the same ones for all methods.

    Seeds are drawn anew as well, for every method independently of the others, as the same seed does not make two
    methods alike. Folds are not: they are parts of the one set of images, whose patients are drawn.

    Raises:
        LemlightError: fewer resamples than a 95 % interval needs.
    """

    def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {
            f"{method}\n{place}\n{name}": row
            for method, trainings in trials.methods.items()
            for place, training in enumerate(trainings)
            for name, row in weighted_figures(training.outcomes, weights[:, training.images]).items()
        }

    rows = bootstrap(statistics, trials.patients, resamples=resamples, seed=seed)
    draws: dict[tuple[str, str], NDArray[np.float64]] = {}
    for method, trainings in trials.methods.items():
        count = len(trainings)
        # Only the name and the seed decide: a pair's result is the same whatever else is in the table.
        generator = np.random.default_rng([seed, *method.encode()])
        shares = seed_shares(count, resamples, generator) if trials.repeat == "seed" else np.full((1, count), 1 / count)
        for name in weighted_figures(trainings[0].outcomes, np.ones((1, trainings[0].images.size))):
            figures = np.stack([rows[f"{method}\n{place}\n{name}"] for place in range(count)], axis=1)
            draws[method, name] = (figures * shares).sum(axis=1)
    return draws


def seed_shares(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return for every resample the weight of each of `count` seeds in the mean, (R, count), rows of sum 1.

    Seeds are drawn with replacement; the deviations from equal weights are stretched by sqrt(S / (S - 1)), without
    which S seeds would show only (S - 1) / S of their variance (Rao and Wu, Journal of the American Statistical
    Association 1988). One seed has weight 1: its variation cannot be seen.
    """
    if count == 1:
        return np.ones((resamples, 1))
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    return np.asarray(1 / count + (count / (count - 1)) ** 0.5 * (drawn - 1 / count))

"""Holm's correction of the p-values of several comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.bootstrap import LEVEL, Estimate, Undefined, bootstrap, estimate, too_few
from lemlight.metrics.delong import DeLong, delong_test
from lemlight.metrics.trials import (
    Draws,
    Metric,
    Outcomes,
    Trials,
    draw_figures,
    mean_value,
    named_metric,
    read_trials,
    training_values,
)


class Holm(NamedTuple):
    """What the correction makes of K p-values, in the order in which they were given."""

    p_corrected: NDArray[np.float64]
    """(K,) in [0, 1]: those up to 0.05 are significant with an error of 5 % over all comparisons together."""
    rank: NDArray[np.int64]
    """(K,) 1 for the smallest p-value; equal ones keep their order."""


def holm(p_values: ArrayLike) -> Holm:
    """Return the corrected p-values of K comparisons (Holm, Scandinavian Journal of Statistics 1979).

    The k-th smallest is multiplied by K + 1 - k, raised to the largest before it, and cut at 1. Unlike Bonferroni's,
    the correction is never larger than needed, and it holds whatever the dependence of the comparisons.

    Raises:
        LemlightError: values (K,) that are no probabilities.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise LemlightError(f"p-values must be one row of numbers in [0, 1], got shape {p.shape}: {p}")
    order = np.argsort(p, kind="stable")
    grown = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    corrected, rank = np.empty(p.size), np.empty(p.size, dtype=np.int64)
    corrected[order] = grown
    rank[order] = np.arange(1, p.size + 1)
    return Holm(corrected, rank)


CONSTANT = 1e-12  # draws closer together than this differ by rounding only


@dataclass(frozen=True)
class Difference:
    """First minus second with its 95 % interval and two-sided p-value; what is unknown is None and has a reason."""

    estimate: Estimate
    p: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return value, low, high, p, with a reason where one of them is null."""
        return self.estimate.to_dict() | {"p": self.p}


def paired_bootstrap(
    metric: str | Metric,
    first: Outcomes,
    second: Outcomes,
    patients: ArrayLike,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the difference of a metric of two methods, both measured on the same resamples of the patients.

    Args:
        metric: its name (acc, auroc, sensitivity, specificity, f1, brier, dsc), or a function of outcomes and weights.
        first: what the first method said of the N images.
        second: what the second method said of the same images in the same order.
        patients: (N,) the patient of every image, drawn together or not at all.
        resamples: of the bootstrap; the smallest p-value is 2 / (resamples + 1).
        seed: of the bootstrap.

    Raises:
        LemlightError: other images, an unknown metric, too few resamples for a 95 % interval.
    """
    owners = np.asarray(patients).astype(str)
    if first.truth.size == 0 or not np.array_equal(first.truth, second.truth) or owners.shape != first.truth.shape:
        raise LemlightError("a paired comparison needs the same images with the same labels, and a patient for each")
    measure = named_metric(metric) if isinstance(metric, str) else metric
    one, other = (measure(outcomes, np.ones((1, first.truth.size)))[0] for outcomes in (first, second))
    draws = bootstrap(
        lambda weights: {"difference": measure(first, weights) - measure(second, weights)},
        owners,
        resamples=resamples,
        seed=seed,
    )["difference"]
    if np.isnan(one - other):
        return Difference(Estimate(None, reason="the images do not define the metric"), None)
    return drawn_difference(float(one - other), draws, np.unique(owners).size)


def drawn_difference(value: float, draws: NDArray[np.float64], patients: int) -> Difference:
    """Return the difference with the interval and the p-value of its draws (R,), of which NaN are dropped.

    With R draws left, p = min(1, 2 (k + 1) / (R + 1)), k the smaller of the numbers of draws <= 0 and of draws >= 0,
    and the interval goes from the j-th smallest to the j-th largest draw, j = floor(0.025 (R + 1)). So 0 lies outside
    of the interval if and only if p <= 0.05 (Davison and Hinkley, Bootstrap Methods and their Application, 1997).

    Draws that are all 0 (two methods that do the same) give p = 1 and no interval. Draws that are all alike but not
    0 (one method right, the other wrong on every image) give neither: the bootstrap cannot tell how certain that is.
    """
    drawn = np.sort(draws[~np.isnan(draws)])
    drawn[np.abs(drawn) < CONSTANT] = 0  # equal figures are a draw of 0, whatever their rounding
    place = int((1 - LEVEL) / 2 * (drawn.size + 1) + 1e-9)
    reason = too_few(drawn.size, draws.size, patients)
    if not reason and place < 1:
        reason = f"{drawn.size} resamples that define the difference are too few for a 95 % interval"
    if reason:
        return Difference(Estimate(value, reason=reason), None)
    if np.ptp(drawn) < CONSTANT:
        reason = "every resample gives the same difference: the bootstrap cannot tell how certain it is"
        return Difference(Estimate(value, reason=reason), None if drawn[0] else 1.0)
    tail = int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0))
    p = min(1.0, 2 * (min(tail) + 1) / (drawn.size + 1))
    return Difference(Estimate(value, float(drawn[place - 1]), float(drawn[-place])), p)


SIGNIFICANT = 0.05

METRIC_NAMES = {
    "auroc": "AUC",
    "acc": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "brier": "Brier score",
    "dsc": "Dice",
}
LOWER_IS_BETTER = ("brier",)


def sentence(
    metric: str, first: str, second: str, difference: Difference, p_corrected: float | None, comparisons: int
) -> str:
    """Return what the difference (first minus second) says, and no more.

    A difference is claimed where the corrected p-value is at most 0.05. Its interval is the 95 % interval of this
    one comparison; where it excludes 0 but the correction undoes that, the sentence says so.
    """
    name, estimate = METRIC_NAMES[metric], difference.estimate
    if estimate.value is None or difference.p is None or p_corrected is None:
        return f"{name} of {first} and {second} cannot be tested: {estimate.reason}"
    number = _signed(estimate.value)
    if estimate.low is not None and estimate.high is not None:
        number += f" [{_rounded(estimate.low)}, {_rounded(estimate.high)}]"
    tested = f"{number}, {p_text(p_corrected)}"
    if comparisons > 1:
        tested += f" after correction for {comparisons} comparisons"
    if p_corrected > SIGNIFICANT:
        undone = f" ({p_text(difference.p)} before)" if difference.p <= SIGNIFICANT else ""
        return f"no difference in {name} shown between {first} and {second}: {tested}{undone}"
    direction = "higher" if estimate.value > 0 else "lower"
    verdict = ""
    if metric in LOWER_IS_BETTER:
        verdict = " (worse)" if estimate.value > 0 else " (better)"
    return f"{first} has a {direction} {name}{verdict} than {second}: {tested}"


def p_text(p: float) -> str:
    """Return a p-value as papers print it; rounding never carries it across 0.05."""
    if p < 0.001:
        return "p < 0.001"
    if round(p, 3) == SIGNIFICANT and p > SIGNIFICANT:
        return "p > 0.050"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"


def _rounded(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no -0.000


@dataclass(frozen=True)
class MethodFigure:
    """One figure of one method: mean over its trainings with interval, and the value of every training."""

    method: str
    metric: str
    figure: Estimate
    per_training: Mapping[str, float | None]
    """Seed or fold -> value, None where it is undefined."""

    def to_dict(self) -> dict[str, Any]:
        """Return method, metric, value, low, high, per_training, with a reason where one of them is null."""
        head = {"method": self.method, "metric": self.metric}
        return head | self.figure.to_dict() | {"per_training": dict(self.per_training)}


@dataclass(frozen=True)
class PairDifference:
    """The difference, first minus second, of one metric of two methods."""

    metric: str
    first: str
    second: str
    difference: Difference
    """With the primary p-value, before correction."""
    p_corrected: float | None
    """After Holm's correction for `comparisons`; the one that decides."""
    rank: int | None
    """Of the p-value among all pairs of this metric, 1 for the smallest."""
    comparisons: int
    """Pairs of this metric that have a p-value."""
    delong: DeLong | None
    """AUC of seeds only: the test of the two ensembles, for information."""
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "metric": self.metric,
            "first": self.first,
            "second": self.second,
            **self.difference.to_dict(),
            "p_corrected": self.p_corrected,
            "rank": self.rank,
            "comparisons": self.comparisons,
            "delong": None if self.delong is None else self.delong.to_dict(),
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Comparison:
    """All figures of all methods, all differences of all pairs, and how they were found."""

    figures: tuple[MethodFigure, ...]
    pairs: tuple[PairDifference, ...]
    images: int
    patients: int
    images_left_out: int
    repeat: str
    """What the trainings of a method are: "seed" or "fold"."""
    resamples: int
    seed: int
    rules: Mapping[str, str]
    """What the intervals and p-values are and what they cover, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, without NaN."""
        return {
            "images": self.images,
            "patients": self.patients,
            "images_left_out": self.images_left_out,
            "repeat": self.repeat,
            "figures": [figure.to_dict() for figure in self.figures],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "rules": dict(self.rules),
            "resamples": self.resamples,
            "seed": self.seed,
        }


Values = dict[tuple[str, str], float | Undefined]

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
PRIMARY = (
    "paired bootstrap, every method on the same resamples: two-sided p = 2 (k + 1) / (R + 1), k the smaller of the "
    "numbers of the R differences <= 0 and >= 0; at most 0.05 where the interval excludes 0"
)
CORRECTION = "Holm over all pairs of one metric; the intervals are those of single comparisons, not corrected"
DELONG = "for information: clustered DeLong test of the probabilities averaged over the seeds, given these networks"


def compare_methods(
    predictions: pd.DataFrame, *, common_only: bool = False, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Return the figures of every method and the differences of every pair, as the head of this file explains.

    Args:
        predictions: one row per method, training and image, see `read_trials`.
        common_only: leave out images that some method lacks instead of refusing.
        resamples: of the bootstrap: the smallest p-value is 2 / (resamples + 1).
        seed: of the bootstrap.

    Raises:
        LemlightError: a table that `read_trials` refuses; too few resamples for any of so many comparisons to show.
    """
    trials = read_trials(predictions, common_only=common_only)
    names = list(trials.methods)
    _check_resamples(len(names) * (len(names) - 1) // 2, resamples)
    draws = draw_figures(trials, resamples, seed)
    figures, values = _figures(trials, draws)
    metrics = [metric for metric in METRIC_NAMES if (names[0], metric) in values]
    pairs = [pair for metric in metrics for pair in _pairs(trials, metric, values, draws)]
    return Comparison(
        figures=tuple(figures),
        pairs=tuple(pairs),
        images=trials.image_ids.size,
        patients=_patients(trials),
        images_left_out=trials.images_left_out,
        repeat=trials.repeat,
        resamples=resamples,
        seed=seed,
        rules=RULES[trials.repeat]
        | {"p": PRIMARY, "correction": CORRECTION}
        | ({"delong": DELONG} if trials.repeat == "seed" else {}),
    )


def _check_resamples(comparisons: int, resamples: int) -> None:
    needed = int(2 * comparisons / SIGNIFICANT)
    if resamples + 1 < needed:
        raise LemlightError(
            f"with {resamples} resamples no difference could show after correction for {comparisons} comparisons: "
            f"take at least {5 * needed}"
        )


def _patients(trials: Trials) -> int:
    return int(np.unique(trials.patients).size)


def _figures(trials: Trials, draws: Draws) -> tuple[list[MethodFigure], Values]:
    figures: list[MethodFigure] = []
    means: Values = {}
    for method, trainings in trials.methods.items():
        per_training = {training.name: training_values(training.outcomes) for training in trainings}
        for metric in (name for name in METRIC_NAMES if (method, name) in draws):
            values = {name: figures_of[metric] for name, figures_of in per_training.items()}
            means[method, metric] = mean_value(values, trials.repeat)
            # Stretched deviations of the seeds may leave the range of the figure.
            drawn = np.clip(draws[method, metric], 0, 1)
            known = {name: None if isinstance(value, Undefined) else value for name, value in values.items()}
            figure = estimate(means[method, metric], drawn, _patients(trials))
            figures.append(MethodFigure(method, metric, figure, known))
    return figures, means


def _pairs(trials: Trials, metric: str, values: Values, draws: Draws) -> list[PairDifference]:
    pairs = list(combinations(trials.methods, 2))
    differences = [_difference(trials, metric, pair, values, draws) for pair in pairs]
    tested = {place: difference.p for place, difference in enumerate(differences) if difference.p is not None}
    corrected = holm(list(tested.values()))
    p_corrected: dict[int, float] = dict(zip(tested, corrected.p_corrected.tolist(), strict=True))
    rank: dict[int, int] = dict(zip(tested, corrected.rank.tolist(), strict=True))
    return [
        PairDifference(
            metric=metric,
            first=first,
            second=second,
            difference=differences[place],
            p_corrected=p_corrected.get(place),
            rank=rank.get(place),
            comparisons=len(tested),
            delong=_delong(trials, first, second) if metric == "auroc" and trials.repeat == "seed" else None,
            sentence=sentence(metric, first, second, differences[place], p_corrected.get(place), len(tested)),
        )
        for place, (first, second) in enumerate(pairs)
    ]


def _difference(trials: Trials, metric: str, pair: tuple[str, str], values: Values, draws: Draws) -> Difference:
    first, second = values[pair[0], metric], values[pair[1], metric]
    if isinstance(first, Undefined):
        return Difference(Estimate(None, reason=first.reason), None)
    if isinstance(second, Undefined):
        return Difference(Estimate(None, reason=second.reason), None)
    return drawn_difference(first - second, draws[pair[0], metric] - draws[pair[1], metric], _patients(trials))


def _delong(trials: Trials, first: str, second: str) -> DeLong:
    """Test the mean probabilities over the seeds of two methods, whose images are in the same order."""
    one, other = (
        np.mean([training.outcomes.probability for training in trials.methods[name]], axis=0)
        for name in (first, second)
    )
    return delong_test(trials.methods[first][0].outcomes.truth, one, other, trials.patients)

"""The figure of a method over its trainings, and how it varies over patients and trainings."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lemlight.metrics.classification import classification_metrics
from lemlight.metrics.comparison.outcomes import Outcomes, weighted_figures
from lemlight.metrics.comparison.table import Trials
from lemlight.metrics.estimate import Undefined
from lemlight.metrics.intervals import bootstrap

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

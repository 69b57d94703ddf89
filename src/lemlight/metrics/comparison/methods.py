"""All methods that were tested on the same images: figures, differences of all pairs, and what they say.

With a column seed, all trainings are tested on all images. A method's value is its mean over the seeds; interval
and primary p-value come from one bootstrap that draws patients (the same for all methods) and seeds (of each
method for itself), so that they speak of new patients and of new trainings. How often such a test at 5 % errs
(simulated, 400 runs, a mean over 100 patients): 4 % or less with two to five seeds that scatter no more than
patients do, since what patients and seeds do together is counted more than once; with three times that scatter
11 % with two seeds, 5 % with three or five. One seed shows no scatter of trainings at all: read as a statement on
methods and not on two networks, its test errs in 11 % and 40 % of these cases.
DeLong's test, second, takes the mean probability over the seeds: the two ensembles, given these networks.

With a column fold, every network is tested on its own part of the images. The value is the mean over the folds,
not the figure of the pooled predictions, since probabilities of different networks have no common scale for an
AUC. Patients are drawn, folds are not: their training sets overlap, and no unbiased estimate of their variance
exists (Bengio and Grandvalet, Journal of Machine Learning Research 2004). There is no DeLong's test.

The bootstrap's p-value is the primary one for every metric, as it agrees with the interval shown. Holm's
correction goes over all pairs of one metric.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from lemlight.errors import LemlightError
from lemlight.metrics.comparison.correction import holm
from lemlight.metrics.comparison.delong import DeLong, delong_test
from lemlight.metrics.comparison.paired import Difference, drawn_difference
from lemlight.metrics.comparison.results import Comparison, MethodFigure, PairDifference
from lemlight.metrics.comparison.sentences import METRIC_NAMES, SIGNIFICANT, sentence
from lemlight.metrics.comparison.table import Trials, read_trials
from lemlight.metrics.comparison.trainings import Draws, draw_figures, mean_value, training_values
from lemlight.metrics.estimate import Estimate, Undefined
from lemlight.metrics.intervals import estimate

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

"""Is a difference of two methods shown? Paired bootstrap, Holm's correction, DeLong's test, and the sentence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from lemlight.metrics import LOWER_IS_BETTER, METRIC_NAMES
from lemlight.metrics.bootstrap import LEVEL, Estimate, too_few

SIGNIFICANT = 0.05
CONSTANT = 1e-12  # draws closer together than this differ by rounding only
NO_VARIANCE = 1e-20  # a variance below it is rounding: that of one changed pair in a million images is larger


@dataclass(frozen=True)
class Difference:
    """First minus second with its 95 % interval and two-sided p-value; what is unknown is None and has a reason."""

    estimate: Estimate
    p: float | None


def drawn_difference(value: float, draws: NDArray[np.float64], patients: int) -> Difference:
    """Return the difference with the interval and the p-value of its draws (R,), of which NaN are dropped.

    With R draws left, p = min(1, 2 (k + 1) / (R + 1)), k the smaller of the numbers of draws <= 0 and of draws >= 0,
    and the interval goes from the j-th smallest to the j-th largest draw, j = floor(0.025 (R + 1)). So 0 lies outside
    of the interval if and only if p <= 0.05 (Davison and Hinkley, Bootstrap Methods and their Application, 1997).

    Draws that are all 0 (two methods that do the same) give p = 1 and no interval. Draws that are all alike but not
    0 (one method right, the other wrong on every image) give neither: the bootstrap cannot tell how certain that is.
    """
    drawn = np.sort(draws[~np.isnan(draws)])
    drawn[np.abs(drawn) < CONSTANT] = 0  # equal values are a draw of 0, whatever their rounding
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


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the corrected p-values of K comparisons (Holm, Scandinavian Journal of Statistics 1979).

    The k-th smallest is multiplied by K + 1 - k, raised to the largest before it, and cut at 1. Unlike Bonferroni's,
    the correction is never larger than needed, and it holds whatever the dependence of the comparisons: those up to
    0.05 are significant with an error of 5 % over all of them together.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(p.size)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1)
    return corrected


def delong_test(
    truth: NDArray[np.bool_], first: NDArray[np.float64], second: NDArray[np.float64], patients: ArrayLike
) -> float | None:
    """Return the two-sided p-value of the difference of the AUCs of two scorers of the same N images.

    The variance is Obuchowski's for clustered data (Biometrics 1997): the structural components
    of DeLong, DeLong and Clarke-Pearson (Biometrics 1988) summed per patient, so that images of one patient may
    depend on one another, also malignant on benign ones. With one image per patient it is DeLong's own variance.
    The difference over its standard error is held against the normal distribution; perfect separation by one scorer
    makes its own variance 0, which is too small, and leaves the test to the variance of the other.

    None where no test is possible: with one class only, with one patient only in a class, and where the variance is 0
    although the AUCs differ. Two scorers that order all pairs alike (one scorer twice, or both without an error) have
    variance 0 and p = 1.

    Args:
        truth: (N,) malignant.
        first: (N,) scores of any scale, higher is more malignant; only their order counts.
        second: (N,) likewise.
        patients: (N,) the patient of every image.
    """
    _, patient = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    if min(np.unique(patient[part]).size for part in (truth, ~truth)) < 2:
        return None
    above_first, below_first = components(truth, first)
    above_second, below_second = components(truth, second)
    difference = float(above_first.mean()) - float(above_second.mean())
    variance = _variance(above_first - above_second, below_first - below_second, patient[truth], patient[~truth])
    if variance < NO_VARIANCE:
        return 1.0 if abs(difference) < NO_VARIANCE**0.5 else None
    return float(2 * norm.sf(abs(difference / variance**0.5)))


def components(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for every malignant and every benign image the fraction of images of the other class in the right order.

    Both have the AUC as their mean. Ties count half. O(N log N) by midranks (Sun and Xu, IEEE Signal Processing
    Letters 2014).
    """
    among_all = rankdata(score)
    malignant, benign = score[truth], score[~truth]
    above = (among_all[truth] - rankdata(malignant)) / benign.size
    below = 1 - (among_all[~truth] - rankdata(benign)) / malignant.size
    return above, below


def _variance(
    malignant: NDArray[np.float64],
    benign: NDArray[np.float64],
    patients_malignant: NDArray[np.int64],
    patients_benign: NDArray[np.int64],
) -> float:
    """Return the variance of the mean of components that are summed per patient, at least two of each class."""
    count = 1 + int(max(patients_malignant.max(), patients_benign.max()))

    def unbiased(clusters: int) -> float:
        return clusters / (clusters - 1)

    x = np.bincount(patients_malignant, malignant - malignant.mean(), minlength=count) / malignant.size
    y = np.bincount(patients_benign, benign - benign.mean(), minlength=count) / benign.size
    with_malignant, with_benign = np.unique(patients_malignant).size, np.unique(patients_benign).size
    variance = unbiased(with_malignant) * (x @ x) + unbiased(with_benign) * (y @ y) + 2 * unbiased(count) * (x @ y)
    return float(variance)


@dataclass(frozen=True)
class PairDifference:
    """The difference, first minus second, of one metric of two methods or subgroups."""

    metric: str
    first: str
    second: str
    difference: Difference
    """With the primary p-value, before correction."""
    p_corrected: float | None
    """After Holm's correction for `comparisons`; the one that decides."""
    comparisons: int
    """Pairs of this metric that have a p-value."""
    p_delong: float | None = None
    """Of DeLong's test, not corrected; AUC of two methods with one seed each only."""

    @property
    def shown(self) -> bool:
        """Whether the difference is claimed."""
        return self.p_corrected is not None and self.p_corrected <= SIGNIFICANT

    @property
    def sentence(self) -> str:
        """What the difference says, and no more.

        It is claimed where the corrected p-value is at most 0.05. Its interval is the 95 % interval of this one
        comparison; where it excludes 0 but the correction undoes that, the sentence says so.
        """
        name, estimate, p = METRIC_NAMES[self.metric], self.difference.estimate, self.difference.p
        if estimate.value is None or p is None or self.p_corrected is None:
            return f"{name} of {self.first} and {self.second} cannot be tested: {estimate.reason}"
        number = _rounded(estimate.value, "+")
        if estimate.low is not None and estimate.high is not None:
            number += f" [{_rounded(estimate.low)}, {_rounded(estimate.high)}]"
        tested = f"{number}, {p_text(self.p_corrected)}"
        if self.comparisons > 1:
            tested += f" after correction for {self.comparisons} comparisons"
        if not self.shown:
            undone = f" ({p_text(p)} before)" if p <= SIGNIFICANT else ""
            return f"no difference in {name} shown between {self.first} and {self.second}: {tested}{undone}"
        higher = estimate.value > 0
        verdict = (" (worse)" if higher else " (better)") if self.metric in LOWER_IS_BETTER else ""
        return f"{self.first} has a {'higher' if higher else 'lower'} {name}{verdict} than {self.second}: {tested}"


def corrected(metric: str, found: Mapping[tuple[str, str], Difference]) -> list[PairDifference]:
    """Correct the p-values of one metric over the pairs, first and second, that have one (see `holm`)."""
    tested = {pair: one.p for pair, one in found.items() if one.p is not None}
    p_corrected = dict(zip(tested, map(float, holm(list(tested.values()))), strict=True))
    return [PairDifference(metric, *pair, one, p_corrected.get(pair), len(tested)) for pair, one in found.items()]


def p_text(p: float) -> str:
    """Return a p-value as papers print it; rounding never carries it across 0.05."""
    if p < 0.001:
        return "p < 0.001"
    if round(p, 3) == SIGNIFICANT and p > SIGNIFICANT:
        return "p > 0.050"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _rounded(value: float, sign: str = "") -> str:
    return f"{round(value, 3) + 0.0:{sign}.3f}"  # + 0.0: no -0.000

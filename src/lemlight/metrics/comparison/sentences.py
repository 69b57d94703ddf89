"""A comparison of two methods in one plain sentence."""

from lemlight.metrics.comparison.paired import Difference

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

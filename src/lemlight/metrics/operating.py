"""Operating points: a threshold that the validation split chose, what the test split would choose, and fixed points.

What a split cannot reach is undefined, with its reason, and never 0.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from lemlight.arguments import Positive
from lemlight.errors import LemlightError
from lemlight.metrics import Level, LevelRule
from lemlight.metrics.bootstrap import ratio

FIXED = 0.9  # the specificity, or sensitivity, at which the other one is reported; the partial AUC lies above it
RULE = re.compile(r"youden|(sensitivity|specificity)@(0?\.\d+|1|1\.0+)")
DEFAULT = 0.5


def checked_threshold(threshold: float | str) -> float | str:
    """Return a threshold in [0, 1] or the name of a rule; ValueError for anything else."""
    if isinstance(threshold, str) and not RULE.fullmatch(threshold):
        raise ValueError("is neither a number from 0 to 1 nor youden, sensitivity@0.9, specificity@0.9")
    if not isinstance(threshold, str) and not 0 <= threshold <= 1:
        raise ValueError("must lie from 0 to 1")
    return threshold


Threshold = Annotated[float | str, AfterValidator(checked_threshold)]


class OperatingPoint(BaseModel):
    """The probability above which something is predicted malignant; None where the images do not reach it.

    sensitivity, specificity: on the images that chose it; None for a threshold that was given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    reason: str = ""


class Operating(BaseModel):
    """What was chosen on the validation split, as a checkpoint holds it: thresholds, and a temperature.

    rule: what the threshold was to be. points: by level; a level that is not there has none. level_rule: by which the
    levels were made. temperature: logits are divided by it; `uncalibrated` says why there is none although one was
    asked for. images, patients: of the split; 0 where nothing had to be chosen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Threshold = DEFAULT
    points: dict[Level, OperatingPoint] = {}
    level_rule: LevelRule = "mean_logit"
    temperature: Positive = 1.0
    uncalibrated: str = ""
    images: int = 0
    patients: int = 0

    def point(self, level: Level) -> OperatingPoint:
        """The point of a level: the number that was given, or what the rule chose."""
        if not isinstance(self.rule, str):
            return OperatingPoint(threshold=float(self.rule))
        missing = OperatingPoint(threshold=None, reason=f"{self.rule}: the validation split has no {level} level")
        return self.points.get(level, missing)

    @property
    def drawn(self) -> float:
        """The threshold of images by which pictures are drawn: 0.5 where none was reached."""
        threshold = self.point("image").threshold
        return DEFAULT if threshold is None else threshold

    def with_threshold(self, threshold: float | None) -> "Operating":
        """The same with a threshold that was given in place of the chosen one, if any was."""
        return self if threshold is None else self.model_copy(update={"rule": threshold, "points": {}})


def read_operating(values: Mapping[str, Any], where: str) -> Operating:
    """Return what a checkpoint holds, which may come from a stranger; LemlightError where that cannot be."""
    try:
        return Operating.model_validate(dict(values))
    except ValidationError as error:
        raise LemlightError(f"{where} is damaged: its operating point cannot be read ({error.error_count()})") from None


def curve_points(
    truth: NDArray[np.bool_], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return thresholds (K - 1,) between the K distinct probabilities, falling, with sensitivity and specificity.

    Each lies half-way between its neighbours [reading], so that no image of the split lies on it.
    """
    values, place = np.unique(probability, return_inverse=True)
    malignant = np.bincount(place, truth, minlength=values.size)[::-1].cumsum()[:-1]
    benign = np.bincount(place, ~truth, minlength=values.size)[::-1].cumsum()[:-1]
    upper, lower = values[::-1][:-1], values[::-1][1:]
    middle = lower + (upper - lower) / 2
    threshold = np.where(middle < upper, middle, lower)  # neighbours in floating point have nothing between them
    return threshold, malignant / truth.sum(), 1 - benign / (~truth).sum()


def choose_point(truth: NDArray[np.bool_], probability: NDArray[np.float64], rule: str) -> OperatingPoint:
    """Return the threshold that a rule chooses on a split, (N,) each.

    youden: the highest sensitivity + specificity - 1; sensitivity@X: the highest specificity where the sensitivity is
    at least X, and specificity@X the reverse. Of several the one of the highest threshold. A point that finds no
    malignant, or clears no benign image says nothing: then the split does not reach it.
    """
    if truth.all() or not truth.any():
        lacking = "benign" if truth.all() and truth.size else "malignant"
        return OperatingPoint(threshold=None, reason=f"{rule}: the validation split has nothing {lacking}")
    threshold, sensitivity, specificity = curve_points(truth, probability)
    name, _, least = rule.partition("@")
    if name == "youden":
        allowed, gain = sensitivity + specificity > 1 + 1e-12, sensitivity + specificity
    else:
        held, gain = (sensitivity, specificity) if name == "sensitivity" else (specificity, sensitivity)
        allowed = (held >= float(least) - 1e-12) & (gain > 0)
    if not allowed.any():
        return OperatingPoint(threshold=None, reason=f"{rule}: the validation split does not reach it")
    best = int(np.argmax(np.where(allowed, gain, -1.0) > gain[allowed].max() - 1e-12))
    return OperatingPoint(
        threshold=float(threshold[best]), sensitivity=float(sensitivity[best]), specificity=float(specificity[best])
    )


def weighted_fixed_points(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return for every row of weights (R, N) what the ROC curve holds at FIXED, (R,) each; NaN with one class.

    sensitivity_at_specificity and specificity_at_sensitivity, on the straight lines between the points of the curve,
    at a jump the upper end; partial_auc: the area where the specificity is at least FIXED, standardized to 0.5 for a
    guess and 1 for the best (McClish, Medical Decision Making 1989), as scikit-learn's `max_fpr` does.
    """
    order = np.argsort(-probability, kind="stable")
    ends = np.flatnonzero(np.diff(probability[order], append=-1.0))
    found, false = (
        np.pad(np.cumsum(weights[:, order] * kind[order], axis=1)[:, ends], ((0, 0), (1, 0)))
        for kind in (truth, ~truth)
    )
    sensitivity, false_rate = (ratio(counts, counts[:, -1:]) for counts in (found, false))
    allowed = 1 - FIXED
    height, below = _at(false_rate, sensitivity, allowed)
    turned = [(1 - rate)[:, ::-1] for rate in (sensitivity, false_rate)]  # benign images in the place of malignant ones
    area = (below - allowed**2 / 2) / (allowed - allowed**2 / 2)
    return {
        "sensitivity_at_specificity": height,
        "specificity_at_sensitivity": _at(turned[0], turned[1], allowed)[0],
        "partial_auc": (1 + area) / 2,
    }


def _at(x: NDArray[np.float64], y: NDArray[np.float64], where: float) -> tuple[NDArray[np.float64], ...]:
    """Height and area up to `where` of rising curves (R, K) from (0, 0) to (1, 1)."""
    known = ~np.isnan(x[:, 0] + y[:, 0])
    before = np.sum(x <= where + 1e-12, axis=1, keepdims=True) - 1
    before = np.clip(before, 0, None)
    after = np.minimum(before + 1, x.shape[1] - 1)
    (left, right), (low, high) = (
        [np.take_along_axis(line, at, axis=1)[:, 0] for at in (before, after)] for line in (x, y)
    )
    height = low + (high - low) * np.nan_to_num(ratio(where - left, right - left))
    steps = np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2
    area = np.where(np.arange(1, x.shape[1]) <= before, steps, 0).sum(axis=1) + (where - left) * (low + height) / 2
    return np.where(known, height, np.nan), np.where(known, area, np.nan)


def predictive_values(
    sensitivity: NDArray[np.float64], specificity: NDArray[np.float64], prevalence: float
) -> dict[str, NDArray[np.float64]]:
    """Return PPV and NPV (R,) where the fraction `prevalence` is malignant (Bayes), NaN where nothing is predicted so.

    The fraction in a data set is not that of a screening population, and these two figures follow from it.
    """
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    cleared, false = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return {"ppv": ratio(found, found + false), "npv": ratio(cleared, cleared + missed)}

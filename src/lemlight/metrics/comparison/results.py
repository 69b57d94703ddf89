"""What a comparison of methods returns, as plain frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lemlight.metrics.comparison.delong import DeLong
from lemlight.metrics.comparison.paired import Difference
from lemlight.metrics.estimate import Estimate


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

"""Reliability: how often images that are called malignant with probability p are malignant."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from lemlight.errors import LemlightError
from lemlight.metrics.checks import check_scored
from lemlight.metrics.intervals import LEVEL


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

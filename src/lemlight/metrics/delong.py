"""DeLong's test of two AUCs on the same images, with the images of one patient taken as dependent."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from lemlight.errors import LemlightError
from lemlight.metrics.classification import as_vector

SAME = "the AUCs are equal and the variance of their difference is 0"
CERTAIN = 1e-20  # a variance below it is rounding: that of one changed pair in a million images is larger


@dataclass(frozen=True)
class DeLong:
    """The AUC of two scorers, first minus second, with 95 % interval and two-sided p-value.

    What is unknown is None and has a reason: everything with one class only; variance and what follows from it if a
    class has one patient only; z, p and the interval if the variance is 0 although the AUCs differ. Two scorers that
    order all pairs alike (one scorer twice, or both without an error) have variance 0, no z and p = 1.
    """

    first: float | None
    second: float | None
    difference: float | None
    variance: float | None = None
    z: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with a reason where one of them is null."""
        fields = asdict(self)
        return fields if self.reason else {name: value for name, value in fields.items() if name != "reason"}


def delong_test(label: ArrayLike, first: ArrayLike, second: ArrayLike, patients: ArrayLike) -> DeLong:
    """Compare the AUCs of two scorers of the same N images.

    The variance is Obuchowski's for clustered data (Biometrics 1997): the structural components
    of DeLong, DeLong and Clarke-Pearson (Biometrics 1988) summed per patient, so that images of one patient may
    depend on one another, also malignant on benign ones. With one image per patient it is DeLong's own variance.
    z = difference / standard error is held against the normal distribution; perfect separation by one scorer makes
    its own variance 0, which is too small, and leaves the test to the variance of the other.

    Args:
        label: (N,) 0 benign, 1 malignant.
        first: (N,) scores of any scale, higher is more malignant; only their order counts.
        second: (N,) likewise.
        patients: (N,) the patient of every image.

    Raises:
        LemlightError: shapes that differ, labels other than 0 and 1, scores that are NaN or infinite.
    """
    truth, one, other, patient = _checked(label, first, second, patients)
    if truth.all() or not truth.any():
        kind = "there are no images" if truth.size == 0 else f"all are {'malignant' if truth.all() else 'benign'}"
        return DeLong(None, None, None, reason=f"an AUC needs malignant and benign images: {kind}")
    above_one, below_one = components(truth, one)
    above_other, below_other = components(truth, other)
    areas = float(above_one.mean()), float(above_other.mean())
    difference = areas[0] - areas[1]
    variance = _variance(above_one - above_other, below_one - below_other, patient[truth], patient[~truth])
    if variance is None:
        return DeLong(*areas, difference, reason="all malignant or all benign images are of one patient")
    return _tested(areas, difference, variance)


def components(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return for every malignant and every benign image the share of images of the other class in the right order.

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
) -> float | None:
    """Return the variance of the mean of components that are summed per patient, None with one patient in a class."""
    count = 1 + int(max(patients_malignant.max(), patients_benign.max()))
    with_malignant, with_benign = np.unique(patients_malignant).size, np.unique(patients_benign).size
    if min(with_malignant, with_benign) < 2:
        return None
    x = np.bincount(patients_malignant, malignant - malignant.mean(), minlength=count) / malignant.size
    y = np.bincount(patients_benign, benign - benign.mean(), minlength=count) / benign.size
    variance = _unbiased(with_malignant) * (x @ x) + _unbiased(with_benign) * (y @ y) + 2 * _unbiased(count) * (x @ y)
    return 0.0 if variance < CERTAIN else float(variance)


def _unbiased(count: int) -> float:
    return count / (count - 1)


def _tested(areas: tuple[float, float], difference: float, variance: float) -> DeLong:
    if variance == 0:
        if abs(difference) < CERTAIN**0.5:
            return DeLong(*areas, 0.0, 0.0, None, 1.0, 0.0, 0.0, SAME)
        return DeLong(*areas, difference, 0.0, reason="the variance is 0 although the AUCs differ: no test is possible")
    error = variance**0.5
    z = difference / error
    reach = float(norm.ppf(0.975)) * error
    p = float(2 * norm.sf(abs(z)))
    return DeLong(*areas, difference, variance, z, p, difference - reach, difference + reach)


def _checked(
    label: ArrayLike, first: ArrayLike, second: ArrayLike, patients: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    problems: list[str] = []
    truth, one, other = (
        as_vector(values, name, problems)
        for values, name in ((label, "label"), (first, "first score"), (second, "second score"))
    )
    _, patient = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    if not problems and len({truth.size, one.size, other.size, patient.size}) > 1:
        sizes = f"{truth.size} labels, {one.size} and {other.size} scores, {patient.size} patients"
        problems.append(f"not one of each for every image: {sizes}")
    if not problems and (bad := int(np.sum((truth != 0) & (truth != 1)))):
        problems.append(f"{bad} of {truth.size} labels are neither 0 (benign) nor 1 (malignant)")
    if problems:
        raise LemlightError("cannot compare two AUCs: " + "; ".join(problems))
    return truth.astype(bool), one, other, patient.astype(np.int64)

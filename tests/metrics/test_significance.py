import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from lemlight.metrics.bootstrap import Estimate
from lemlight.metrics.significance import Difference, PairDifference, delong_test, drawn_difference, holm, p_text

# Albumin, total protein, K-G score and outcome of 43 patients with ovarian cancer: the data of DeLong et al. (1988)
# without missing values, as the SAS/STAT manual prints them ("Comparing Receiver Operating Characteristic Curves").
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1   3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0   3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1   3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0   2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""

# Few distinct scores, so that ties are the rule; several images per patient, of one class or of both.
IMAGES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4), st.integers(0, 6)), min_size=2, max_size=30
)


def order(first, second):
    """The kernel of the AUC for every pair: 1 in the right order, 1/2 tied."""
    return (np.sign(first[:, None] - second[None, :]) + 1) / 2


def naive(label, first, second, patients):
    """Obuchowski (1997) by O(n m) kernels, variances and covariance of the two AUCs one by one."""
    truth, patients = np.asarray(label, bool), np.asarray(patients)
    clusters = np.unique(patients)
    m, n = truth.sum(), (~truth).sum()
    sums = []
    for score in (np.asarray(first, float), np.asarray(second, float)):
        kernel = order(score[truth], score[~truth])
        area = kernel.mean()
        x = [np.sum(kernel.mean(axis=1)[patients[truth] == one] - area) for one in clusters]
        y = [np.sum(kernel.mean(axis=0)[patients[~truth] == one] - area) for one in clusters]
        sums.append((area, np.array(x), np.array(y)))
    i10, i01, i = np.unique(patients[truth]).size, np.unique(patients[~truth]).size, clusters.size

    def covariance(a, b):
        s10 = i10 / ((i10 - 1) * m) * np.sum(a[1] * b[1])
        s01 = i01 / ((i01 - 1) * n) * np.sum(a[2] * b[2])
        s11 = i / (i - 1) * (np.sum(a[1] * b[2]) + np.sum(b[1] * a[2]))
        return s10 / m + s01 / n + s11 / (m * n)

    one, two = sums
    return one[0] - two[0], covariance(one, one) + covariance(two, two) - 2 * covariance(one, two)


def columns(images):
    return (np.array(column) for column in zip(*images, strict=True))


def test_the_data_that_delong_published():
    _, protein, score, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    # Worked out apart from this code, with the covariance matrix of the paper: -0.0780 with a standard error of 0.1046.
    assert delong_test(outcome == 1, protein, 10 - score, np.arange(43)) == pytest.approx(0.4561, abs=5e-4)


@settings(deadline=None, max_examples=150)
@given(IMAGES)
def test_the_p_value_equals_that_of_the_naive_formulas(images):
    label, first, second, patients = columns(images)
    p = delong_test(label, first, second, patients)
    if min(np.unique(patients[label]).size, np.unique(patients[~label]).size) < 2:
        assert p is None
        return
    difference, variance = naive(label, first, second, patients)
    assert difference == pytest.approx(roc_auc_score(label, first) - roc_auc_score(label, second))
    if variance < 1e-12:
        assert p == (1 if abs(difference) < 1e-9 else None)
    else:
        assert p == pytest.approx(2 * norm.sf(abs(difference) / variance**0.5), abs=1e-9)
    assert delong_test(label, second, first, patients) == p


@pytest.mark.parametrize(
    ("label", "first", "second", "patients", "expected"),
    [
        # two perfect scorers whose scores differ: no difference
        ([0, 1, 0, 1], [1, 8, 2, 9], [3, 7, 1, 9], "abcd", 1),
        # a perfect scorer against one that says nothing; one patient in a class
        ([0, 1, 0, 1], [1, 8, 2, 9], [5] * 4, "abcd", None),
        ([0, 1, 0, 1], [1, 8, 2, 9], [9, 8, 2, 9], "axbx", None),
        ([1, 1], [1, 2], [2, 1], "ab", None),
        ([], [], [], "", None),
    ],
)
def test_what_cannot_be_tested_has_no_p_value(label, first, second, patients, expected):
    assert delong_test(np.array(label, bool), np.array(first), np.array(second), list(patients)) == expected


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-3, 30), min_size=40, max_size=300), st.integers(0, 20))
def test_zero_lies_outside_of_the_interval_exactly_where_p_is_at_most_five_percent(draws, undefined):
    drawn = np.append(np.array(draws, float) / 7, np.full(undefined, np.nan))
    result = drawn_difference(1.0, drawn, 10)
    if result.estimate.low is None:
        assert np.ptp(draws) == 0
        assert result.p == (1 if draws[0] == 0 else None)
        return
    excluded = result.estimate.low > 0 or result.estimate.high < 0
    assert excluded == (result.p <= 0.05)


def test_the_formula_of_the_p_value_and_that_rounding_is_no_difference():
    assert drawn_difference(0.9, np.append(np.full(97, 1.0), [-1.0, 0.0]), 10).p == pytest.approx(2 * 3 / 100)
    assert drawn_difference(0.9, np.linspace(1, 2, 99), 10).p == pytest.approx(2 / 100)
    assert drawn_difference(0.1, np.append(np.full(50, 1e-17), np.linspace(0, 1, 50)), 10).p == 1


def test_too_few_patients_or_defined_resamples_give_a_reason():
    drawn = np.append(np.linspace(-1, 1, 30), np.full(15, np.nan))
    for patients, reason in ((10, "30 resamples that define the difference are too few"), (1, "one patient")):
        result = drawn_difference(0.1, drawn, patients)
        assert result.p is None
        assert reason in result.estimate.reason


def test_holm_worked_out_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last is raised to the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    tied = [0.05, 0.12, 0.12, 0.03, 0.12, 0.9]  # multipletests(method="holm") of statsmodels 0.15.0
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005, 0.04, 0.9]), tied)
    np.testing.assert_allclose(holm([0.02, 0.5, 0.02]), [0.06, 0.5, 0.06])
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    rejected, order = set(), sorted(range(len(p_values)), key=p_values.__getitem__)
    for step, place in enumerate(order):
        if p_values[place] * (len(p_values) - step) > 0.05:
            break
        rejected.add(place)
    corrected = holm(p_values)
    assert set(np.flatnonzero(corrected <= 0.05).tolist()) == rejected
    assert np.all(corrected >= np.array(p_values))
    assert np.all(corrected <= np.minimum(1, np.array(p_values) * len(p_values)))


FOUND = Difference(Estimate(0.05, 0.01, 0.09), 0.0004)
OPEN = Difference(Estimate(0.02, -0.03, 0.07), 0.41)
LOWER = Difference(Estimate(-0.02, -0.03, -0.0001), 0.01)
UNKNOWN = Difference(Estimate(None, reason="no malignant image"), None)


@pytest.mark.parametrize(
    ("metric", "difference", "p_corrected", "comparisons", "expected"),
    [
        ("auroc", FOUND, 0.012, 45, "A has a higher AUC than B: +0.050 [0.010, 0.090], p = 0.012 after correction "
         "for 45 comparisons"),
        ("auroc", OPEN, 0.41, 1, "no difference in AUC shown between A and B: +0.020 [-0.030, 0.070], p = 0.41"),
        ("acc", FOUND, 0.2, 45, "no difference in accuracy shown between A and B: +0.050 [0.010, 0.090], p = 0.20 "
         "after correction for 45 comparisons (p < 0.001 before)"),
        ("brier", LOWER, 0.01, 1, "A has a lower Brier score (better) than B: -0.020 [-0.030, 0.000], p = 0.010"),
        ("brier", FOUND, 0.0004, 1, "A has a higher Brier score (worse) than B: +0.050 [0.010, 0.090], p < 0.001"),
        ("f1", UNKNOWN, None, 0, "F1 of A and B cannot be tested: no malignant image"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_the_difference_shows_and_no_more(
    metric, difference, p_corrected, comparisons, expected
):
    assert PairDifference(metric, "A", "B", difference, p_corrected, comparisons).sentence == expected


def test_a_p_value_is_never_rounded_across_five_percent():
    assert [p_text(p) for p in (0.00099, 0.001, 0.05, 0.0501)] == ["p < 0.001", "p = 0.001", "p = 0.050", "p > 0.050"]

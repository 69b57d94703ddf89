import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lemlight.errors import LemlightError
from lemlight.metrics.delong import components, delong_test

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


def unclustered(label, first, second):
    """DeLong (1988): sample covariances of the structural components."""
    truth = np.asarray(label, bool)
    kernels = [order(np.asarray(s, float)[truth], np.asarray(s, float)[~truth]) for s in (first, second)]
    across = np.cov([kernel.mean(axis=1) for kernel in kernels]) / truth.sum()
    down = np.cov([kernel.mean(axis=0) for kernel in kernels]) / (~truth).sum()
    contrast = np.array([1, -1])
    return kernels[0].mean() - kernels[1].mean(), contrast @ (across + down) @ contrast


def columns(images):
    return (np.array(column) for column in zip(*images, strict=True))


def simulated(generator, patients, images, patient_effect, separation=1.0):
    """Two equally good scorers; the images of a patient share their label and part of each scorer's error."""
    owner = np.repeat(np.arange(patients), images)
    label = (np.arange(patients) % 2)[owner]
    size = (2, patients)
    errors = patient_effect * generator.normal(size=size)[:, owner] + generator.normal(size=(2, owner.size))
    return label, *(separation * label + errors), owner


def test_the_data_that_delong_published():
    albumin, protein, score, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    patients = np.arange(43)
    to_protein = delong_test(outcome, protein, 10 - score, patients)
    # Worked out apart from this code, with the covariance matrix of the paper.
    assert (to_protein.first, to_protein.second) == pytest.approx((0.6478, 0.7258), abs=5e-5)
    assert to_protein.difference == pytest.approx(-0.0780, abs=5e-5)
    assert to_protein.variance**0.5 == pytest.approx(0.1046, abs=5e-5)
    assert to_protein.z**2 == pytest.approx(0.5554, abs=5e-5)
    assert to_protein.p == pytest.approx(0.4561, abs=5e-4)
    assert (to_protein.low, to_protein.high) == pytest.approx((-0.2830, 0.1271), abs=5e-4)
    to_albumin = delong_test(outcome, albumin, protein, patients)
    assert to_albumin.first == pytest.approx(roc_auc_score(outcome, albumin))
    assert (to_albumin.difference, to_albumin.variance) == pytest.approx(unclustered(outcome, albumin, protein))


@settings(deadline=None, max_examples=150)
@given(IMAGES)
def test_every_figure_equals_that_of_the_naive_formulas(images):
    label, first, second, patients = columns(images)
    result = delong_test(label, first, second, patients)
    if result.difference is None:
        assert label.all() or not label.any()
        return
    if result.variance is None:
        assert min(np.unique(patients[label]).size, np.unique(patients[~label]).size) < 2
        return
    difference, variance = naive(label, first, second, patients)
    assert result.difference == pytest.approx(difference, abs=1e-12)
    assert result.variance == pytest.approx(variance, abs=1e-12)
    assert result.first == pytest.approx(roc_auc_score(label, first))


@settings(deadline=None, max_examples=100)
@given(IMAGES)
def test_with_one_image_per_patient_it_is_delongs_own_test(images):
    label, first, second, _ = columns(images)
    if min(label.sum(), (~label).sum()) < 2:
        return
    result = delong_test(label, first, second, np.arange(label.size))
    difference, variance = unclustered(label, first, second)
    assert (result.difference, result.variance) == pytest.approx((difference, variance), abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(IMAGES)
def test_both_components_have_the_auc_as_mean(images):
    label, first, _, _ = columns(images)
    if label.all() or not label.any():
        return
    above, below = components(label, first.astype(float))
    kernel = order(first[label], first[~label])
    np.testing.assert_allclose(above, kernel.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(below, kernel.mean(axis=0), atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(IMAGES)
def test_swapping_the_scorers_changes_the_sign_only(images):
    label, first, second, patients = columns(images)
    one, other = delong_test(label, first, second, patients), delong_test(label, second, first, patients)
    assert (one.variance, one.p, one.reason) == (other.variance, other.p, other.reason)
    if one.z is not None:
        assert (one.difference, one.z, one.low) == pytest.approx((-other.difference, -other.z, -other.high))


def test_only_the_order_of_the_scores_counts():
    label, first, second, patients = simulated(np.random.default_rng(0), 20, 3, 1.0)
    plain = delong_test(label, first, second, patients)
    assert delong_test(label, np.exp(first) + 7, second - 100, patients) == plain
    shuffled = np.random.default_rng(1).permutation(label.size)
    again = delong_test(label[shuffled], first[shuffled], second[shuffled], patients[shuffled].astype(str))
    assert again.to_dict() == pytest.approx(plain.to_dict())


def test_one_class_only_has_no_auc():
    for label, word in (([1, 1], "malignant"), ([0, 0], "benign")):
        result = delong_test(label, [0.1, 0.2], [0.2, 0.1], ["a", "b"])
        assert (result.difference, result.p) == (None, None)
        assert word in result.reason
    assert "no images" in delong_test([], [], [], []).reason


def test_one_scorer_twice_is_no_difference():
    result = delong_test([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.6], [0.1, 0.4, 0.5, 0.6], list("abcd"))
    assert (result.difference, result.variance, result.p, result.low, result.high) == (0, 0, 1, 0, 0)
    assert result.z is None
    assert "difference is 0" in result.reason


def test_two_perfect_scorers_are_no_difference_though_their_scores_differ():
    result = delong_test([0, 1, 0, 1], [0.1, 0.8, 0.2, 0.9], [0.3, 0.7, 0.1, 0.9], list("abcd"))
    assert (result.first, result.second, result.p) == (1, 1, 1)


def test_a_perfect_scorer_is_tested_by_the_variance_of_the_other():
    result = delong_test([0, 1, 0, 1, 0, 1], [0, 3, 1, 4, 2, 5], [0, 3, 4, 2, 1, 5], range(6))
    assert result.first == 1
    assert 0 < result.p < 1


def test_a_perfect_scorer_against_one_that_says_nothing_cannot_be_tested():
    result = delong_test([0, 1, 0, 1], [0.1, 0.8, 0.2, 0.9], [0.5] * 4, list("abcd"))
    assert (result.difference, result.variance, result.p, result.low) == (0.5, 0, None, None)
    assert "no test is possible" in result.reason


def test_one_patient_in_a_class_has_no_variance():
    result = delong_test([0, 1, 0, 1], [0.1, 0.8, 0.2, 0.9], [0.9, 0.8, 0.2, 0.9], ["a", "x", "b", "x"])
    assert (result.variance, result.p) == (None, None)
    assert "one patient" in result.reason


def test_the_dictionary_is_plain_and_has_a_reason_where_something_is_null():
    tested = delong_test([0, 1, 0, 1, 0, 1], [0, 3, 1, 4, 2, 5], [0, 3, 4, 2, 1, 5], range(6)).to_dict()
    assert "reason" not in tested
    untested = delong_test([1, 1], [0, 1], [0, 1], range(2)).to_dict()
    assert untested["reason"]
    json.dumps([tested, untested], allow_nan=False)


def test_everything_wrong_is_said_at_once():
    with pytest.raises(LemlightError, match=r"first score.*second score"):
        delong_test([0, 1], [np.nan, 1], [[0, 1]], [1, 2])
    with pytest.raises(LemlightError, match="3 patients"):
        delong_test([0, 1], [0, 1], [0, 1], [1, 2, 3])
    with pytest.raises(LemlightError, match="neither 0"):
        delong_test([0, 2], [0, 1], [0, 1], [1, 2])


def test_the_level_holds_for_clustered_images_where_the_unclustered_test_fails():
    # 600 runs of a true hypothesis at 5 %: standard error 0.9 %, so 2.3 % to 8 % is within three of them. Four images
    # of a patient that share most of their error make the unclustered test err far more often.
    generator = np.random.default_rng(4)
    clustered, plain = [], []
    for _ in range(600):
        label, first, second, patients = simulated(generator, 60, 4, 1.5)
        clustered.append(delong_test(label, first, second, patients).p)
        plain.append(delong_test(label, first, second, np.arange(label.size)).p)
    assert 0.023 < np.mean(np.array(clustered) <= 0.05) < 0.08
    assert np.mean(np.array(plain) <= 0.05) > 0.15

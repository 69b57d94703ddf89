import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lemlight.errors import LemlightError
from lemlight.metrics.classification import reliability_curve, wilson_interval


def test_bins_worked_out_by_hand():
    probability = [0.0, 0.05, 0.1, 0.95, 1.0]
    first, second, last = reliability_curve([0, 1, 0, 1, 1], probability, ["a", "a", "b", "c", "d"])
    assert (first.start, first.end, first.images, first.patients) == (0.0, 0.1, 2, 1)
    assert (first.predicted, first.observed) == (pytest.approx(0.025), 0.5)
    assert (second.start, second.images, second.observed) == (0.1, 1, 0.0)
    assert (last.start, last.end, last.images, last.patients, last.observed) == (0.9, 1.0, 2, 2, 1.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.integers(0, 5)), max_size=40), st.integers(1, 12))
def test_bins_part_the_images_and_the_brier_score_is_kept_from_below(scored, bins):
    truth, probability, patients = (np.array([row[k] for row in scored]) for k in range(3))
    curve = reliability_curve(truth, probability, patients, bins)
    assert sum(part.images for part in curve) == len(scored)
    for part in curve:
        inside = (probability >= part.start - 1e-12) & (probability <= part.end + 1e-12)
        assert 1 <= part.patients <= part.images <= inside.sum()
        assert part.start - 1e-9 <= part.predicted <= part.end + 1e-9
        assert 0 <= part.low <= part.observed + 1e-12
        assert part.observed - 1e-12 <= part.high <= 1
    assert sum(part.images * part.observed for part in curve) == pytest.approx(np.sum(truth))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_that_of_scipy(counts):
    hits, cases = counts
    expected = binomtest(hits, cases).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits / cases, cases) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_patients_not_the_images_are_the_sample_size():
    label, probability = [0, 1] * 10, np.full(20, 0.55)
    (apart,) = reliability_curve(label, probability, np.arange(20))
    (together,) = reliability_curve(label, probability, np.arange(20) // 10)
    assert together.observed == apart.observed
    assert together.high - together.low > apart.high - apart.low


def test_a_calibrated_model_lies_on_the_diagonal():
    generator = np.random.default_rng(0)
    probability = generator.random(20000)
    curve = reliability_curve(generator.random(20000) < probability, probability, np.arange(20000))
    assert len(curve) == 10
    np.testing.assert_allclose([part.observed for part in curve], [part.predicted for part in curve], atol=0.04)


def test_no_images_have_no_bins():
    assert reliability_curve([], [], []) == []


@pytest.mark.parametrize(("patients", "bins"), [(["a"], 10), (["a", "b"], 0)])
def test_missing_patients_and_bins_are_refused(patients, bins):
    with pytest.raises(LemlightError, match="a bin and a patient per image"):
        reliability_curve([0, 1], [0.1, 0.2], patients, bins)

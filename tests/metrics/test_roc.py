import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from lemlight.metrics.bootstrap import Undefined
from lemlight.metrics.classification import roc_band, weighted_roc

GRID = np.linspace(0, 1, 101)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.integers(1, 3)), min_size=2, max_size=30
    )
)
def test_a_weighted_curve_equals_that_of_scikit_learn(scored):
    truth, probability, weights = (np.array([row[k] for row in scored]) for k in range(3))
    (curve,) = weighted_roc(truth, probability, weights[None].astype(float), GRID)
    if truth.all() or not truth.any():
        assert np.isnan(curve).all()
        return
    false_rate, true_rate, _ = roc_curve(truth, probability, sample_weight=weights, drop_intermediate=False)
    # Away from the vertical steps: rounding decides there on which side of one a grid point lies.
    clear = np.abs(GRID[:, None] - false_rate[None]).min(axis=1) > 1e-9
    np.testing.assert_allclose(curve[clear], np.interp(GRID[clear], false_rate, true_rate), atol=1e-9)


def test_ties_across_the_classes_are_a_slope_not_a_step():
    (curve,) = weighted_roc(np.array([True, False]), np.array([0.5, 0.5]), np.ones((1, 2)), GRID)
    np.testing.assert_allclose(curve, GRID, atol=1e-12)


def test_a_vertical_step_counts_at_its_top():
    (curve,) = weighted_roc(np.array([True, True, False]), np.array([0.9, 0.8, 0.1]), np.ones((1, 3)), GRID)
    np.testing.assert_array_equal(curve, 1)


def test_the_band_holds_the_curve_and_the_area_under_it_is_the_auc():
    generator = np.random.default_rng(1)
    truth = np.arange(200) % 2
    probability = np.clip(0.3 + 0.3 * truth + 0.2 * generator.normal(size=200), 0, 1)
    band = roc_band(truth, probability, np.arange(200) // 2, resamples=300)
    on_grid = np.interp(GRID, band.false_positive_rate, band.true_positive_rate)
    assert np.mean((band.low <= on_grid + 0.02) & (on_grid - 0.02 <= band.high)) > 0.95
    assert np.all(np.diff(band.low) >= -1e-12)
    area = np.trapezoid(band.true_positive_rate, band.false_positive_rate)
    assert area == pytest.approx(roc_auc_score(truth, probability))


def test_the_same_seed_draws_the_same_band():
    truth, probability = [0, 1, 0, 1, 1], [0.2, 0.4, 0.6, 0.8, 0.9]
    bands = [roc_band(truth, probability, np.arange(5), resamples=60, seed=seed) for seed in (0, 0)]
    np.testing.assert_array_equal(bands[0].low, bands[1].low)


@pytest.mark.parametrize("label", [[], [0, 0], [1, 1]])
def test_one_class_has_no_curve(label):
    band = roc_band(label, [0.1, 0.2][: len(label)], ["a", "b"][: len(label)])
    assert isinstance(band, Undefined)
    assert "malignant and benign" in band.reason


def test_one_patient_has_a_curve_without_a_band():
    band = roc_band([0, 1], [0.1, 0.2], ["a", "a"])
    assert band.true_positive_rate[-1] == 1
    assert band.low is None
    assert band.high is None

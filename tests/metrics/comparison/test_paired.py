import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from lemlight.errors import LemlightError
from lemlight.metrics.bootstrap import bootstrap
from lemlight.metrics.classification import METRICS
from lemlight.metrics.comparison import drawn_difference, paired_bootstrap
from lemlight.metrics.delong import delong_test
from lemlight.metrics.trials import Outcomes, weighted_figures


def outcomes(truth, probability, threshold=0.5, dsc=None):
    probability = np.asarray(probability, float)
    return Outcomes(np.asarray(truth, bool), probability, probability > threshold, dsc)


def two_methods(seed, images=120, gain=0.6):
    """Two methods of which the first is better, on three images per patient."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, images).astype(bool)
    patients = np.arange(images) // 3
    scores = [(1 + better) * truth + generator.normal(size=images) - 0.5 for better in (gain, 0)]
    dsc = [np.where(truth, generator.random(images), np.nan) for _ in scores]
    made = [outcomes(truth, 1 / (1 + np.exp(-score)), dsc=dice) for score, dice in zip(scores, dsc, strict=True)]
    return *made, patients


def signs(patients, generator, rounds):
    """A random sign per patient and round, the same for all images of a patient, (rounds, N)."""
    return generator.choice([-1, 1], size=(rounds, patients.max() + 1))[:, patients]


@pytest.mark.parametrize("name", [*METRICS, "dsc"])
def test_the_difference_is_that_of_the_two_figures_and_swapping_changes_its_sign(name):
    first, second, patients = two_methods(0)
    one = paired_bootstrap(name, first, second, patients, resamples=400)
    other = paired_bootstrap(name, second, first, patients, resamples=400)
    figures = [weighted_figures(method, np.ones((1, 120)))[name][0] for method in (first, second)]
    assert one.estimate.value == pytest.approx(figures[0] - figures[1])
    assert one.p == other.p
    assert (one.estimate.low, one.estimate.high) == pytest.approx((-other.estimate.high, -other.estimate.low))


def test_a_method_against_itself_is_no_difference():
    first, _, patients = two_methods(1)
    result = paired_bootstrap("auroc", first, first, patients, resamples=200)
    assert (result.estimate.value, result.p, result.estimate.low) == (0, 1, None)
    assert "same difference" in result.estimate.reason


def test_right_on_every_image_against_wrong_on_every_image_has_no_p_value():
    truth = np.arange(20) % 2
    result = paired_bootstrap("acc", outcomes(truth, truth), outcomes(truth, 1 - truth), np.arange(20), resamples=100)
    assert (result.estimate.value, result.p, result.estimate.low) == (1, None, None)
    assert "certain" in result.estimate.reason


def test_p_value_and_interval_agree_with_the_normal_approximation_and_a_permutation_test():
    first, second, patients = two_methods(3, images=600, gain=0.25)
    result = paired_bootstrap("acc", first, second, patients, resamples=4000)
    right = (first.called == first.truth).astype(float) - (second.called == second.truth)
    per_patient = np.bincount(patients, right)
    error = per_patient.std(ddof=1) * per_patient.size**0.5 / right.size
    normal = 2 * norm.sf(abs(right.mean()) / error)
    generator = np.random.default_rng(0)
    permuted = (signs(patients, generator, 4000) * right).mean(axis=1)
    permutation = np.mean(np.abs(permuted) >= abs(right.mean()) - 1e-12)
    assert 0.005 < normal < 0.5  # a case in which the p-values have something to disagree about
    assert result.p == pytest.approx(normal, abs=0.03)
    assert result.p == pytest.approx(permutation, abs=0.04)
    reach = 1.96 * error
    assert result.estimate.low == pytest.approx(right.mean() - reach, abs=0.1 * reach)
    assert result.estimate.high == pytest.approx(right.mean() + reach, abs=0.1 * reach)


def test_the_auc_agrees_with_the_clustered_test_of_delong():
    first, second, patients = two_methods(5, images=600, gain=0.3)
    delong = delong_test(first.truth, first.probability, second.probability, patients)
    result = paired_bootstrap("auroc", first, second, patients, resamples=4000)
    assert result.estimate.value == pytest.approx(delong.difference)
    width = delong.high - delong.low
    assert (result.estimate.low, result.estimate.high) == pytest.approx((delong.low, delong.high), abs=0.06 * width)
    assert result.p == pytest.approx(delong.p, abs=0.03)


def test_pairing_makes_the_interval_of_two_like_methods_narrow():
    first, _, patients = two_methods(6)
    nearly = outcomes(first.truth, 0.01 + 0.99 * first.probability)
    paired = paired_bootstrap("brier", first, nearly, patients, resamples=400)
    draws = bootstrap(lambda weights: weighted_figures(first, weights), patients, resamples=400, seed=0)
    low, high = np.quantile(draws["brier"], [0.025, 0.975])
    assert paired.estimate.high - paired.estimate.low < 0.1 * (high - low)


def test_any_function_of_outcomes_and_weights_is_a_metric():
    first, second, patients = two_methods(7)
    result = paired_bootstrap(
        lambda method, weights: weights @ method.probability / weights.sum(axis=1),
        first,
        second,
        patients,
        resamples=200,
    )
    assert result.estimate.value == pytest.approx(first.probability.mean() - second.probability.mean())


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


def test_the_formula_of_the_p_value():
    drawn = np.append(np.full(97, 1.0), [-1.0, 0.0])
    assert drawn_difference(0.9, drawn, 10).p == pytest.approx(2 * 3 / 100)
    assert drawn_difference(0.9, np.linspace(1, 2, 99), 10).p == pytest.approx(2 / 100)


def test_rounding_is_not_taken_for_a_difference():
    drawn = np.append(np.full(50, 1e-17), np.linspace(0, 1, 50))
    assert drawn_difference(0.1, drawn, 10).p == 1


def test_too_few_patients_or_defined_resamples_give_a_reason():
    drawn = np.append(np.linspace(-1, 1, 30), np.full(70, np.nan))
    assert "undefined in 70 of 100" in drawn_difference(0.1, drawn, 10).estimate.reason
    assert "too few" in drawn_difference(0.1, drawn[:45], 10).estimate.reason
    assert "one patient" in drawn_difference(0.1, drawn, 1).estimate.reason
    assert drawn_difference(0.1, drawn[:45], 10).p is None


def test_an_undefined_metric_is_undefined():
    benign = outcomes(np.zeros(10), np.linspace(0, 1, 10))
    result = paired_bootstrap("auroc", benign, benign, np.arange(10), resamples=50)
    assert (result.estimate.value, result.p) == (None, None)
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_mistakes_are_refused():
    first, second, patients = two_methods(0)
    with pytest.raises(LemlightError, match="no metric is called 'auc'"):
        paired_bootstrap("auc", first, second, patients)
    with pytest.raises(LemlightError, match="same images"):
        paired_bootstrap("acc", first, outcomes(~second.truth, second.probability), patients)
    with pytest.raises(LemlightError, match="a patient for each"):
        paired_bootstrap("acc", first, second, patients[:-1])
    plain = outcomes(first.truth, first.probability)
    with pytest.raises(LemlightError, match="no dsc"):
        paired_bootstrap("dsc", plain, plain, patients)

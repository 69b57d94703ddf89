import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.metrics import bootstrap as chapter
from lemlight.metrics.bootstrap import Estimate, bootstrap, estimate, patient_weights, percentiles


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 1000))
def test_images_of_one_patient_are_drawn_together_and_patients_as_often_as_there_are(patients, seed):
    (weights,) = patient_weights(patients, 50, seed)
    owners, first = np.unique(patients, return_index=True)
    for owner, column in zip(owners, first, strict=True):
        assert np.all(weights[:, np.array(patients) == owner] == weights[:, [column]])
    np.testing.assert_array_equal(weights[:, first].sum(axis=1), len(owners))


def test_blocks_change_nothing_but_the_memory(monkeypatch):
    patients = np.arange(30) // 2
    whole = np.concatenate(list(patient_weights(patients, 101, seed=1)))
    monkeypatch.setattr(chapter, "LARGEST_BLOCK", 200)
    blocks = list(patient_weights(patients, 101, seed=1))
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_the_interval_of_a_mean_agrees_with_the_closed_form():
    values = np.random.default_rng(2).normal(size=300)
    half = 1.96 * values.std() / np.sqrt(300)
    mean = bootstrap(lambda weights: {"mean": weights @ values / 300}, np.arange(300), resamples=4000, seed=0)["mean"]
    np.testing.assert_allclose(percentiles(mean), [values.mean() - half, values.mean() + half], atol=0.012)


def test_undefined_draws_are_dropped_and_an_undefined_value_is_null_with_its_reason():
    draws = np.r_[np.full(40, np.nan), np.linspace(0, 1, 60)]
    assert estimate(0.5, draws, 9, "") == Estimate(0.5, pytest.approx(0.025), pytest.approx(0.975))
    shown = estimate(np.nan, np.full(100, np.nan), 9, "one class only").to_dict()
    assert shown == {"value": None, "reason": "one class only"}


@pytest.mark.parametrize(
    ("draws", "patients", "reason"),
    [
        (np.linspace(0, 1, 100), 1, "one patient only"),
        (np.ones(100), 9, "the same value"),
        (np.r_[np.full(51, np.nan), np.linspace(0, 1, 49)], 9, "undefined in 51 of 100 resamples"),
        (np.full(50, np.nan), 4, "50 of 50"),
    ],
)
def test_a_value_without_an_interval_says_why(draws, patients, reason):
    shown = estimate(1.0, draws, patients, "").to_dict()
    assert (shown["value"], shown["low"], shown["high"]) == (1.0, None, None)
    assert reason in shown["reason"]


def test_too_few_resamples_are_refused():
    with pytest.raises(LemlightError, match="at least 40 resamples, got 10"):
        bootstrap(dict, [1, 2, 3], resamples=10, seed=0)

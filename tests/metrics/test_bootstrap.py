import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.metrics import bootstrap as chapter
from lemlight.metrics.bootstrap import Estimate, bootstrap, estimate, patient_weights


def mean_draws(values, patients, resamples=400, seed=0):
    """The bootstrap of a plain mean."""
    return bootstrap(
        lambda weights: {"mean": weights @ values / weights.sum(axis=1)}, patients, resamples=resamples, seed=seed
    )["mean"]


def bounds(draws):
    return np.quantile(draws, [0.025, 0.975])


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
    drawn = bounds(mean_draws(values, np.arange(300), resamples=4000))
    np.testing.assert_allclose(drawn, [values.mean() - half, values.mean() + half], atol=0.012)


def test_clustered_images_make_the_interval_over_patients_wider_and_only_it_covers_the_truth():
    generator = np.random.default_rng(7)
    covered = {"patients": 0, "images": 0}
    for trial in range(150):
        values = generator.normal(size=40).repeat(6) + 0.3 * generator.normal(size=240)  # the true mean is 0
        for name, owners in (("patients", np.arange(40).repeat(6)), ("images", np.arange(240))):
            low, high = bounds(mean_draws(values, owners, 200, trial))
            covered[name] += low <= 0 <= high
    assert covered["patients"] / 150 > 0.88
    assert covered["images"] / 150 < 0.75


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
        mean_draws(np.ones(3), np.arange(3), resamples=10)

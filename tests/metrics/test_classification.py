import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from lemlight.errors import LemlightError
from lemlight.metrics.classification import (
    METRICS,
    check_scored,
    reliability_curve,
    roc_band,
    summarize,
    weighted_metrics,
    weighted_roc,
    wilson_interval,
)
from tests.layouts.run_folders import predictions_of

# Few distinct probabilities, so that ties within and between the classes are the rule; 0.5 is the threshold itself.
SCORED = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 1.0]), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)
GRID = np.linspace(0, 1, 101)
FEW_CASES = settings(deadline=None, max_examples=50)


def columns(scored):
    truth, probability, third = (np.array(column) for column in zip(*scored, strict=True))
    return truth, probability, third.astype(float)


def same(value, expected):
    return np.isnan(value) if expected is None else value == pytest.approx(expected, abs=1e-9)


def metrics_of(truth, probability, threshold=0.5):
    rows = weighted_metrics(truth, probability, probability > threshold, np.ones((1, truth.size)))
    return {name: row[0] for name, row in rows.items()}


@FEW_CASES
@given(SCORED, st.sampled_from([0.25, 0.5]))
def test_every_metric_equals_that_of_scikit_learn(scored, threshold):
    truth, probability, _ = columns(scored)
    predicted = probability > threshold
    found = metrics_of(truth, probability, threshold)
    both, malignant, benign = 0 < truth.sum() < truth.size, truth.any(), not truth.all()
    assert tuple(found) == METRICS
    assert same(found["acc"], reference.accuracy_score(truth, predicted))
    assert same(found["auroc"], reference.roc_auc_score(truth, probability) if both else None)
    assert same(found["sensitivity"], reference.recall_score(truth, predicted) if malignant else None)
    assert same(found["specificity"], reference.recall_score(truth, predicted, pos_label=False) if benign else None)
    assert same(found["f1"], reference.f1_score(truth, predicted) if malignant else None)
    assert same(found["brier"], np.mean((probability - truth) ** 2))


@FEW_CASES
@given(SCORED)
def test_integer_weights_are_repeated_images(scored):
    truth, probability, weights = columns(scored)
    rows = weighted_metrics(truth, probability, probability > 0.5, weights[None])
    times = weights.astype(int)
    expected = metrics_of(truth.repeat(times), probability.repeat(times))
    for name in METRICS:
        assert rows[name][0] == pytest.approx(expected[name], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([0, 1], [0.1, float("nan")], r"1 of 2 values in probability are NaN .* learning rate"),
        ([0, 3], [0.5, 2.5], r"1 of 2 labels are neither .*; 1 of 2 probabilities lie outside .* sigmoid"),
        ([0, 1, 1], [0.1, 0.2], "3 labels but 2 probabilities"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_all_that_is_wrong(label, probability, message):
    with pytest.raises(LemlightError, match=message):
        check_scored(label, probability)


@FEW_CASES
@given(SCORED)
def test_a_weighted_roc_curve_equals_that_of_scikit_learn(scored):
    truth, probability, weights = columns(scored)
    weights += 1
    (curve,) = weighted_roc(truth, probability, weights[None], GRID)
    if truth.all() or not truth.any():
        assert np.isnan(curve).all()
        return
    false_rate, true_rate, _ = reference.roc_curve(truth, probability, sample_weight=weights, drop_intermediate=False)
    # Away from the vertical steps: rounding decides there on which side of one a grid point lies.
    clear = np.abs(GRID[:, None] - false_rate[None]).min(axis=1) > 1e-9
    np.testing.assert_allclose(curve[clear], np.interp(GRID[clear], false_rate, true_rate), atol=1e-9)


def test_the_band_holds_the_curve_and_the_area_under_it_is_the_auc():
    truth = np.arange(200) % 2
    probability = np.clip(0.3 + 0.3 * truth + 0.2 * np.random.default_rng(1).normal(size=200), 0, 1)
    band, again = (roc_band(truth, probability, np.arange(200) // 2, resamples=300) for _ in range(2))
    on_grid = np.interp(GRID, band.false_positive_rate, band.true_positive_rate)
    assert np.mean((band.low <= on_grid + 0.02) & (on_grid - 0.02 <= band.high)) > 0.95
    assert np.all(np.diff(band.low) >= -1e-12)
    area = np.trapezoid(band.true_positive_rate, band.false_positive_rate)
    assert area == pytest.approx(reference.roc_auc_score(truth, probability))
    np.testing.assert_array_equal(band.low, again.low)


def test_one_patient_has_a_roc_curve_without_a_band_and_one_class_has_none():
    for label in ([], [0, 0], [1, 1]):
        assert roc_band(label, [0.1, 0.2][: len(label)], ["a", "b"][: len(label)]) is None
    band = roc_band([0, 1], [0.1, 0.2], ["a", "a"])
    assert (band.true_positive_rate[-1], band.low, band.high) == (1, None, None)


def test_reliability_bins_worked_out_by_hand():
    found = reliability_curve([0, 1, 0, 1, 1], [0.0, 0.05, 0.1, 0.95, 1.0], ["a", "a", "b", "c", "d"])
    names = ("start", "end", "images", "patients", "predicted", "observed")
    assert [tuple(part[name] for name in names) for part in found] == [
        (0.0, 0.1, 2, 1, pytest.approx(0.025), 0.5),
        (0.1, 0.2, 1, 1, 0.1, 0.0),
        (0.9, 1.0, 2, 2, pytest.approx(0.975), 1.0),
    ]
    # two images of one patient count as one
    intervals = [wilson_interval(*of) for of in ((0.5, 1), (0, 1), (1, 2))]
    assert [(part["low"], part["high"]) for part in found] == intervals
    assert reliability_curve([], [], []) == []


@FEW_CASES
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_that_of_scipy(counts):
    positive, cases = counts
    expected = binomtest(positive, cases).proportion_ci(0.95, method="wilson")
    assert wilson_interval(positive / cases, cases) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_summary_has_the_shape_of_metrics_json():
    summary = summarize(predictions_of(), resamples=200)
    assert (summary["split"], summary["images"], summary["patients"], summary["threshold"]) == ("test", 80, 40, 0.5)
    for name in METRICS:
        assert summary[name].keys() == {"value", "low", "high"}
        assert summary[name]["low"] <= summary[name]["value"] <= summary[name]["high"]
    assert summary["calibration"]["brier"] == summary["brier"]
    assert sum(part["images"] for part in summary["calibration"]["bins"]) == 80
    assert summary["interval"]["resamples"] == 200
    few = summarize(predictions_of(12, error=0.6), resamples=400)
    assert 0 < few["interval"]["dropped"]["auroc"] < 200  # resamples without a class
    assert few["interval"]["dropped"]["acc"] == 0
    assert few["auroc"]["low"] is not None


def test_the_seed_and_not_the_order_of_the_rows_decides_the_intervals():
    predictions = predictions_of()
    first = summarize(predictions, resamples=100, seed=0)
    assert summarize(predictions, resamples=100, seed=0) == first
    shuffled = summarize(predictions.sample(frac=1, random_state=1), resamples=100, seed=0)
    for name in METRICS:
        assert shuffled[name] == pytest.approx(first[name], abs=1e-9)
    assert summarize(predictions, resamples=100, seed=1)["acc"] != first["acc"]


@pytest.mark.parametrize(
    ("kept", "undefined"),
    [
        ("label == 0", {"auroc": "all images are benign", "sensitivity": "no malignant", "f1": "no malignant"}),
        ("label == 1", {"auroc": "all images are malignant", "specificity": "no benign"}),
        ("label == 2", dict.fromkeys(METRICS, "no images")),
    ],
)
def test_what_the_labels_do_not_define_is_null_with_its_reason_and_never_zero(kept, undefined):
    summary = summarize(predictions_of().query(kept), prevalence=0.01, resamples=100)
    assert {name for name in METRICS if summary[name]["value"] is None} == set(undefined)
    for name, reason in undefined.items():
        assert summary[name].keys() == {"value", "reason"}
        assert reason in summary[name]["reason"]
    assert summary["operating"]["ppv"]["value"] is None
    assert (summary["calibration"]["ece"] is None) == (not summary["images"])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary

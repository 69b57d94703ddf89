import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from lemlight.building import Settings, check_settings
from lemlight.errors import LemlightError
from lemlight.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_odds,
    uncalibrated,
    weighted_recalibration,
)
from lemlight.metrics.classification import summarize
from lemlight.metrics.levels import choose_points, summarize_levels
from lemlight.metrics.operating import (
    Operating,
    Threshold,
    choose_point,
    predictive_values,
    read_operating,
    weighted_fixed_points,
)
from tests.layouts.run_folders import predictions_of

SCORED = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=30)
FEW_CASES = settings(deadline=None, max_examples=60)


def columns(scored):
    truth, probability = zip(*scored, strict=True)
    return np.array(truth), np.array(probability, dtype=float)


def drawn(images=300, slope=1.0, seed=0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, images)
    return rng.random(images) < expit(slope * logit), logit


@FEW_CASES
@given(SCORED, st.sampled_from(["youden", "sensitivity@0.9", "sensitivity@0.5", "specificity@0.75", "specificity@1"]))
def test_the_chosen_point_is_the_best_of_all_thresholds_or_none_is_good_enough(scored, rule):
    truth, probability = columns(scored)
    point = choose_point(truth, probability, rule)
    found = []
    for threshold in {-1.0, *probability} if truth.any() and not truth.all() else ():
        predicted = probability > threshold
        found.append((reference.recall_score(truth, predicted), reference.recall_score(~truth, ~predicted)))
    name, _, least = rule.partition("@")
    if name == "youden":
        good = [sum(pair) for pair in found if sum(pair) > 1 + 1e-9]
    else:
        place = ["sensitivity", "specificity"].index(name)
        good = [pair[1 - place] for pair in found if pair[place] >= float(least) - 1e-9 and min(pair) > 0]
    assert (point.threshold is None) == (not good)
    if point.threshold is None:
        assert rule in point.reason
        return
    predicted = probability > point.threshold
    assert point.sensitivity == pytest.approx(reference.recall_score(truth, predicted))
    assert point.specificity == pytest.approx(reference.recall_score(~truth, ~predicted))
    reached = {"sensitivity": point.sensitivity, "specificity": point.specificity}
    assert max(good) == pytest.approx(
        sum(reached.values()) if name == "youden" else min(value for key, value in reached.items() if key != name)
    )


def test_a_point_by_hand_lies_between_the_images_that_it_parts():
    truth, probability = np.array([1, 1, 1, 0, 0, 0], bool), np.array([0.9, 0.8, 0.4, 0.6, 0.2, 0.1])
    assert choose_point(truth, probability, "sensitivity@0.9").threshold == pytest.approx(0.3)
    assert choose_point(truth, probability, "specificity@0.9").threshold == pytest.approx(0.7)
    assert choose_point(truth, probability, "youden").threshold == pytest.approx(0.7)  # of two the higher one
    close = np.nextafter(0.5, 1)
    point = choose_point(np.array([True, False]), np.array([close, 0.5]), "youden")
    assert [bool(p > point.threshold) for p in (close, 0.5)] == [True, False]


@pytest.mark.parametrize("rule", ["youden", "sensitivity@0.9", "specificity@0.9"])
def test_what_validation_cannot_reach_is_undefined_and_never_0(rule):
    worse = choose_point(np.array([True, False]), np.array([0.1, 0.9]), rule)
    one = choose_point(np.array([False, False]), np.array([0.1, 0.9]), rule)
    alike = choose_point(np.array([True, False]), np.array([0.5, 0.5]), rule)
    assert [point.threshold for point in (worse, one, alike)] == [None] * 3
    assert "nothing malignant" in one.reason
    summary = summarize(predictions_of(), point=worse, rule=rule, resamples=100)
    assert summary["threshold"] is None
    for name in ("acc", "sensitivity", "specificity", "f1"):
        assert summary[name] == {"value": None, "reason": worse.reason}
    assert summary["auroc"]["value"] > 0.5
    assert 0 < summary["operating"]["oracle"]["threshold"] < 1


@FEW_CASES
@given(SCORED, st.integers(0, 5))
def test_fixed_points_and_partial_auc_equal_those_of_scikit_learn(scored, seed):
    truth, probability = columns(scored)
    weights = np.random.default_rng(seed).integers(0, 4, truth.size)
    found = {
        name: row[0] for name, row in weighted_fixed_points(truth, probability, weights[None].astype(float)).items()
    }
    truth, probability = truth.repeat(weights), probability.repeat(weights)
    if not truth.any() or truth.all():
        assert all(np.isnan(value) for value in found.values())
        return
    false, true, _ = reference.roc_curve(truth, probability, drop_intermediate=False)
    assert found["sensitivity_at_specificity"] == pytest.approx(np.interp(0.1 + 1e-12, false, true), abs=1e-9)
    false, true, _ = reference.roc_curve(~truth, -probability, drop_intermediate=False)
    assert found["specificity_at_sensitivity"] == pytest.approx(np.interp(0.1 + 1e-12, false, true), abs=1e-9)
    assert found["partial_auc"] == pytest.approx(reference.roc_auc_score(truth, probability, max_fpr=0.1), abs=1e-9)


def test_slope_intercept_and_temperature_equal_logistic_regressions_of_scikit_learn():
    truth, logit = drawn(slope=0.6)
    weights = np.random.default_rng(1).integers(0, 3, truth.size)
    found = weighted_recalibration(truth, logit, np.stack([np.ones(truth.size), weights]).astype(float))
    for row, times in enumerate((np.ones(truth.size, int), weights)):
        x, y = logit.repeat(times), truth.repeat(times)
        free = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[:, None], y)
        assert found["slope"][row] == pytest.approx(free.coef_[0, 0], rel=1e-5)
        alone = brentq(lambda shift, x=x, y=y: np.sum(y - expit(x + shift)), -5, 5)
        assert found["intercept"][row] == pytest.approx(alone, abs=1e-6)
    through_zero = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logit[:, None], truth)
    temperature, why = fit_temperature(truth, logit)
    assert (1 / temperature, why) == (pytest.approx(through_zero.coef_[0, 0], rel=1e-5), "")
    after = weighted_recalibration(truth, logit / temperature, np.ones((1, truth.size)))
    assert after["slope"][0] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("truth", "logit", "why"),
    [
        ([1, 1, 0, 0], [2.0, 1.0, -1.0, -2.0], "parts the classes without an error"),
        ([0, 0, 1, 1], [2.0, 1.0, -1.0, -2.0], "no temperature does better"),
        ([1, 1], [2.0, 1.0], "one class only"),
        ([], [], "one class only"),
    ],
)
def test_there_is_not_always_a_temperature_or_a_slope(truth, logit, why):
    truth, logit = np.array(truth, bool), np.array(logit)
    temperature, reason = fit_temperature(truth, logit)
    assert temperature == 1
    assert why in reason
    assert np.isnan(weighted_recalibration(truth, logit, np.ones((1, truth.size)))["slope"][0])


def test_the_expected_calibration_error_equals_that_of_torchmetrics():
    import torch

    truth, logit = drawn(slope=0.5)
    probability = expit(logit)
    expected = binary_calibration_error(torch.tensor(probability), torch.tensor(truth).int(), n_bins=10)
    assert expected_calibration_error(truth, probability) == pytest.approx(float(expected), abs=1e-6)


def test_a_temperature_changes_no_order_and_what_was_before_comes_back():
    logit = np.linspace(-30, 30, 61)
    calibrated = expit(logit / 2.5)
    np.testing.assert_allclose(log_odds(uncalibrated(calibrated, 2.5)), logit, rtol=1e-3)
    predictions = predictions_of()
    raw = summarize(predictions, resamples=100)
    cold = predictions.assign(probability=expit(log_odds(predictions["probability"]) / 2.5))
    summary = summarize(cold, temperature=2.5, resamples=100)
    assert summary["auroc"] == raw["auroc"]
    before = summary["calibration"]["before"]
    for name in ("brier", "slope", "intercept"):
        assert before[name]["value"] == pytest.approx(raw["calibration"][name]["value"])
    assert summary["calibration"]["slope"]["value"] == pytest.approx(2.5 * before["slope"]["value"])
    assert before["ece"] == pytest.approx(raw["calibration"]["ece"])


def test_predictive_values_are_those_of_a_population_counted_out():
    found = predictive_values(np.array([0.9, 0.0]), np.array([0.8, 1.0]), 0.01)
    # of 1000: 10 malignant, 9 found; 990 benign, 198 of them predicted malignant
    assert found["ppv"][0] == pytest.approx(9 / (9 + 198))
    assert found["npv"][0] == pytest.approx(792 / 793)
    assert np.isnan(found["ppv"][1])
    assert found["npv"][1] == pytest.approx(0.99)


def test_every_level_has_a_point_of_its_own_and_another_rule_has_none():
    rows = predictions_of(error=0.6)
    rows = rows.assign(laterality=["LR"[n % 2] for n in range(len(rows))], label=rows["label"] * (rows.index % 2))
    points = choose_points(rows, "sensitivity@0.9", "max")
    assert list(points) == ["image", "breast", "patient"]
    operating = Operating(rule="sensitivity@0.9", points=points, level_rule="max")
    same = summarize_levels(rows, rule="max", operating=operating, resamples=100)
    other = summarize_levels(rows, rule="noisy_or", operating=operating, resamples=100)
    assert same["patient"]["sensitivity"]["value"] == points["patient"].sensitivity >= 0.9
    assert same["breast"]["threshold"] == points["breast"].threshold
    assert other["breast"]["threshold"] is None
    assert "level_rule=max" in other["breast"]["acc"]["reason"]
    assert choose_points(rows, 0.5, "max") == {}
    assert "no exam level" in operating.point("exam").reason


def test_an_operating_point_survives_a_checkpoint_and_a_hostile_one_is_refused():
    operating = Operating(rule="youden", points={"image": {"threshold": 0.3}}, temperature=1.7)
    assert read_operating(operating.model_dump(mode="json"), "x") == operating
    assert (operating.drawn, Operating(rule="youden").drawn) == (0.3, 0.5)
    assert operating.with_threshold(0.2).point("breast").threshold == 0.2
    assert operating.with_threshold(0.2).temperature == 1.7
    for wrong in ({"temperature": 0}, {"rule": "best"}, {"points": {"image": 3}}, {"other": 1}, {"rule": 2}):
        with pytest.raises(LemlightError, match="best is damaged"):
            read_operating(wrong, "best")


class Asked(Settings):
    threshold: Threshold


@pytest.mark.parametrize("threshold", [0, 0.5, 1, "youden", "sensitivity@0.95", "specificity@.9", "specificity@1.0"])
def test_thresholds_that_are_one(threshold):
    assert check_settings({"threshold": threshold}, Asked).threshold == threshold


@pytest.mark.parametrize("threshold", ["yuden", "sensitivity@90", "specificity@", 1.2, -1, True, None])
def test_thresholds_that_are_none_are_refused_by_name(threshold):
    with pytest.raises(LemlightError, match="threshold"):
        check_settings({"threshold": threshold}, Asked)

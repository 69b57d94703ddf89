import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics.functional import classification as torch_reference

from lemlight.errors import LemlightError
from lemlight.metrics.bootstrap import Undefined
from lemlight.metrics.classification import METRICS, classification_metrics, weighted_auroc, weighted_metrics

# Few distinct probabilities, so that ties within and between the classes are the rule; 0.5 is the threshold itself.
SCORED = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 1.0]), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


def columns(scored):
    truth, probability, weights = (np.array(column) for column in zip(*scored, strict=True))
    return truth, probability, weights.astype(float)


def same(value, expected):
    return isinstance(value, Undefined) if expected is None else value == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(SCORED)
def test_every_figure_equals_that_of_scikit_learn(scored):
    truth, probability, _ = columns(scored)
    called = probability > 0.5
    figures = classification_metrics(truth, probability)
    both, malignant, benign = 0 < truth.sum() < truth.size, truth.any(), not truth.all()
    assert tuple(figures) == METRICS
    assert same(figures["acc"], reference.accuracy_score(truth, called))
    assert same(figures["auroc"], reference.roc_auc_score(truth, probability) if both else None)
    assert same(figures["sensitivity"], reference.recall_score(truth, called) if malignant else None)
    assert same(figures["specificity"], reference.recall_score(truth, called, pos_label=False) if benign else None)
    assert same(figures["f1"], reference.f1_score(truth, called) if malignant else None)
    assert same(figures["brier"], np.mean((probability - truth) ** 2))


def test_every_figure_equals_that_of_torchmetrics():
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 2, 57)
    probability = np.round(generator.random(57), 1).astype(np.float32)
    figures = classification_metrics(truth, probability)
    given_to = torch.from_numpy(probability), torch.from_numpy(truth)
    for name, metric in (
        ("acc", torch_reference.binary_accuracy),
        ("auroc", torch_reference.binary_auroc),
        ("sensitivity", torch_reference.binary_recall),
        ("specificity", torch_reference.binary_specificity),
        ("f1", torch_reference.binary_f1_score),
    ):
        assert figures[name] == pytest.approx(float(metric(*given_to)), abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(SCORED)
def test_integer_weights_are_repeated_images(scored):
    truth, probability, weights = columns(scored)
    repeats = weights.astype(int)
    rows = weighted_metrics(truth, probability, np.stack([weights, np.ones_like(weights)]), 0.5)
    for row, times in ((0, repeats), (1, np.ones_like(repeats))):
        expected = classification_metrics(truth.repeat(times), probability.repeat(times))
        for name in METRICS:
            assert same(expected[name], None if np.isnan(rows[name][row]) else rows[name][row])


@settings(deadline=None, max_examples=50)
@given(SCORED)
def test_weighted_auc_equals_that_of_scikit_learn(scored):
    truth, probability, weights = columns(scored)
    auc = weighted_auroc(truth, probability, weights[None])[0]
    if weights[truth].sum() and weights[~truth].sum():
        kept = weights > 0
        expected = reference.roc_auc_score(truth[kept], probability[kept], sample_weight=weights[kept])
        assert auc == pytest.approx(expected, abs=1e-9)
    else:
        assert np.isnan(auc)


def test_figures_worked_out_by_hand():
    figures = classification_metrics([1, 1, 1, 0, 0], [0.9, 0.6, 0.5, 0.6, 0.1])
    assert figures["acc"] == pytest.approx(3 / 5)
    assert figures["sensitivity"] == pytest.approx(2 / 3)
    assert figures["specificity"] == pytest.approx(1 / 2)
    assert figures["f1"] == pytest.approx(4 / 6)
    assert figures["auroc"] == pytest.approx((2 + 1.5 + 1) / 6)
    assert figures["brier"] == pytest.approx((0.01 + 0.16 + 0.25 + 0.36 + 0.01) / 5)


def test_the_threshold_itself_is_benign_and_can_be_moved():
    assert classification_metrics([1, 0], [0.5, 0.5])["sensitivity"] == 0
    assert classification_metrics([1, 0], [0.5, 0.5], threshold=0.4)["sensitivity"] == 1


@pytest.mark.parametrize(
    ("label", "undefined"),
    [
        ([0, 0], {"auroc": "all images are benign", "sensitivity": "no malignant", "f1": "no malignant"}),
        ([1, 1], {"auroc": "all images are malignant", "specificity": "no benign"}),
        ([], dict.fromkeys(METRICS, "no images")),
    ],
)
def test_what_the_labels_do_not_define_is_undefined_with_its_reason(label, undefined):
    figures = classification_metrics(label, [0.2, 0.7][: len(label)])
    assert {name for name, value in figures.items() if isinstance(value, Undefined)} == set(undefined)
    for name, reason in undefined.items():
        assert reason in figures[name].reason


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([0, 1], [0.1, float("nan")], r"1 of 2 values in probability are NaN .* learning rate"),
        ([0, 1], [float("inf"), 0.2], "NaN or infinite"),
        ([0, 1], [0.1, 2.5], "outside .* sigmoid"),
        ([0, 2], [0.1, 0.2], "1 of 2 labels are neither 0"),
        ([0, float("nan")], [0.1, 0.2], "1 of 2 values in label are NaN or infinite$"),
        ([0, 1, 1], [0.1, 0.2], "3 labels but 2 probabilities"),
        ([[0, 1]], [[0.1, 0.2]], r"label must have shape \(N,\), got \(1, 2\); probability"),
        (["benign", "x"], [0.1, 0.2], "label has entries that are not numbers"),
    ],
)
def test_what_cannot_be_scored_is_refused(label, probability, message):
    with pytest.raises(LemlightError, match=message):
        classification_metrics(label, probability)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(LemlightError, match=r"labels are neither .*; 1 of 2 probabilities lie outside"):
        classification_metrics([0, 3], [0.5, -1])


def test_a_threshold_outside_the_unit_interval_is_refused():
    with pytest.raises(LemlightError, match="threshold"):
        classification_metrics([0, 1], [0.1, 0.2], threshold=1.5)

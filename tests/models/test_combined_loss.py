"""The combined loss (Eq. 8) against numbers worked out by hand."""

import math

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.models.classifier import Scores
from lemlight.models.losses import CombinedLoss, PoolingLoss
from tests.parts import combined_loss

# Probabilities 0.75 and 0.25 by the pooling, 0.5 and 0.5 by GAP.
SCORES = Scores(
    logit=torch.tensor([math.log(3), -math.log(3)]),
    gap_logit=torch.zeros(2),
    score_map=torch.zeros(2, 3, 4),
    regularizer=torch.tensor(0.5),
)
LABEL = torch.tensor([1.0, 1.0])
POOL = (math.log(4 / 3) + math.log(4)) / 2
GAP = math.log(2)


@pytest.mark.parametrize("lam", [0.0, 0.25, 1.0, torch.tensor(0.25)])
def test_by_hand(lam):
    losses = combined_loss(SCORES, LABEL, lam, beta=0.2)
    assert losses["gap"].item() == pytest.approx(GAP)
    assert losses["pool"].item() == pytest.approx(POOL)
    assert losses["regularizer"].item() == 0.5
    assert losses["total"].item() == pytest.approx((1 - float(lam)) * GAP + float(lam) * (POOL + 0.2 * 0.5))


def test_the_positive_weight_counts_malignant_images_more():
    losses = combined_loss(SCORES, torch.tensor([1, 0]), 1.0, beta=0.0, positive_weight=3.0)
    assert losses["pool"].item() == pytest.approx((3 * math.log(4 / 3) + math.log(4 / 3)) / 2)
    assert losses["gap"].item() == pytest.approx((3 + 1) * math.log(2) / 2)


def test_lambda_zero_sends_no_gradient_through_the_pooling():
    logit, gap_logit = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    scores = Scores(logit, gap_logit, torch.zeros(2, 1, 1), torch.tensor(1.0))
    combined_loss(scores, LABEL, 0.0, beta=1.0)["total"].backward()
    assert logit.grad.abs().sum() == 0
    assert gap_logit.grad.tolist() == [-0.25, -0.25]


def test_impossible_values_are_all_named():
    with pytest.raises(LemlightError) as error:
        combined_loss(SCORES, LABEL, 1.0, beta=-1.0, positive_weight=0.0)
    for word in ("beta=-1.0: must be", "positive_weight"):
        assert word in str(error.value)
    with pytest.raises(LemlightError, match=r"label must have shape \(2,\), got \(3,\)"):
        combined_loss(SCORES, torch.ones(3), 1.0, beta=1.0)


def test_the_loss_of_the_pooling_alone_knows_no_lambda_and_no_regularizer():
    losses = PoolingLoss()(SCORES, LABEL, 0.3)
    assert losses["total"].item() == losses["pool"].item()
    assert losses["total"].item() == combined_loss(SCORES, LABEL, 1.0, beta=0.0)["total"].item()


def test_balanced_is_the_ratio_of_the_classes_in_the_train_split():
    assert CombinedLoss(0.0, "balanced", train_labels=[0, 0, 0, 1]).positive_weight == 3
    assert CombinedLoss(0.0, "balanced", train_labels=[0, 0]).positive_weight is None

"""Scorer, classifier and losses: float32 scores under autocast, gradients, numbers worked out by hand."""

import copy
import math

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier, Scores
from lemlight.models.losses import CombinedLoss, PoolingLoss
from lemlight.models.pooling import Scorer
from tests.parts import POOLINGS, build_backbone, build_pooling, combined_loss


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone("resnet18")


def test_the_scorer_is_a_1x1_convolution():
    scorer = Scorer(5)
    torch.nn.init.normal_(scorer.bias)
    features = torch.rand(2, 5, 3, 4)
    expected = torch.nn.functional.conv2d(features, scorer.weight, scorer.bias).squeeze(1)
    assert torch.allclose(scorer(features), expected, atol=1e-6)
    last = features.to(memory_format=torch.channels_last)
    assert torch.allclose(scorer(last), expected, atol=1e-6)


def test_the_scorer_without_bias_and_its_start():
    scorer = Scorer(1000, bias=False)
    assert [name for name, _ in scorer.named_parameters()] == ["weight"]
    assert 0.008 < scorer.weight.std() < 0.012
    assert Scorer(4).bias.tolist() == [0.0]
    with pytest.raises(LemlightError, match="channels=0: must be greater than or equal to 1"):
        Scorer(0)


def test_scores_are_float32_under_autocast_and_do_not_tie():
    torch.manual_seed(0)
    scorer = Scorer(64)
    features = 1 + torch.rand(1, 64, 20, 31) / 100
    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer(features.bfloat16())
    assert scores.dtype == torch.float32
    assert torch.equal(scores, scorer(features.bfloat16().float()))
    assert scores.unique().numel() > 600
    assert scorer.bfloat16()(features).dtype == torch.float32


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_trains_every_parameter_and_runs_in_bf16(backbone, name):
    torch.manual_seed(0)
    model = MammogramClassifier(copy.deepcopy(backbone), Scorer(512), build_pooling(name, 512))
    scores = model(torch.rand(2, 1, 97, 130))
    assert scores.logit.shape == scores.gap_logit.shape == (2,)
    assert scores.score_map.shape == (2, 4, 5)
    assert scores.regularizer.shape == ()
    assert torch.allclose(scores.gap_logit, scores.score_map.mean(dim=(1, 2)))
    assert (scores.logit.sigmoid() - 0.5).abs().max() < 0.4
    combined_loss(scores, torch.tensor([0.0, 1.0]), 0.5, 0.01)["total"].backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name

    images = torch.rand(2, 1, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.eval()(images)
        loss = combined_loss(scores, torch.tensor([0.0, 1.0]), 0.5, 0.01)["total"]
    assert scores.score_map.dtype == scores.logit.dtype == loss.dtype == torch.float32
    assert loss.isfinite()
    assert torch.allclose(scores.gap_logit, model(images).gap_logit, atol=0.05)


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
    with pytest.raises(LemlightError, match=r"beta=-1.0: must be.*positive_weight"):
        CombinedLoss(-1.0, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_cross_entropy_with_soft_targets(smoothing):
    label = torch.tensor([1.0, 0.0])
    soft = label * (1 - smoothing) + smoothing / 2

    def entropy(logit):
        return -(soft * torch.nn.functional.logsigmoid(logit) + (1 - soft) * torch.nn.functional.logsigmoid(-logit))

    losses = CombinedLoss(0.0, label_smoothing=smoothing)(SCORES, label, 0.3)
    assert losses["pool"].item() == pytest.approx(entropy(SCORES.logit).mean().item(), rel=1e-5)
    assert losses["gap"].item() == pytest.approx(entropy(SCORES.gap_logit).mean().item(), rel=1e-5)
    assert PoolingLoss(label_smoothing=smoothing)(SCORES, label, 0.3)["total"].item() == losses["pool"].item()
    with pytest.raises(LemlightError, match="label_smoothing"):
        CombinedLoss(0.0, label_smoothing=1.0)


def test_the_loss_of_the_pooling_alone_knows_no_lambda_and_no_regularizer():
    losses = PoolingLoss()(SCORES, LABEL, 0.3)
    assert losses["total"].item() == losses["pool"].item()
    assert losses["total"].item() == combined_loss(SCORES, LABEL, 1.0, beta=0.0)["total"].item()


def test_balanced_is_the_ratio_of_the_classes_in_the_train_split():
    assert CombinedLoss(0.0, "balanced", train_labels=[0, 0, 0, 1]).positive_weight == 3
    assert CombinedLoss(0.0, "balanced", train_labels=[0, 0]).positive_weight is None

"""Scorer and classifier: float32 scores under autocast, gradients, every pooling on the real network."""

import copy

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier
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
def test_every_pooling_trains_every_parameter(backbone, name):
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


@pytest.mark.parametrize("name", POOLINGS)
def test_bf16_autocast_on_the_cpu(backbone, name):
    torch.manual_seed(0)
    model = MammogramClassifier(copy.deepcopy(backbone), Scorer(512), build_pooling(name, 512)).eval()
    images = torch.rand(2, 1, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(images)
        loss = combined_loss(scores, torch.tensor([0.0, 1.0]), 0.5, 0.01)["total"]
    assert scores.score_map.dtype == scores.logit.dtype == torch.float32
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert torch.allclose(scores.gap_logit, model(images).gap_logit, atol=0.05)


def test_lem_learns_to_tell_two_images_apart(backbone):
    torch.manual_seed(0)
    model = MammogramClassifier(copy.deepcopy(backbone), Scorer(512), build_pooling("lem", 512))
    images = torch.stack([torch.rand(1, 64, 64), torch.rand(1, 64, 64).cumsum(2) / 64])
    label = torch.tensor([0.0, 1.0])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = combined_loss(model(images), label, 0.5, 0.01)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3

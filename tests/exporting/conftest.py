import pytest
import torch
from torch import nn

from lemlight.models.backbones import Backbone
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.exported import trace
from lemlight.models.pooling import Scorer, build_pooling

SHAPE = (83, 61)


def make(backbone=None, **pooling):
    """A network whose scores spread by some units around 0: its probabilities are neither 0 nor 1 nor all alike."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 5, stride=4, padding=2), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, stride=2)]
    backbone = backbone or Backbone("tiny", nn.Sequential(*layers, nn.ReLU()), (0.4, 0.2))
    channels = backbone.out_channels
    classifier = MammogramClassifier(backbone, Scorer(channels), build_pooling(channels=channels, **pooling)).eval()
    with torch.no_grad():
        scores = classifier(torch.rand(4, 1, *SHAPE)).score_map
        classifier.scorer.weight /= scores.std()
        classifier.scorer.bias -= scores.mean() / scores.std()
    return classifier.requires_grad_(False)


@pytest.fixture(scope="session")
def make_classifier():
    return make


@pytest.fixture(scope="session")
def gap():
    return make(name="gap")


@pytest.fixture(scope="session")
def gap_program(gap):
    return trace(gap, SHAPE)

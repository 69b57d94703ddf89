"""Moved copies of images and several networks as one, against loops."""

import pytest
import torch
from torch import nn

from lemlight.models.classifier import MammogramClassifier
from lemlight.models.ensemble import Ensemble, Move, moves_of
from lemlight.models.pooling import Scorer
from tests.parts import build_pooling


def network(seed, stride=4, inside_breast=False, temperature=1.0):
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Conv2d(1, 3, stride, stride=stride), nn.ReLU())
    backbone.output_stride = stride
    classifier = MammogramClassifier(backbone, Scorer(3), build_pooling("lem", 3), inside_breast).eval()
    nn.init.normal_(classifier.scorer.weight)
    classifier.temperature = temperature
    return classifier


@pytest.mark.parametrize(("names", "passes"), [([], 1), (["flip"], 2), (["shift"], 5), (["shift", "flip"], 10)])
def test_the_copies_by_hand(names, passes):
    moves = moves_of(names, 8)
    assert len(set(moves)) == passes
    assert moves[0] == Move()
    assert {max(abs(move.down), abs(move.right)) for move in moves[1:] if not move.mirrored} <= {2}
    image = torch.arange(1.0, 13).view(1, 3, 4)
    assert torch.equal(Move().there(image), image)
    assert Move(1, -1, True).there(image)[0].tolist() == [[0, 0, 0, 0], [0, 4, 3, 2], [0, 8, 7, 6]]
    assert Move(1, -1, True).back(Move(1, -1, True).there(image))[0].tolist() == [[0, 2, 3, 4], [0, 6, 7, 8], [0] * 4]
    assert moves_of(["shift"], 2)[1] == Move(1, 0)  # a px at least


def test_the_logit_is_the_mean_of_calibrated_ones_over_networks_and_copies():
    networks = [network(0), network(1, temperature=2.5), network(2, stride=8, inside_breast=True)]
    moves = moves_of(["flip", "shift"], 4)
    images = torch.rand(4, 1, 24, 16)
    images[:, :, :, 10:] = 0
    ensemble = Ensemble(networks, moves)
    for bag in (None, torch.tensor([0, 0, 1, 1])):
        every = [one(move.there(images), bag) for one in networks for move in moves]
        found = ensemble(images, bag)
        torch.testing.assert_close(found.logit, torch.stack([one.logit for one in every]).mean(0))
        torch.testing.assert_close(found.gap_logit, torch.stack([one.gap_logit for one in every]).mean(0))
    assert found.score_map.shape == (4, 6, 4)
    assert ensemble.output_stride == 4
    alike = Ensemble(networks[:2])(images).score_map
    torch.testing.assert_close(alike, (networks[0](images).score_map + networks[1](images).score_map) / 2)
    assert torch.equal(Ensemble(networks[:1])(images).logit, networks[0](images).logit)

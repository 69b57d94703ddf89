"""Maps of small networks against Eq. 10 in naive loops."""

import numpy as np
import pytest
import torch
from torch import nn

from lemlight.localization.excitation_backprop import location_maps
from tests.localization.propagation.by_hand import Network, Shifted, at_features, matrix, randomised, share_out

WEIGHTS = [0.7, -0.4, 0.2]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def extrema(shape):
    """A maximum that starts with 1, one that starts with 2.5, and a minimum."""
    maxima, minima = torch.zeros(1, *shape), torch.zeros(1, *shape)
    maxima[0, 0, 0], maxima[0, -1, -1], minima[0, 1, 0] = 1, 2.5, 1
    return maxima, minima


def values(layers, images):
    """The input of every layer, and the last output, each (channels, rows, columns)."""
    maps = [images]
    with torch.no_grad():
        for layer in layers:
            maps.append(layer(maps[-1]))
    return maps


def compare(network, images, maxima, minima, expected, lost):
    found = location_maps(network, images, maxima, minima)
    np.testing.assert_allclose(found.maps[0].numpy(), expected.reshape(images.shape[2:]), atol=1e-5)
    assert float(found.lost[0]) == pytest.approx(lost, abs=1e-5)
    assert float(found.started[0]) == pytest.approx(float(maxima.sum() + minima.sum()))
    assert expected.sum() + lost == pytest.approx(float(found.started[0]))


@pytest.mark.parametrize("shifted", [False, True], ids=["image", "normalised image"])
def test_two_convolutions_with_relu(shifted):
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2, padding=1), nn.ReLU()]
    network = Network((Shifted if shifted else nn.Sequential)(*layers), WEIGHTS)
    images = torch.rand(1, 1, 7, 5)
    images[:, :, :3, :2] = 0  # air
    maps = values(layers, (images - 0.5) / 0.25 if shifted else images)
    maxima, minima = extrema(maps[-1].shape[2:])
    importance, lost = at_features(maps[-1][0].numpy(), WEIGHTS, maxima[0], minima[0])
    importance, lost_above = share_out(matrix(layers[2], maps[2]), maps[2], importance)
    # the first convolution sees the image in [0, 1], however it was normalised
    importance, lost_below = share_out(matrix(layers[0], images), images, importance)
    compare(network, images, maxima, minima, importance, lost + lost_above + lost_below)
    assert importance.reshape(7, 5)[:3, :2].sum() == 0


def test_groups_dilation_and_padding_by_a_layer():
    layers = [
        nn.ZeroPad2d((0, 1, 1, 2)),
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 3, 1),
        nn.ReLU(),
    ]
    network, images = Network(nn.Sequential(*layers), WEIGHTS), torch.rand(1, 1, 6, 8)
    maps = values(layers, images)
    maxima, minima = extrema(maps[-1].shape[2:])
    importance, total_lost = at_features(maps[-1][0].numpy(), WEIGHTS, maxima[0], minima[0])
    for number in (5, 3, 1):
        importance, lost = share_out(matrix(layers[number], maps[number]), maps[number], importance)
        total_lost += lost
    compare(network, images, maxima, minima, importance.reshape(9, 9)[1:7, :8], total_lost)


def test_batch_norm_behind_a_convolution_is_part_of_it():
    convolution, norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
    layers = randomised(nn.Sequential(convolution, norm, nn.ReLU())).eval()
    norm.weight.data = torch.tensor([0.8, -1.2, -0.3])
    network, images = Network(layers, WEIGHTS), torch.rand(1, 1, 5, 6)
    maps = values(layers, images)
    maxima, minima = extrema((5, 6))
    importance, lost = at_features(maps[-1][0].numpy(), WEIGHTS, maxima[0], minima[0])
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
    folded = matrix(convolution, images) * np.repeat(scale, 30)[:, None]
    importance, lost_below = share_out(folded, images, importance)
    compare(network, images, maxima, minima, importance, lost + lost_below)


class NormFirst(nn.Module):
    """DenseNet's order, and its concatenation."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.convolution = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, images):
        first = torch.relu(self.stem(images))
        return torch.relu(torch.cat([first, self.convolution(torch.relu(self.norm(first)))], 1))


def test_batch_norm_that_comes_first_hands_through_and_concatenation_splits_by_channel():
    backbone = randomised(NormFirst()).eval()
    network, images = Network(backbone, WEIGHTS), torch.rand(1, 1, 5, 4)
    with torch.no_grad():
        first = torch.relu(backbone.stem(images))
        normed = torch.relu(backbone.norm(first))
        features = backbone(images)
    maxima, minima = extrema((5, 4))
    importance, total_lost = at_features(features[0].numpy(), WEIGHTS, maxima[0], minima[0])
    through, lost = share_out(matrix(backbone.convolution, normed), normed, importance[2:])
    total_lost += lost
    importance, lost = share_out(matrix(backbone.stem, images), images, importance[:2].ravel() + through)
    compare(network, images, maxima, minima, importance, total_lost + lost)


class Residual(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.stem, self.branch, self.in_place = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 3, padding=1), in_place

    def forward(self, images):
        short = torch.tanh(self.stem(images))
        branch = self.branch(nn.functional.relu(short))
        if self.in_place:
            branch += short
            return nn.functional.relu(branch, inplace=True)
        return torch.relu(branch + short)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_residual_sum_splits_in_proportion_to_the_positive_parts(in_place):
    backbone = randomised(Residual(in_place)).eval()
    network, images = Network(backbone, WEIGHTS), torch.rand(1, 1, 4, 5)
    with torch.no_grad():
        short = torch.tanh(backbone.stem(images))
        branch = backbone.branch(torch.relu(short))
        features = torch.relu(short + branch)
    maxima, minima = extrema((4, 5))
    importance, total_lost = at_features(features[0].numpy(), WEIGHTS, maxima[0], minima[0])
    left, right = (np.maximum(part[0].double().numpy(), 0) for part in (branch, short))
    share = np.divide(left, left + right, out=np.zeros_like(left), where=left + right > 0)
    # features are positive where importance is, and so is one of the two
    through, lost = share_out(matrix(backbone.branch, short), short, importance * share)
    importance = (importance * (1 - share)).ravel() + through
    importance, lost_below = share_out(matrix(backbone.stem, images), images, importance)
    compare(network, images, maxima, minima, importance, total_lost + lost + lost_below)

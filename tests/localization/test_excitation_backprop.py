"""Location maps against Eq. 10 in naive loops; of whole networks nothing is lost uncounted."""

import numpy as np
import pytest
import torch
from torch import nn

from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.lem import local_extrema
from lemlight.models.pooling import Scorer
from tests.localization.by_hand import (
    Network,
    Shifted,
    at_features,
    distribute,
    location_maps,
    matrix,
    opened,
    randomised,
)
from tests.parts import build_backbone, build_pooling

NAMES = (
    "resnet18 resnet50 densenet121 vgg16 vgg16_bn efficientnet_b0 convnext_tiny mobilenet_v2 mobilenet_v3_large "
    "efficientnet_lite0 shufflenet_v2_x1_0 googlenet"
)
NETWORKS = [(name, 32) for name in NAMES.split()]
TIMM = ("convnext_atto", "tf_efficientnetv2_b0", "regnety_002", "resnext26ts", "mobilenetv3_small_050")
NETWORKS += [(f"timm {name}", None) for name in TIMM]
NETWORKS += [(name, 16) for name in ("resnet18", "densenet121", "vgg16_bn", "efficientnet_lite0")]
# how much may arrive where nothing positive reaches; of random weights, one in two of them negative
LOST = 0.5


def build(name, output_stride=32, weights=None):
    torch.manual_seed(0)
    weights = weights or ("bundled" if name == "efficientnet_lite0" else "none")
    backbone = build_backbone(name, weights=weights, output_stride=output_stride)
    if weights == "none":
        opened(randomised(backbone))
    scorer = Scorer(backbone.out_channels)
    nn.init.normal_(scorer.weight)
    return MammogramClassifier(backbone, scorer, build_pooling("lem", backbone.out_channels)).eval()


def breasts(images, height, width):
    """Noise with a strip of air on the right."""
    batch = 0.1 + 0.9 * torch.rand(images, 1, height, width, generator=torch.Generator().manual_seed(1))
    batch[..., 3 * width // 4 :] = 0
    return batch


def extrema_of(classifier, images):
    with torch.no_grad():
        return local_extrema(classifier(images).score_map)


@pytest.fixture(scope="module")
def resnet():
    return build("resnet18")


@pytest.mark.parametrize(("name", "output_stride"), NETWORKS)
def test_what_starts_arrives_or_is_counted_as_lost(name, output_stride):
    classifier, images = build(name, output_stride), breasts(2, 96, 128)
    maxima, minima = extrema_of(classifier, images)
    assert maxima.any()
    found = location_maps(classifier, images, maxima, minima)
    assert found.maps.shape == (2, 96, 128)
    assert found.maps.dtype == torch.float32
    torch.testing.assert_close(found.started, (maxima.sum((1, 2)) + minima.sum((1, 2))).double())
    torch.testing.assert_close(found.maps.double().sum((1, 2)) + found.lost, found.started, rtol=1e-3, atol=0)
    assert (found.maps >= 0).all()
    assert (found.lost >= 0).all()
    assert (found.lost < LOST * found.started).all()
    assert found.maps[..., 96:].sum() == 0  # air


def test_of_trained_weights_only_what_would_land_in_the_air_is_lost():
    """The stem answers to air by its bias alone, and air takes no importance."""
    classifier, images = build("efficientnet_lite0"), breasts(1, 160, 96)
    full = images.where(images > 0, 0.5)
    lost = [location_maps(classifier, x, *extrema_of(classifier, x)) for x in (full, images)]
    assert lost[0].lost.item() < 0.05 * lost[0].started.item()
    assert lost[1].lost.item() < LOST * lost[1].started.item()


def test_maps_of_a_batch_do_not_see_one_another(resnet):
    images = breasts(2, 64, 96)
    maxima, minima = extrema_of(resnet, images)
    together = location_maps(resnet, images, maxima, minima)
    for number in range(2):
        one = slice(number, number + 1)
        alone = location_maps(resnet, images[one], maxima[one], minima[one])
        torch.testing.assert_close(together.maps[one], alone.maps, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(together.lost[one], alone.lost, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [(33, 47), (20, 9)])
def test_images_smaller_than_the_receptive_field_of_odd_sizes_and_black_ones(resnet, size):
    for images in (breasts(1, *size), torch.zeros(1, 1, *size)):
        with torch.no_grad():
            maxima = torch.ones_like(resnet(images).score_map)
        found = location_maps(resnet, images, maxima, 0 * maxima)
        assert found.maps.shape == (1, *size)
        assert found.maps.double().sum() + found.lost[0] == pytest.approx(maxima.sum().item(), rel=1e-3)
    assert not found.maps.any()  # black: everything is lost


def test_a_network_without_a_convolution_is_refused():
    network, maxima = Network(nn.ReLU(), [1.0]), torch.ones(1, 4, 4)
    with pytest.raises(LemlightError, match="convolution"):
        location_maps(network, torch.rand(1, 1, 4, 4), maxima, maxima)


WEIGHTS = [0.7, -0.4, 0.2]


def values(layers, images):
    """The input of every layer, and the last output, each (1, channels, rows, columns)."""
    maps = [images]
    with torch.no_grad():
        for layer in layers:
            maps.append(layer(maps[-1]))
    return maps


class Account:
    """Importance by hand, from a maximum that starts with 1, one that starts with 2.5, and a minimum."""

    def __init__(self, features):
        shape = features.shape[2:]
        self.maxima, self.minima = torch.zeros(1, *shape), torch.zeros(1, *shape)
        self.maxima[0, 0, 0], self.maxima[0, -1, -1], self.minima[0, 1, 0] = 1, 2.5, 1
        self.importance, self.lost = at_features(features[0].numpy(), WEIGHTS, self.maxima[0], self.minima[0])

    def down(self, weights, source, importance=None):
        """Hand importance, all that there is or this part, to the source of a convolution."""
        handed, lost = distribute(weights, source, self.importance if importance is None else importance)
        self.lost += lost
        return handed

    def compare(self, backbone, images, importance):
        found = location_maps(Network(backbone, WEIGHTS), images, self.maxima, self.minima)
        np.testing.assert_allclose(found.maps[0].numpy(), importance.reshape(images.shape[2:]), atol=1e-5)
        assert float(found.lost[0]) == pytest.approx(self.lost, abs=1e-5)
        assert float(found.started[0]) == pytest.approx(4.5)
        assert importance.sum() + self.lost == pytest.approx(4.5)


@pytest.mark.parametrize("shifted", [False, True], ids=["image", "normalised image"])
def test_two_convolutions_with_relu(shifted):
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2, padding=1), nn.ReLU()]
    images = torch.rand(1, 1, 7, 5)
    images[:, :, :3, :2] = 0  # air
    maps = values(layers, (images - 0.5) / 0.25 if shifted else images)
    account = Account(maps[-1])
    account.importance = account.down(matrix(layers[2], maps[2]), maps[2])
    # the first convolution sees the image in [0, 1], however it was normalised
    importance = account.down(matrix(layers[0], images), images)
    account.compare((Shifted if shifted else nn.Sequential)(*layers), images, importance)
    assert importance.reshape(7, 5)[:3, :2].sum() == 0


def test_groups_dilation_and_padding_by_a_layer():
    torch.manual_seed(3)
    layers = [
        nn.ZeroPad2d((0, 1, 1, 2)),
        nn.Conv2d(1, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 3, 1),
        nn.ReLU(),
    ]
    images = torch.rand(1, 1, 6, 8)
    maps = values(layers, images)
    account = Account(maps[-1])
    for number in (5, 3, 1):
        account.importance = account.down(matrix(layers[number], maps[number]), maps[number])
    account.compare(nn.Sequential(*layers), images, account.importance.reshape(9, 9)[1:7, :8])


def test_batch_norm_behind_a_convolution_is_part_of_it():
    convolution, norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
    layers = randomised(nn.Sequential(convolution, norm, nn.ReLU())).eval()
    norm.weight.data = torch.tensor([0.8, -1.2, -0.3])
    images = torch.rand(1, 1, 5, 6)
    account = Account(values(layers, images)[-1])
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
    folded = matrix(convolution, images) * np.repeat(scale, 30)[:, None]
    account.compare(layers, images, account.down(folded, images))


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
    backbone, images = randomised(NormFirst()).eval(), torch.rand(1, 1, 5, 4)
    with torch.no_grad():
        normed = torch.relu(backbone.norm(torch.relu(backbone.stem(images))))
        account = Account(backbone(images))
    through = account.down(matrix(backbone.convolution, normed), normed, account.importance[2:])
    arrived = account.importance[:2].ravel() + through
    account.compare(backbone, images, account.down(matrix(backbone.stem, images), images, arrived))


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
    backbone, images = randomised(Residual(in_place)).eval(), torch.rand(1, 1, 4, 5)
    with torch.no_grad():
        short = torch.tanh(backbone.stem(images))
        branch = backbone.branch(torch.relu(short))
        account = Account(torch.relu(short + branch))
    left, right = (np.maximum(part[0].double().numpy(), 0) for part in (branch, short))
    fraction = np.divide(left, left + right, out=np.zeros_like(left), where=left + right > 0)
    # features are positive where importance is, and so is one of the two
    through = account.down(matrix(backbone.branch, short), short, account.importance * fraction)
    arrived = (account.importance * (1 - fraction)).ravel() + through
    account.compare(backbone, images, account.down(matrix(backbone.stem, images), images, arrived))

"""Location maps of whole networks: nothing is lost uncounted, and the network comes back as it was."""

import copy

import pytest
import torch
from torch import nn

from lemlight.errors import LemlightError
from lemlight.localization.excitation_backprop import Passage, location_maps
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.lem import local_extrema
from lemlight.models.pooling import Scorer
from tests.localization.propagation.by_hand import Network, randomised
from tests.parts import build_backbone, build_pooling

NETWORKS = [
    ("resnet18", 32),
    ("resnet50", 32),
    ("resnet101", 32),
    ("densenet121", 32),
    ("densenet169", 32),
    ("vgg16", 32),
    ("vgg16_bn", 32),
    ("efficientnet_b0", 32),
    ("convnext_tiny", 32),
    ("mobilenet_v2", 32),
    ("mobilenet_v3_large", 32),
    ("efficientnet_lite0", 32),
    ("shufflenet_v2_x1_0", 32),
    ("googlenet", 32),
    ("resnet18", 16),
    ("densenet121", 16),
    ("vgg16_bn", 16),
    ("efficientnet_lite0", 16),
]
# how much may arrive where nothing positive reaches; of random weights, one in two of them negative
LOST = 0.5


def build(name, output_stride=32, weights=None):
    torch.manual_seed(0)
    weights = weights or ("bundled" if name == "efficientnet_lite0" else "none")
    backbone = build_backbone(name, weights=weights, output_stride=output_stride)
    if weights == "none":
        randomised(backbone)
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


def test_all_extrema_at_once_are_the_sum_of_each_on_its_own(resnet):
    images = breasts(1, 96, 128)
    maxima, minima = torch.zeros(2, 1, 3, 4)
    maxima[0, 0, 1], maxima[0, 2, 3], minima[0, 1, 2], minima[0, 2, 0] = 1, 0.5, 1, 2
    together = location_maps(resnet, images, maxima, minima)
    passage, nothing = Passage(resnet, images, repeat=True), torch.zeros_like(maxima)
    singles = [passage.back(one, nothing) for one in each_alone(maxima)]
    singles += [passage.back(nothing, one) for one in each_alone(minima)]
    assert [one.started.item() for one in singles] == [1, 0.5, 1, 2]
    torch.testing.assert_close(sum(one.maps for one in singles), together.maps, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(sum(one.lost for one in singles), together.lost, rtol=1e-3, atol=1e-6)


def each_alone(cells):
    return [torch.zeros_like(cells).index_put_(tuple(place.unbind()), cells[tuple(place)]) for place in cells.nonzero()]


def test_maps_of_a_batch_do_not_see_one_another(resnet):
    images = breasts(2, 64, 96)
    maxima, minima = extrema_of(resnet, images)
    together = location_maps(resnet, images, maxima, minima)
    for number in range(2):
        one = slice(number, number + 1)
        alone = location_maps(resnet, images[one], maxima[one], minima[one])
        torch.testing.assert_close(together.maps[one], alone.maps, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(together.lost[one], alone.lost, rtol=1e-3, atol=1e-6)


def test_maxima_and_minima_follow_weights_of_their_own_sign(resnet):
    images, maxima = breasts(1, 64, 64), torch.ones(1, 2, 2, dtype=torch.bool)
    turned = copy.deepcopy(resnet)
    turned.scorer.weight.data.neg_()
    as_maxima = location_maps(resnet, images, maxima, ~maxima)
    as_minima = location_maps(turned, images, ~maxima, maxima)
    torch.testing.assert_close(as_maxima.maps, as_minima.maps)
    assert not torch.allclose(as_maxima.maps, location_maps(turned, images, maxima, ~maxima).maps)


def test_without_an_extremum_the_map_is_zero(resnet):
    nothing = torch.zeros(1, 2, 3, dtype=torch.bool)
    found = location_maps(resnet, breasts(1, 64, 96), nothing, nothing)
    assert found.maps.shape == (1, 64, 96)
    assert not found.maps.any()
    assert found.started.item() == found.lost.item() == 0


@pytest.mark.parametrize("size", [(33, 47), (20, 9)])
def test_images_smaller_than_the_receptive_field_and_of_odd_sizes(resnet, size):
    images = breasts(1, *size)
    with torch.no_grad():
        maxima = torch.ones_like(resnet(images).score_map)
    found = location_maps(resnet, images, maxima, 0 * maxima)
    assert found.maps.shape == (1, *size)
    assert found.maps.double().sum() + found.lost[0] == pytest.approx(maxima.sum().item(), rel=1e-3)


def test_a_black_image_loses_everything_and_is_finite(resnet):
    maxima = torch.ones(1, 2, 2)
    found = location_maps(resnet, torch.zeros(1, 1, 64, 64), maxima, 0 * maxima)
    assert not found.maps.any()
    assert found.lost.item() == pytest.approx(4, rel=1e-3)


def test_a_network_without_a_convolution_is_refused():
    network, maxima = Network(nn.ReLU(), [1.0]), torch.ones(1, 4, 4)
    with pytest.raises(LemlightError, match="convolution"):
        location_maps(network, torch.rand(1, 1, 4, 4), maxima, maxima)


class Failing(nn.Module):
    def forward(self, images):
        raise RuntimeError("stop")


def state_of(classifier):
    return (
        {name: tensor.clone() for name, tensor in classifier.state_dict().items()},
        {name: module.training for name, module in classifier.named_modules()},
        {name: (parameter.requires_grad, parameter.grad) for name, parameter in classifier.named_parameters()},
        [(len(module._forward_hooks), len(module._backward_hooks)) for module in classifier.modules()],
        torch.get_rng_state(),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_comes_back_as_it_was(fails):
    classifier = build("efficientnet_lite0").train()
    classifier.backbone.features._bn0.eval()
    for parameter in classifier.backbone.features._conv_stem.parameters():
        parameter.requires_grad = False
    images, maxima = breasts(2, 64, 64), torch.ones(2, 2, 2)
    if fails:
        classifier.backbone.features.append(Failing())
    before, given = state_of(classifier), images.clone()
    if fails:
        with pytest.raises(RuntimeError, match="stop"):
            location_maps(classifier, images, maxima, maxima)
    else:
        location_maps(classifier, images, maxima, maxima)
    after = state_of(classifier)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:4] == before[1:4]
    assert torch.equal(after[4], before[4])
    assert torch.equal(images, given)
    assert not images.requires_grad
    # no mode is left behind
    assert torch.nn.functional.conv2d(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).grad_fn is None


def test_training_mode_autocast_and_inference_mode_change_nothing(resnet):
    images, maxima = breasts(1, 64, 64), torch.ones(1, 2, 2)
    expected = location_maps(resnet, images, maxima, maxima)
    resnet.train()
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = location_maps(resnet, images * 1, maxima * 1, maxima * 1)
    finally:
        resnet.eval()
    assert found.maps.dtype == torch.float32
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small"])
def test_in_place_layers_give_the_same_map(name):
    in_place = build(name)
    plain = copy.deepcopy(in_place)
    for module in plain.modules():
        if "inplace" in vars(module):
            module.inplace = False
    images = breasts(1, 64, 96)
    maxima, minima = extrema_of(plain, images)
    expected = location_maps(plain, images, maxima, minima)
    found = location_maps(in_place, images, maxima, minima)
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-4, atol=1e-7)

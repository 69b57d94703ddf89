"""The rivals' closed forms, what they have in common, and that they leave a network as they found it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lemlight.errors import LemlightError
from lemlight.localization.baselines import RIVALS, cam, grad_cam, grad_cam_pp, rival_maps, smooth_grad
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import POOLINGS, Scorer, build_pooling


class Layers(nn.Sequential):
    """A small CNN of stride 24 with everything that has a mode: 97 x 130 px -> 5 x 6 cells."""

    def __init__(self):
        super().__init__(
            *[nn.Conv2d(1, 8, 7, stride=4, padding=3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 3, 1)],
            *[nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.5), nn.ReLU()],
        )


@pytest.fixture
def classifier():
    return with_pooling("gap")


@pytest.fixture
def images():
    return torch.rand(2, 1, 97, 130, generator=torch.Generator().manual_seed(1))


BOTH = torch.tensor([True, False])
SIGNS = torch.tensor([1.0, -1.0])


def with_pooling(name):
    torch.manual_seed(0)
    classifier = MammogramClassifier(Layers(), Scorer(16), build_pooling(name, 16)).eval()
    nn.init.normal_(classifier.scorer.weight)
    nn.init.normal_(classifier.scorer.bias)
    return classifier


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_rival_on_every_pooling(images, pooling, name):
    classifier = with_pooling(pooling)
    maps = rival_maps(name, classifier, images, BOTH)
    assert maps.shape == (2, 97, 130)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert (maps >= 0).all()
    assert maps.any()


def test_cam_is_the_score_map_enlarged(classifier, images):
    with torch.no_grad():
        classifier.scorer.bias -= classifier(images).score_map.mean()
        score_map = classifier(images).score_map
    assert (score_map > 0).any()
    assert (score_map < 0).any()
    expected = torch.stack([score_map[0].relu(), (-score_map[1]).relu()])
    assert torch.equal(cam(classifier, images, SIGNS), expected)
    enlarged = functional.interpolate(expected[:, None], (97, 130), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(rival_maps("cam", classifier, images, BOTH), enlarged)


def test_grad_cam_with_gap_is_cam_without_the_bias(classifier, images):
    with torch.no_grad():
        scores = classifier(images).score_map - classifier.scorer.bias
    expected = (SIGNS[:, None, None] * scores).relu() / 30  # 5 x 6 cells
    assert torch.allclose(grad_cam(classifier, images, SIGNS), expected, atol=1e-6)


def test_grad_cam_pp_with_gap_in_closed_form(classifier, images):
    # every cell has the gradient w/30, so that w_c = relu(w) / (2 + relu(w)/20 sum A)
    with torch.no_grad():
        features = classifier.backbone(images)
    positive = (SIGNS[:, None] * classifier.scorer.weight.detach().view(1, -1)).relu()
    weights = positive / (2 + positive / 30 * features.sum(dim=(2, 3)))
    expected = (weights[:, :, None, None] * features).sum(dim=1)
    assert torch.allclose(grad_cam_pp(classifier, images, SIGNS), expected, rtol=1e-4)


def test_the_gradient_predicts_what_a_pixel_changes(classifier, images):
    classifier, images = classifier.double(), images.double()
    for pixel in [(0, 0), (40, 101), (96, 3)]:
        step = torch.zeros_like(images[0])
        step[0][pixel] = 1e-5
        with torch.no_grad():
            change = classifier(images + step).logit - classifier(images - step).logit
        expected = (change / 2e-5).abs().float()
        found = rival_maps("gradient", classifier, images, BOTH)[:, pixel[0], pixel[1]]
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_smooth_grad_without_noise_is_the_gradient(classifier, images):
    with torch.enable_grad():
        found = smooth_grad(classifier, images, SIGNS, noise=0.0, copies=2)
    assert torch.allclose(found, rival_maps("gradient", classifier, images, BOTH))


def test_smooth_grad_is_seeded_and_leaves_the_global_random_state(classifier, images):
    state = torch.get_rng_state()
    first = rival_maps("smooth_grad", classifier, images, BOTH, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(rival_maps("smooth_grad", classifier, images, BOTH, seed=3), first)
    assert not torch.allclose(rival_maps("smooth_grad", classifier, images, BOTH, seed=4), first, rtol=1e-2)


@pytest.mark.parametrize("name", RIVALS)
def test_a_map_does_not_depend_on_the_rest_of_the_batch(images, name):
    classifier = with_pooling("lem")
    together = rival_maps(name, classifier, images, BOTH)
    alone = rival_maps(name, classifier, images[1:], BOTH[1:])
    scale = together.max()
    assert torch.allclose(together[1:] / scale, alone / scale, atol=1e-4)


@pytest.mark.parametrize("name", RIVALS)
def test_a_constant_logit_gives_a_zero_map(images, name):
    classifier = with_pooling("lem")
    torch.nn.init.zeros_(classifier.scorer.weight)
    torch.nn.init.zeros_(classifier.scorer.bias)
    assert torch.equal(rival_maps(name, classifier, images, BOTH), torch.zeros(2, 97, 130))


def snapshot(classifier):
    tensors = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    modes = [module.training for module in classifier.modules()]
    return tensors, modes, [parameter.requires_grad for parameter in classifier.parameters()]


def assert_untouched(classifier, before):
    tensors, modes, requires_grad = snapshot(classifier)
    assert all(torch.equal(tensors[name], before[0][name]) for name in before[0])
    assert (modes, requires_grad) == before[1:]
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in classifier.modules())


def half_frozen(classifier):
    classifier.train()
    classifier.backbone[1].eval()  # a mode that a plain .train() would lose
    classifier.backbone[0].requires_grad_(False)
    return classifier


@pytest.mark.parametrize("name", RIVALS)
def test_the_network_is_left_as_it_was(classifier, images, name):
    expected = rival_maps(name, classifier, images, BOTH)
    before = snapshot(half_frozen(classifier))
    given = images.clone()
    found = rival_maps(name, classifier, given, BOTH)
    assert_untouched(classifier, before)
    assert torch.equal(given, images)
    assert not given.requires_grad
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.max()))  # computed in eval mode


@pytest.mark.parametrize("name", RIVALS)
def test_the_network_is_left_as_it_was_after_an_exception(classifier, name):
    before = snapshot(half_frozen(classifier))
    with pytest.raises(RuntimeError, match="channels"):
        rival_maps(name, classifier, torch.rand(1, 3, 64, 64), torch.tensor([True]))
    assert_untouched(classifier, before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_whatever_mode_the_caller_runs_in(classifier, images, mode, name):
    expected = rival_maps(name, classifier, images, BOTH)
    with mode():
        copied = images + 0.0  # under inference mode a tensor that can have no gradient
        found = rival_maps(name, classifier, copied, BOTH.clone())
        enabled = torch.is_grad_enabled()
    with mode():
        assert torch.is_grad_enabled() == enabled
    assert torch.equal(found, expected)


def test_mistakes_are_named(classifier, images):
    with pytest.raises(LemlightError, match=r"'gradcam' is unknown: there are cam, grad_cam, grad_cam_pp"):
        rival_maps("gradcam", classifier, images, BOTH)
    with pytest.raises(LemlightError, match=r"malignant must have shape \(2,\), got \(1,\)"):
        rival_maps("cam", classifier, images, torch.tensor([True]))
    with pytest.raises(LemlightError, match="noise must be at least 0 and copies at least 1, got -1 and 0"):
        smooth_grad(classifier, images, SIGNS, noise=-1, copies=0)

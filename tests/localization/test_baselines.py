"""All methods leave a network as it was; the baselines against closed forms, the package grad-cam and naive loops."""

import copy
import sys

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM as PackageGradCAM
from pytorch_grad_cam import GradCAMPlusPlus as PackageGradCAMPlusPlus
from torch import nn
from torch.nn import functional

from lemlight.building import build
from lemlight.errors import LemlightError
from lemlight.localization.attribution import Importance
from lemlight.localization.baselines import CAM, GradCAM, GradCAMPlusPlus, Gradient, SmoothGrad
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from tests.parts import POOLINGS, build_backbone, build_pooling

BASELINES = {"cam": CAM, "grad_cam": GradCAM, "grad_cam_pp": GradCAMPlusPlus, "gradient": Gradient}
METHODS = {name: method() for name, method in BASELINES.items()}
METHODS |= {"smooth_grad": SmoothGrad(copies=4), "importance": Importance()}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
BOTH, SIGNS = torch.tensor([True, False]), torch.tensor([1.0, -1.0])


class Layers(nn.Sequential):
    """A small CNN of stride 24 with everything that has a mode: 97 x 130 px -> 5 x 6 cells."""

    def __init__(self):
        super().__init__(
            *[nn.Conv2d(1, 8, 7, stride=4, padding=3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 3, 1)],
            *[nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.5), nn.ReLU()],
        )


def with_pooling(name):
    torch.manual_seed(0)
    classifier = MammogramClassifier(Layers(), Scorer(16), build_pooling(name, 16)).eval()
    nn.init.normal_(classifier.scorer.weight)
    nn.init.normal_(classifier.scorer.bias)
    return classifier


@pytest.fixture
def classifier():
    return with_pooling("gap")


@pytest.fixture
def images():
    return torch.rand(2, 1, 97, 130, generator=torch.Generator().manual_seed(1))


@each_method
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_method_on_every_pooling(images, pooling, method):
    maps = method(with_pooling(pooling), images, BOTH)
    assert (maps.shape, maps.dtype, maps.requires_grad) == ((2, 97, 130), torch.float32, False)
    assert (maps >= 0).all()
    assert maps.any()


def test_cam_is_the_score_map_enlarged(classifier, images):
    with torch.no_grad():
        classifier.scorer.bias -= classifier(images).score_map.mean()
        score_map = classifier(images).score_map
    assert score_map.min() < 0 < score_map.max()
    expected = torch.stack([score_map[0].relu(), (-score_map[1]).relu()])
    enlarged = functional.interpolate(expected[:, None], (97, 130), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(CAM()(classifier, images, BOTH), enlarged)


def test_grad_cam_with_gap_is_cam_without_the_bias(classifier, images):
    with torch.no_grad():
        scores = classifier(images).score_map - classifier.scorer.bias
    expected = (SIGNS[:, None, None] * scores).relu() / 30  # 5 x 6 cells
    assert torch.allclose(GradCAM().signed_maps(classifier, images, SIGNS), expected, atol=1e-6)


def test_grad_cam_pp_with_gap_in_closed_form(classifier, images):
    # every cell has the gradient w/30, so that w_c = relu(w) / (2 + relu(w)/30 sum A)
    with torch.no_grad():
        features = classifier.backbone(images)
    positive = (SIGNS[:, None] * classifier.scorer.weight.detach().view(1, -1)).relu()
    weights = positive / (2 + positive / 30 * features.sum(dim=(2, 3)))
    expected = (weights[:, :, None, None] * features).sum(dim=1)
    assert torch.allclose(GradCAMPlusPlus().signed_maps(classifier, images, SIGNS), expected, rtol=1e-4)


def test_smooth_grad_is_seeded_and_without_noise_the_gradient(classifier, images):
    state = torch.get_rng_state()
    first, other = (SmoothGrad(seed=seed, copies=4)(classifier, images, BOTH) for seed in (3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(other, first, rtol=1e-2)
    still = SmoothGrad(noise=0.0, copies=2)(classifier, images, BOTH)
    assert torch.allclose(still, Gradient()(classifier, images, BOTH))


@each_method
def test_a_constant_logit_gives_a_zero_map(images, method):
    classifier = with_pooling("lem")
    torch.nn.init.zeros_(classifier.scorer.weight)
    torch.nn.init.zeros_(classifier.scorer.bias)
    assert torch.equal(method(classifier, images, BOTH), torch.zeros(2, 97, 130))


def snapshot(classifier):
    tensors = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    modes = [module.training for module in classifier.modules()]
    return tensors, modes, [parameter.requires_grad for parameter in classifier.parameters()]


@each_method
def test_the_network_is_left_as_it_was_also_after_an_exception(classifier, images, method):
    expected = method(classifier, images, BOTH)
    classifier.train()
    classifier.backbone[1].eval()  # a mode that a plain .train() would lose
    classifier.backbone[0].requires_grad_(False)
    before, given = snapshot(classifier), images.clone()
    found = method(classifier, given, BOTH)
    with pytest.raises(RuntimeError, match="channels"):
        method(classifier, torch.rand(1, 3, 64, 64), torch.tensor([True]))
    tensors, modes, requires_grad = snapshot(classifier)
    assert all(torch.equal(tensors[name], before[0][name]) for name in before[0])
    assert (modes, requires_grad) == before[1:]
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in classifier.modules())
    assert torch.equal(given, images)
    assert not given.requires_grad
    assert torch.is_grad_enabled()
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.max()))  # computed in eval mode


@each_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_whatever_mode_the_caller_runs_in(classifier, images, mode, method):
    expected = method(classifier, images, BOTH)
    with mode():
        # under inference mode the copies are tensors that can have no gradient
        found = method(classifier, images + 0.0, BOTH.clone())
    assert torch.equal(found, expected)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone("resnet18")


@pytest.fixture(params=["gap", "lse", "lem", "attention_mil"])
def resnet(request, backbone):
    torch.manual_seed(1)
    classifier = MammogramClassifier(copy.deepcopy(backbone), Scorer(512), build_pooling(request.param, 512)).eval()
    # the package adds 1e-6 to squares of gradients: they must be large for that to be nothing
    nn.init.normal_(classifier.scorer.weight, std=20)
    return classifier


class LogitOnly(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        return self.classifier(images).logit


@pytest.mark.parametrize(("ours", "theirs"), [(GradCAM, PackageGradCAM), (GradCAMPlusPlus, PackageGradCAMPlusPlus)])
def test_agreement_with_the_package_grad_cam(resnet, images, ours, theirs):
    layer = resnet.backbone.relu
    with theirs(model=LogitOnly(resnet), target_layers=[layer]) as package:
        targets = [lambda logit, sign=sign: sign * logit for sign in SIGNS]
        package(input_tensor=images, targets=targets)
        kept = package.activations_and_grads
        (activations,), (gradients,) = kept.activations, kept.gradients
        # what the package computes before it scales and resizes
        expected = package.get_cam_image(images, [layer], targets, activations.numpy(), gradients.numpy()).clip(min=0)
    assert (expected > 0).any()
    found = ours().signed_maps(resnet, images, SIGNS).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def naive_gradient(classifier, image, sign):
    image = image[None].clone().requires_grad_()
    (sign * classifier(image).logit[0]).backward()
    return image.grad[0, 0]


def captum(method, **arguments):
    return build({"_target_": "lemlight.localization.baselines.Captum", "method": method, "arguments": arguments}, "m")


def test_captum_by_one_adapter_and_its_errors(classifier, images, monkeypatch):
    reference = copy.deepcopy(classifier)
    own = [naive_gradient(reference, image, sign) for image, sign in zip(images, SIGNS, strict=True)]
    found = captum("InputXGradient")(classifier, images, BOTH)
    torch.testing.assert_close(found, torch.stack([(i[0] * g).clamp(min=0) for i, g in zip(images, own, strict=True)]))
    layered = captum("LayerGradCam")(classifier, images, BOTH)
    torch.testing.assert_close(layered, GradCAM()(classifier, images, BOTH), rtol=1e-4, atol=1e-5)
    occluded = captum("Occlusion", sliding_window_shapes=[1, 16, 16], strides=[1, 16, 16])(classifier, images, BOTH)
    assert occluded.shape == found.shape
    assert (occluded >= 0).all()
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not any(module._forward_hooks for module in classifier.modules())
    with pytest.raises(LemlightError, match=r"no method IntegratedGradient \(did you mean IntegratedGradients"):
        captum("IntegratedGradient")
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(LemlightError, match=r"pip install 'lemlight\[captum\]'"):
        captum("Occlusion")


@pytest.mark.parametrize("resnet", ["lse", "lem"], indirect=True)
def test_gradients_against_a_naive_loop(resnet, images):
    images = images * torch.tensor([1.0, 0.3]).view(2, 1, 1, 1)  # each has a range of its own
    reference, plain, smooth = copy.deepcopy(resnet), [], []
    for image, sign in zip(images, SIGNS, strict=True):
        plain.append(naive_gradient(reference, image, sign).abs())
        generator, total = torch.Generator().manual_seed(5), 0
        for _ in range(3):
            noisy = image + 0.15 * (image.max() - image.min()) * torch.randn(image.shape, generator=generator)
            total = total + naive_gradient(reference, noisy, sign)
        smooth.append((total / 3).abs())
    for method, expected in ((Gradient(), torch.stack(plain)), (SmoothGrad(seed=5, copies=3), torch.stack(smooth))):
        assert torch.allclose(method(resnet, images, BOTH), expected, rtol=1e-2, atol=1e-3 * float(expected.max()))

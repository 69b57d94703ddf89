"""The rivals against the package grad-cam (pytorch-grad-cam) and against naive loops, on a small ResNet-18."""

import copy

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from torch import nn

from lemlight.localization.baselines import grad_cam, grad_cam_pp, rival_maps, smooth_grad
from lemlight.models.backbones import build_backbone
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer, build_pooling

MALIGNANT = torch.tensor([True, False, True])
SIGNS = torch.tensor([1.0, -1.0, 1.0])


class LogitOnly(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        return self.classifier(images).logit


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone("resnet18")


@pytest.fixture(params=["gap", "lse", "lem", "attention_mil"])
def classifier(request, backbone):
    torch.manual_seed(1)
    classifier = MammogramClassifier(copy.deepcopy(backbone), Scorer(512), build_pooling(request.param, 512)).eval()
    # the package adds 1e-6 to squares of gradients: they must be large for that to be nothing
    nn.init.normal_(classifier.scorer.weight, std=20)
    return classifier


@pytest.fixture
def images():
    return torch.rand(3, 1, 65, 97, generator=torch.Generator().manual_seed(2))


def reference_cells(method, classifier, images):
    """What the package computes before it scales and resizes."""
    layer = classifier.backbone.relu
    with method(model=LogitOnly(classifier), target_layers=[layer]) as package:
        targets = [lambda logit, sign=sign: sign * logit for sign in SIGNS]
        package(input_tensor=images, targets=targets)
        (activations,) = package.activations_and_grads.activations
        (gradients,) = package.activations_and_grads.gradients
        cells = package.get_cam_image(images, [layer], targets, activations.numpy(), gradients.numpy())
    return np.maximum(cells, 0)


@pytest.mark.parametrize(("ours", "theirs"), [(grad_cam, GradCAM), (grad_cam_pp, GradCAMPlusPlus)])
def test_agreement_with_the_package(classifier, images, ours, theirs):
    expected = reference_cells(theirs, copy.deepcopy(classifier), images)
    assert (expected > 0).any()
    found = ours(classifier, images, SIGNS).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def naive_gradient(classifier, image, sign):
    image = image[None].clone().requires_grad_()
    (sign * classifier(image).logit[0]).backward()
    return image.grad[0, 0]


def test_gradients_against_a_naive_loop(classifier, images):
    reference = copy.deepcopy(classifier)
    expected = torch.stack(
        [naive_gradient(reference, image, sign).abs() for image, sign in zip(images, SIGNS, strict=True)]
    )
    found = rival_maps("gradient", classifier, images, MALIGNANT)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("classifier", ["lse"], indirect=True)
def test_smooth_grad_against_a_naive_loop(classifier, images):
    images = images * torch.tensor([1.0, 0.3, 0.6]).view(3, 1, 1, 1)  # each has a range of its own
    reference, expected = copy.deepcopy(classifier), []
    for image, sign in zip(images, SIGNS, strict=True):
        generator, total = torch.Generator().manual_seed(5), 0
        for _ in range(3):
            noisy = image + 0.15 * (image.max() - image.min()) * torch.randn(image.shape, generator=generator)
            total = total + naive_gradient(reference, noisy, sign)
        expected.append((total / 3).abs())
    expected = torch.stack(expected)
    found = smooth_grad(classifier, images, SIGNS, seed=5, noise=0.15, copies=3)
    assert torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * float(expected.max()))

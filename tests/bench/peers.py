"""Maps of other packages and ours, of the same network and image, in turns: captum, zennit and pytorch-grad-cam.

A ratio below 1 says that ours takes less time, one above 1 that theirs does. Ours give probability and score map as
well. All Grad-CAMs are of the last feature map, at the size of the image. zennit's rules are registered and its
BatchNorms merged before the clock starts.
"""

import copy
import warnings

import torch
from torch import nn

from lemlight.localization.attribution import Importance, explain
from lemlight.localization.baselines import GradCAM
from tests.bench.measure import Ratio, turns
from tests.bench.networks import SIZE, build_classifier

NETWORKS = ("resnet18", "resnet50")
AHEAD = 1.0  # of zennit's rules the importance must stay
EQUAL = 1.1  # Grad-CAM is one pass and little else in every package


class Logits(nn.Module):
    """A classifier as the packages want it: logits (N, 1)."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, images):
        return self.classifier(images).logit.unsqueeze(1)


def measure(pairs, folder):
    warnings.filterwarnings("ignore", module="captum|zennit|pytorch_grad_cam")
    images = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for name in NETWORKS:
        classifier = build_classifier(name, "gap").eval()
        yield from grad_cam(name, classifier, images, pairs)
        yield from importance(name, classifier, images, pairs)


def grad_cam(name, classifier, images, pairs):
    from captum.attr import LayerAttribution, LayerGradCam
    from pytorch_grad_cam import GradCAM as PackageGradCAM

    theirs, layer = Logits(copy.deepcopy(classifier)).eval(), "classifier.backbone.relu"
    captums = LayerGradCam(theirs, theirs.get_submodule(layer))

    def captum():
        cells = captums.attribute(images, target=0, relu_attributions=True)
        LayerAttribution.interpolate(cells, (SIZE, SIZE), "bilinear")

    other = Logits(copy.deepcopy(classifier)).eval()
    with PackageGradCAM(model=other, target_layers=[other.get_submodule(layer)]) as package:
        actions = [
            lambda: explain(classifier, images, GradCAM()),
            captum,
            lambda: package(input_tensor=images, targets=[lambda logit: logit[0]]),
        ]
        times = turns(actions, 2 * pairs, warm_up=1)
    for column, against in enumerate(("captum's LayerGradCam", "pytorch-grad-cam's GradCAM"), start=1):
        yield Ratio(f"Grad-CAM, {name}", against, times[:, 0], times[:, column], EQUAL)


def importance(name, classifier, images, pairs):
    from zennit.composites import EpsilonPlus, ExcitationBackprop
    from zennit.torchvision import ResNetCanonizer

    actions, registered = [lambda: explain(classifier, images, Importance())], []
    for composite in (ExcitationBackprop, EpsilonPlus):
        network, rules = Logits(copy.deepcopy(classifier)).eval(), composite(canonizers=[ResNetCanonizer()])
        rules.register(network)
        registered.append(rules)

        def relevance(network=network):
            pixels = images.clone().requires_grad_()
            torch.autograd.grad(network(pixels).sum(), pixels)

        actions.append(relevance)
    times = turns(actions, 2 * pairs, warm_up=1)
    for column, rules in enumerate(registered, start=1):
        against = f"zennit's {type(rules).__name__}"
        yield Ratio(f"importance, {name}", against, times[:, 0], times[:, column], AHEAD)
        rules.remove()

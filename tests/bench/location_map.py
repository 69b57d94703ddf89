"""A location map against a forward and backward pass of the same network, and against a map for every extremum."""

import torch

from lemlight.localization.excitation_backprop import location_maps
from tests.bench.measure import Ratio, turns
from tests.bench.training_step import build_classifier

BACKBONES = ("resnet18", "resnet50", "densenet121", "efficientnet_lite0")
SIZE = 800
EXTREMA = (1, 10, 100)
SINGLES = 20
LIMIT, SINGLES_LIMIT = 1.5, 0.2


def extrema(number, cells):
    """That many maxima, spread over a map `(1, cells, cells)`; minima: none."""
    maxima = torch.zeros(1, cells, cells, dtype=torch.bool)
    maxima.view(-1)[torch.linspace(0, cells**2 - 1, number).long()] = True
    return maxima, torch.zeros_like(maxima)


def forward_and_backward(classifier, images):
    """As for training, to all parameters; in eval mode, as the map is."""
    logit = classifier(images).logit.sum()
    parameters = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    torch.autograd.grad(logit, parameters)


def measure(pairs, folder):
    images = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for backbone in BACKBONES:
        yield from whatever_the_extrema(backbone, images, pairs)
    yield singles(images, max(1, pairs // 3))


def whatever_the_extrema(backbone, images, pairs):
    classifier = build_classifier(backbone, "gap").eval()
    starts = [extrema(number, SIZE // 32) for number in EXTREMA]
    actions = [lambda start=start: location_maps(classifier, images, *start) for start in starts]
    actions.append(lambda: forward_and_backward(classifier, images))
    times = turns(actions, pairs, warm_up=1)
    for column, number in enumerate(EXTREMA):
        what = f"location map, {backbone}, {number} extrem{'um' if number == 1 else 'a'}"
        yield Ratio(what, "a forward and backward pass", times[:, column], times[:, -1], LIMIT)


def singles(images, pairs):
    classifier = build_classifier("resnet18", "gap").eval()
    maxima, minima = extrema(SINGLES, SIZE // 32)
    cells = torch.arange(maxima.numel()).view_as(maxima)
    alone = [cells == cell for cell in cells[maxima]]
    actions = [
        lambda: location_maps(classifier, images, maxima, minima),
        lambda: [location_maps(classifier, images, one, minima) for one in alone],
    ]
    times = turns(actions, pairs, warm_up=0)
    what = f"location map, resnet18, {SINGLES} extrema"
    return Ratio(what, "a pass for each of them", times[:, 0], times[:, 1], SINGLES_LIMIT)

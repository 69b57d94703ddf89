"""A training step with LEM against one with GAP, and a location map against a forward and backward pass."""

import numpy as np
import torch

from lemlight.localization.attribution import explain
from lemlight.localization.baselines import CAM, GradCAM, GradCAMPlusPlus
from lemlight.localization.excitation_backprop import Passage
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from tests.bench.measure import Ratio, paired, turns
from tests.parts import build_backbone, build_pooling, combined_loss

TRAINED = ("resnet18", "efficientnet_lite0")
LAMBDA = {"lem": 0.5, "gap": 1.0}  # in the middle of the ramp; GAP is trained with its own loss alone
BETA = 0.001
STEP_LIMIT = 1.03
FROZEN_LIMIT = 0.1
MAPPED = ("resnet18", "resnet50", "densenet121", "efficientnet_lite0")
SIZE, EXTREMA, SINGLES = 800, (1, 10, 100), 20
MAP_LIMIT, SINGLES_LIMIT = 1.3, 0.2
ONE_PASS, ONE_PASS_LIMIT = {"CAM": CAM(), "Grad-CAM": GradCAM(), "Grad-CAM++": GradCAMPlusPlus()}, 1.15


def build_classifier(backbone: str, pooling: str) -> MammogramClassifier:
    """The same random weights at every call."""
    torch.manual_seed(0)
    network = build_backbone(backbone)
    scorer = Scorer(network.out_channels)
    return MammogramClassifier(network, scorer, build_pooling(pooling, network.out_channels))


def random_batch(images=8, height=320, width=256):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(images, 1, height, width, generator=generator), torch.arange(images) % 2.0


def training_step(backbone, pooling):
    classifier = build_classifier(backbone, pooling).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-4)
    images, label = random_batch()

    def step():
        optimizer.zero_grad()
        combined_loss(classifier(images), label, LAMBDA[pooling], BETA)["total"].backward()
        optimizer.step()

    return step


def frozen_step(backbone, folder):
    """Scorer and pooling on features that are read from a file, as a feature store keeps them."""
    classifier = build_classifier(backbone, "lem")
    classifier.freeze()
    classifier.train()
    optimizer = torch.optim.Adam([weight for weight in classifier.parameters() if weight.requires_grad], lr=1e-4)
    images, label = random_batch()
    with torch.no_grad():
        np.save(folder / "features.npy", classifier.backbone(images).numpy())
    kept = np.load(folder / "features.npy", mmap_mode="r")

    def step():
        optimizer.zero_grad()
        features = torch.from_numpy(np.stack([kept[number] for number in range(len(label))]))
        combined_loss(classifier.judge(features), label, LAMBDA["lem"], BETA)["total"].backward()
        optimizer.step()

    return step


def measure(pairs, folder):
    frozen, unfrozen = frozen_step("efficientnet_lite0", folder), training_step("efficientnet_lite0", "lem")
    what, more = "training step on kept features, efficientnet_lite0", {"limit": FROZEN_LIMIT, "pairs": pairs}
    yield paired(what, "the same step unfrozen", frozen, unfrozen, warm_up=1, **more)
    for backbone in TRAINED:
        lem, gap = (training_step(backbone, pooling) for pooling in ("lem", "gap"))
        what, more = f"training step with LEM, {backbone}", {"limit": STEP_LIMIT, "pairs": 2 * pairs, "warm_up": 2}
        yield paired(what, "the same step with GAP", lem, gap, **more)
    images = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for backbone in MAPPED:
        yield from whatever_the_extrema(backbone, images, pairs)
    yield singles(images, max(1, pairs // 3))
    yield from one_pass(images, pairs)


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


def whatever_the_extrema(backbone, images, pairs):
    classifier = build_classifier(backbone, "gap").eval()
    starts = [extrema(number, SIZE // 32) for number in EXTREMA]
    actions = [lambda start=start: Passage(classifier, images).back(*start) for start in starts]
    actions.append(lambda: forward_and_backward(classifier, images))
    times = turns(actions, pairs, warm_up=1)
    for column, number in enumerate(EXTREMA):
        what = f"location map, {backbone}, {number} extrem{'um' if number == 1 else 'a'}"
        yield Ratio(what, "a forward and backward pass", times[:, column], times[:, -1], MAP_LIMIT)


def one_pass(images, pairs):
    """Probability, score map and map of a baseline, all of one forward pass."""
    classifier = build_classifier("resnet18", "lem").eval()
    actions = [lambda method=method: explain(classifier, images, method) for method in ONE_PASS.values()]
    actions.append(lambda: torch.no_grad()(classifier)(images))
    times = turns(actions, 2 * pairs, warm_up=1)
    for column, name in enumerate(ONE_PASS):
        yield Ratio(f"{name}, resnet18", "a forward pass", times[:, column], times[:, -1], ONE_PASS_LIMIT)


def singles(images, pairs):
    classifier = build_classifier("resnet18", "gap").eval()
    maxima, minima = extrema(SINGLES, SIZE // 32)
    cells = torch.arange(maxima.numel()).view_as(maxima)
    alone = [cells == cell for cell in cells[maxima]]
    actions = [
        lambda: Passage(classifier, images).back(maxima, minima),
        lambda: [Passage(classifier, images).back(one, minima) for one in alone],
    ]
    times = turns(actions, pairs, warm_up=0)
    what = f"location map, resnet18, {SINGLES} extrema"
    return Ratio(what, "a pass for each of them", times[:, 0], times[:, 1], SINGLES_LIMIT)

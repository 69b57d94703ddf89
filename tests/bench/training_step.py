"""One training step (forward, loss, backward, optimizer) with LEM against the same step with GAP."""

import torch

from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from tests.bench.measure import paired
from tests.parts import build_backbone, build_pooling, combined_loss

BACKBONES = ("resnet18", "efficientnet_lite0")
LAMBDA = {"lem": 0.5, "gap": 1.0}  # in the middle of the ramp; GAP is trained with its own loss alone
BETA = 0.001
LIMIT = 1.03


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


def measure(pairs, folder):
    for backbone in BACKBONES:
        lem, gap = training_step(backbone, "lem"), training_step(backbone, "gap")
        yield paired(
            f"training step with LEM, {backbone}",
            "the same step with GAP",
            lem,
            gap,
            limit=LIMIT,
            pairs=2 * pairs,  # steps are short
            warm_up=2,
        )

"""A backbone whose blocks are computed twice trains as the one that keeps everything, to the last bit."""

import copy

import pytest
import torch
from torch import nn

from lemlight.errors import LemlightError
from lemlight.models.adapting import blocks, checkpoint_gradients
from lemlight.models.classifier import build_classifier
from tests.parts import build_backbone, part_of


class Shared(nn.Module):
    """Blocks that change the list that they are given, as HRNet's do, with dropout."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block())

    def forward(self, images):
        return sum(self.blocks([images, 2 * images]))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
            self.last = nn.Sequential(nn.Conv2d(4, 1, 1), nn.Dropout(0.3))

        def forward(self, maps):
            for number, one in enumerate(maps):
                maps[number] = self.last(self.layers(one))
            return maps


NETWORKS = {
    "resnet18": lambda: build_backbone("resnet18"),
    "densenet121": lambda: build_backbone("densenet121"),
    "efficientnet_lite0": lambda: build_backbone("efficientnet_lite0"),
    "timm": lambda: build_backbone("timm resnet10t", output_stride=None),
    "shared": Shared,
}


def step(network, images):
    """Features, gradients of all weights, and the bytes that were kept for these."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    torch.manual_seed(3)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = network(images)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(features.square().mean(), weights)
    return features, gradients, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_running_statistics_are_the_same_and_a_fraction_is_kept(name):
    torch.manual_seed(0)
    network, images = NETWORKS[name](), torch.rand(2, 1, 64, 96)
    saving = copy.deepcopy(network)
    checkpoint_gradients(saving)
    assert list(saving.state_dict()) == list(network.state_dict())
    copied = copy.deepcopy(saving)
    features, gradients, kept = step(network, images)
    for other in (saving, copied):
        own, own_gradients, own_kept = step(other, images)
        assert torch.equal(own, features)
        assert all(map(torch.equal, own_gradients, gradients))
        assert all(map(torch.equal, other.buffers(), network.buffers()))
        assert own_kept < 0.3 * kept


def test_outside_of_a_training_everything_is_computed_once():
    network = build_backbone("resnet18")
    first = next(blocks(network))
    calls = []
    first.conv1.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_gradients(network)
    images = torch.rand(2, 1, 64, 64, requires_grad=True)
    network.train()(images).sum().backward()
    assert len(calls) == 2
    network.eval()(images).sum().backward()
    with torch.no_grad():
        network.train()(images)
    assert len(calls) == 4


def test_what_has_no_blocks_and_what_is_no_switch_are_refused():
    with pytest.raises(LemlightError, match=r"gradient_checkpointing=true: this backbone has no blocks"):
        checkpoint_gradients(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    backbone = part_of("backbone", "torchvision", weights="none") | {"name": "resnet18"}
    config = {"pooling": part_of("pooling", "gap")}
    built = build_classifier(config | {"backbone": backbone | {"gradient_checkpointing": True}})
    assert all("forward" in vars(block) for block in blocks(built.backbone))
    with pytest.raises(LemlightError, match=r"backbone\.gradient_checkpointing=yes: must be true or false"):
        build_classifier(config | {"backbone": backbone | {"gradient_checkpointing": "yes"}})

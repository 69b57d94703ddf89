"""Eq. 10 in naive loops over dense matrices: what the rules of lemlight are compared with."""

import numpy as np
import torch
from torch import nn

from lemlight.localization.excitation_backprop import Passage
from lemlight.models.pooling import Scorer


def location_maps(network, images, maxima, minima):
    return Passage(network, images).back(maxima, minima)


class Network(nn.Module):
    """What importance needs of a classifier: a backbone and a scorer with given weights."""

    def __init__(self, backbone, weights):
        super().__init__()
        self.backbone = backbone
        self.scorer = Scorer(len(weights))
        with torch.no_grad():
            self.scorer.weight.copy_(torch.tensor(weights).view(1, -1, 1, 1))
        self.eval()


class Steps(nn.Module):
    """A 1x1 convolution that keeps the image as it is, then one function."""

    def __init__(self, function, channels=1):
        super().__init__()
        self.identity, self.function = nn.Conv2d(1, channels, 1, bias=False), function
        nn.init.ones_(self.identity.weight)

    def forward(self, images):
        return torch.relu(self.function(self.identity(images)))


class Shifted(nn.Sequential):
    """Layers behind a normalisation of the image."""

    def forward(self, images):
        return super().forward((images - 0.5) / 0.25)


def randomised(network, seed=0):
    """Random statistics and weights of BatchNorm, a good part of the weights negative; biases of any sign."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        tensor.data.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            normal(module.weight, 0.7, 0.5)
            normal(module.bias, 0, 0.3)
            normal(module.running_mean, 0, 0.3)
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
        elif isinstance(module, nn.Conv2d):
            std = (2 / module.weight[0].numel()) ** 0.5
            normal(module.weight, 0, std)
            if module.bias is not None:
                normal(module.bias, 0, 0.1)
    return network


def opened(network):
    """Let the blocks have a part that networks of timm leave out at first, by a gamma of 1e-6."""
    for name, weight in network.named_parameters():
        if name.endswith("gamma"):
            nn.init.normal_(weight)
    return network


def matrix(convolution, source):
    """The weights of a convolution between two flat maps, without its bias: (outputs, inputs)."""
    basis = torch.eye(source[0].numel()).view(-1, *source.shape[1:])
    with torch.no_grad():
        return convolution._conv_forward(basis, convolution.weight, None).flatten(1).T.double().numpy()


def distribute(weights, activations, importance):
    """Hand importance (outputs,) to the inputs (Eq. 10): importance (inputs,) and what is lost."""
    activations = np.maximum(np.asarray(activations, dtype=float).ravel(), 0)
    handed, lost = np.zeros(activations.size), 0.0
    for output, arrived in enumerate(np.asarray(importance, dtype=float).ravel()):
        contributions = [a * max(w, 0.0) for a, w in zip(activations, weights[output], strict=True)]
        if sum(contributions) > 0:
            for source, contribution in enumerate(contributions):
                handed[source] += contribution / sum(contributions) * arrived
        else:
            lost += arrived
    return handed, lost


def at_features(features, weights, maxima, minima):
    """Eq. 11: importance (C, h, w) of the features that extrema (h, w) start from, and what is lost."""
    handed, lost = np.zeros(features.shape), 0.0
    for sign, extrema in ((1, maxima), (-1, minima)):
        for y, x in np.ndindex(*extrema.shape):
            row = sign * np.array(weights)[None]
            part, gone = distribute(row, features[:, y, x], [float(extrema[y, x])])
            handed[:, y, x] += part
            lost += gone
    return handed, lost

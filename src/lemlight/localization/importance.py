"""From extrema of a score map back to the pixels they came from (Zhu et al. 2025, Algorithm 2, Eq. 10-11).

Top-down importance, excitation backprop (Zhang et al. 2016): an extremum starts with importance, every node hands on
what it holds to those that excite it, in proportion. The sum stays: of the maps, and what was lost on the way.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lemlight.localization.evaluating import evaluating
from lemlight.localization.propagation.mode import Propagation
from lemlight.localization.propagation.rules import Ledger


class LocationMaps(NamedTuple):
    """Importance of the pixels, and where the rest went: `maps.sum + lost = started`, for each map.

    Attributes:
        maps: `(N, H, W)` float32, at least 0.
        started: `(N,)` float64, importance that was put in.
        lost: `(N,)` float64, importance that arrived where no positive contribution reaches.
    """

    maps: Tensor
    started: Tensor
    lost: Tensor


class Passage:
    """One pass of images `(N, 1, H, W)` in [0, 1] through a classifier, to be followed back from any extrema.

    The classifier is looked at in eval mode and left as it was. With `repeat` it can be followed back several times.

    Attributes:
        features: `(N, C, h, w)`, what the backbone says, without a graph.

    Raises:
        LemlightError: a network without a convolution, or with a function that has no rule.
    """

    def __init__(self, classifier: nn.Module, images: Tensor, repeat: bool = False) -> None:
        self._classifier = classifier
        self._ledger = Ledger(len(images), images.device, repeat)
        with evaluating(classifier, images.device.type):
            self._pixels = images.detach().clone().float().requires_grad_()
            self._features = Propagation(self._ledger).run(classifier.get_submodule("backbone"), self._pixels)
        self.features = self._features.detach()

    def back(self, maxima: Tensor, minima: Tensor) -> LocationMaps:
        """Follow extrema `(N, h, w)` to the pixels; see `location_maps`."""
        with evaluating(self._classifier, self._pixels.device.type):
            self._ledger.begin()
            scorer = self._classifier.get_submodule("scorer")
            start = _at_features(self.features, scorer, maxima, minima, self._ledger)
            (maps,) = torch.autograd.grad(self._features, self._pixels, start, retain_graph=self._ledger.repeat)
        started = (maxima.double() + minima.double()).flatten(1).sum(dim=1)
        return LocationMaps(maps.sum(dim=1), started, self._ledger.lost)


def location_maps(classifier: nn.Module, images: Tensor, maxima: Tensor, minima: Tensor) -> LocationMaps:
    """Follow all extrema of images `(N, 1, H, W)` in [0, 1] to the pixels, in one backward pass: the rule is linear.

    Maxima follow the positive weights of the scorer, minima the negative ones as positive amounts (Eq. 11). BatchNorm
    counts as part of the convolution in front of it; where it comes first it is a one-to-one connection.

    Args:
        classifier: with a `backbone` and a `scorer`, see `MammogramClassifier`.
        images: any image; of a constant one the maps may be lost altogether.
        maxima: `(N, h, w)` importance that the maxima start with, bool or at least 0.
        minima: the same for the minima.

    Raises:
        LemlightError: see `Passage`.
    """
    return Passage(classifier, images).back(maxima, minima)


def single_location_maps(
    classifier: nn.Module, image: Tensor, maxima: Tensor, minima: Tensor, batch_size: int = 8
) -> LocationMaps:
    """Follow every extremum `(h, w)` of one image `(1, 1, H, W)` on its own, several at a time.

    One map for each extremum, in row-major order, the maxima first.
    """
    kinds = torch.cat([maxima.flatten(), minima.flatten()])
    places = kinds.nonzero().flatten()
    starts = torch.zeros(len(places), len(kinds), dtype=torch.float32, device=image.device)
    starts[torch.arange(len(places)), places] = kinds[places].float()
    parts = [
        location_maps(classifier, image.expand(len(part), -1, -1, -1), *part.view(-1, 2, *maxima.shape).unbind(1))
        for part in torch.split(starts, batch_size)
    ]
    return LocationMaps(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _at_features(features: Tensor, scorer: nn.Module, maxima: Tensor, minima: Tensor, ledger: Ledger) -> Tensor:
    """Hand the importance of the extrema `(N, h, w)` to the features `(N, C, h, w)`, each kind by its own weights."""
    weight = scorer.get_parameter("weight").detach().float()  # (1, C, 1, 1)
    start = torch.zeros_like(features)
    for extrema, sign in ((maxima, 1), (minima, -1)):
        contributions = features * (sign * weight).clamp(min=0)
        total = contributions.sum(dim=1)
        importance = extrema.to(features.dtype)
        reached = total > torch.finfo(total.dtype).tiny
        ledger.note(importance * ~reached)
        start += contributions * torch.where(reached, importance / total.where(reached, 1), 0).unsqueeze(1)
    return start

"""Location maps of several networks, and of moved copies of an image, as one: the mean of their strengths."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.localization.attribution import Importance, Method
from lemlight.localization.choice import Follow, RegionSettings
from lemlight.localization.regions import smoothed
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.ensemble import Ensemble


class MeanStrength:
    """A `Method` for an `Ensemble`: the mean, over networks and moves, of the smoothed maps, each with a maximum of 1.

    Every network explains what the ensemble predicts, with the settings that its own training chose.

    Args:
        method: makes the maps of each network.
        settings: keep and smoothing of each network.
        follow: see `explain`.
    """

    def __init__(self, method: Method, settings: Sequence[RegionSettings], follow: Follow = "predicted") -> None:
        self.method, self.settings, self.follow = method, list(settings), follow

    def __call__(self, classifier: MammogramClassifier, images: Tensor, malignant: Tensor) -> Tensor:
        """Compute the maps."""
        if not isinstance(classifier, Ensemble):
            raise LemlightError("the mean strength is that of an ensemble: give several networks")
        total = torch.zeros_like(images[:, 0])
        for network, own in zip(classifier.members, self.settings, strict=True):
            for move in classifier.moves:
                moved = move.there(images)
                if isinstance(self.method, Importance):
                    maps = self.method.maps(network, moved, malignant, self.follow, own.keep)
                else:
                    maps = self.method(network, moved, malignant)
                strength = [torch.from_numpy(smoothed(one.cpu().numpy(), own.smoothing)) for one in maps]
                total += move.back(torch.stack(strength).to(total))
        mean: Tensor = total / (len(self.settings) * len(classifier.moves))
        return mean


def settings_together(settings: Sequence[RegionSettings]) -> RegionSettings:
    """How the mean strength becomes regions: as sharp as it is, cut off at the mean of the networks' cutoffs.

    Raises:
        LemlightError: some are cut off by the maximum, some by the mass.
    """
    rules = {own.cutoff_by for own in settings}
    if len(rules) > 1:
        raise LemlightError("the networks cut their maps off by maximum and by mass: choose with cutoff_by=...")
    cutoff = sum(own.cutoff for own in settings) / len(settings)
    return RegionSettings(keep=0.0, smoothing=0.0, cutoff=cutoff, cutoff_by=rules.pop())

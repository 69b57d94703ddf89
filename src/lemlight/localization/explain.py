"""From images to location maps, by any method, with what the network said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.localization.cam import cam_of_scores
from lemlight.localization.importance import Passage
from lemlight.localization.rivals import RIVALS, enlarged, rival_maps, signs_of
from lemlight.localization.selection import pack_selections, select_extrema
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.lem import Extrema

METHODS = ("importance", *RIVALS)


@dataclass(frozen=True)
class MapSettings:
    """How a location map is made.

    method: importance (top-down from the extrema, Zhu et al. 2025, Eq. 10-11), or a rival.
    follow: predicted (Algorithm 2: maxima above `threshold`, else minima), maxima, minima, both; importance alone.
    keep: share of the strongest extremum's strength that an extremum must reach [open]; importance alone.
    threshold: probability above which an image is called malignant.
    """

    method: str = "importance"
    follow: str = "predicted"
    keep: float = 0.5
    threshold: float = 0.5


class Explanation(NamedTuple):
    """What a classifier says of images, and where it looks.

    Attributes:
        probability: `(N,)` float64 in [0, 1].
        score_map: `(N, h, w)` logits.
        maps: `(N, H, W)` float32, at least 0.
        maxima, minima: `(N, h, w)` bool, the extrema that were followed; none for a rival.
        lost: `(N,)` importance that reached no pixel; 0 for a rival.
    """

    probability: Tensor
    score_map: Tensor
    maps: Tensor
    maxima: Tensor
    minima: Tensor
    lost: Tensor


def explain(classifier: MammogramClassifier, images: Tensor, settings: MapSettings) -> Explanation:
    """Predict images `(N, 1, H, W)` in [0, 1] and map where the prediction comes from; the classifier is in eval mode.

    A rival explains the logit of an image that is called malignant, and minus the logit of another.

    Raises:
        LemlightError: there is no such method.
    """
    return explain_by_keep(classifier, images, settings, [settings.keep])[0]


def explain_by_keep(
    classifier: MammogramClassifier, images: Tensor, settings: MapSettings, keeps: Sequence[float]
) -> list[Explanation]:
    """Explain as `explain` does, once for each keep; the images pass the network only once."""
    if settings.method not in METHODS:
        raise LemlightError(f"there is no method {settings.method!r}: choose {', '.join(METHODS)}")
    if settings.method != "importance":
        return [_by_rival(classifier, images, settings)] * len(keeps)
    passage = Passage(classifier, images, repeat=len(keeps) > 1)
    with torch.no_grad():
        scores = classifier.judge(passage.features)
    probability, score_map = scores.logit.double().sigmoid(), scores.score_map.float()
    chosen = [_extrema(classifier, score_map, probability, settings, keep) for keep in keeps]
    packed, places = pack_selections(chosen)  # most images have the same extrema for several keeps
    found = [passage.back(*selection) for selection in packed]
    maps, lost = torch.stack([one.maps for one in found]), torch.stack([one.lost for one in found])
    every = torch.arange(len(images), device=maps.device)
    return [
        Explanation(probability, score_map, maps[place, every], *selection, lost[place, every])
        for selection, place in zip(chosen, places, strict=True)
    ]


def _extrema(
    classifier: MammogramClassifier, score_map: Tensor, probability: Tensor, settings: MapSettings, keep: float
) -> Extrema:
    return select_extrema(
        score_map,
        probability,
        follow=settings.follow,
        keep=keep,
        ties=classifier.pooling.ties,
        threshold=settings.threshold,
    )


def _by_rival(classifier: MammogramClassifier, images: Tensor, settings: MapSettings) -> Explanation:
    with torch.no_grad():
        scores = classifier(images)
    probability, score_map = scores.logit.double().sigmoid(), scores.score_map.float()
    maps = rival_maps(settings.method, classifier, images, probability > settings.threshold)
    nothing = torch.zeros_like(score_map, dtype=torch.bool)
    return Explanation(probability, score_map, maps, nothing, nothing, torch.zeros_like(probability))


def explain_scores(probability: Tensor, score_map: Tensor, shape: tuple[int, int], threshold: float) -> Explanation:
    """Explain by CAM where probability `(N,)` and score map `(N, h, w)` are all that there is of the network.

    The maps are those of `explain` with the method cam, at the size `shape` (H, W) of the image.
    """
    maps = enlarged(cam_of_scores(score_map, signs_of(probability > threshold)), shape)
    nothing = torch.zeros_like(score_map, dtype=torch.bool)
    return Explanation(probability, score_map, maps, nothing, nothing, torch.zeros_like(probability))

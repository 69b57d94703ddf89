"""Which extrema of a score map are followed back to the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.localization.baselines import RIVALS, cam_of_scores, enlarged, rival_maps, signs_of
from lemlight.localization.excitation_backprop import Passage
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.lem import Extrema, local_extrema

FOLLOW = ("predicted", "maxima", "minima", "both")


def select_extrema(
    score_map: Tensor,
    probability: Tensor,
    *,
    follow: str,
    keep: float,
    ties: str = "strict",
    threshold: float = 0.5,
) -> Extrema:
    """Choose the extrema that a location map starts from (Zhu et al., Bioengineering 2025, Algorithm 2).

    Which extrema the paper selects is [open]. Here the strength of a maximum is its score's distance above the mean of
    its map, that of a minimum the distance below, so that a bias, which shifts all scores alike, changes nothing. An
    extremum counts where its strength is positive and reaches the share `keep` of the strongest of its kind in the
    same map.

    Args:
        score_map: raw scores `(N, h, w)`.
        probability: of malignancy, `(N,)` in [0, 1]; looked at only where `follow` is "predicted".
        follow: "maxima", "minima", "both", or as in the paper "predicted": the maxima of images whose probability
            exceeds `threshold`, the minima of the others.
        keep: in [0, 1]; 1 leaves the strongest alone (several if equally strong), 0 all of positive strength.
        ties: see `local_extrema`.
        threshold: probability, 0.5 in the paper.

    Returns:
        Maxima and minima, bool `(N, h, w)`; nothing where a map has no extremum that counts.

    Raises:
        LemlightError: a value outside its range, or shapes that do not fit.
    """
    _check(score_map, probability, follow, keep)
    maxima, minima = local_extrema(score_map, ties)
    scores = score_map.detach()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    above = scores - scores.mean(dim=(1, 2), keepdim=True)
    malignant = (probability > threshold).to(maxima.device).view(-1, 1, 1)
    use_maxima = malignant if follow == "predicted" else torch.full_like(malignant, follow in ("maxima", "both"))
    use_minima = ~malignant if follow == "predicted" else torch.full_like(malignant, follow in ("minima", "both"))
    return Extrema(_strong(above, maxima, keep) & use_maxima, _strong(-above, minima, keep) & use_minima)


def pack_selections(selections: Sequence[Extrema]) -> tuple[list[Extrema], Tensor]:
    """Put K selections from the same maps together so that what an image has twice is followed once.

    Returns:
        As many selections as the image with the most different ones has, and where to find each of the given ones:
        `(K, N)`, the number of the packed selection.
    """
    flat = torch.stack([torch.stack(selection, dim=1).flatten(1) for selection in selections])  # (K, N, 2 h w)
    first = (flat.unsqueeze(0) == flat.unsqueeze(1)).all(dim=-1).int().argmax(dim=1)  # of all that are the same
    new = first == torch.arange(len(selections), device=first.device).unsqueeze(1)
    places = (new.cumsum(dim=0) - 1).gather(0, first)
    packed = []
    for number in range(int(places.max()) + 1):
        here = ((places == number).unsqueeze(-1) & flat).any(dim=0)
        packed.append(Extrema(*here.view(len(here), 2, *selections[0].maxima.shape[1:]).unbind(1)))
    return packed, places


def extremum_points(cells: Tensor, prepared_shape: tuple[int, int]) -> NDArray[np.float64]:
    """Centres of the marked cells `(h, w)` in the prepared image (H, W): points (x, y) px `(K, 2)`, in row-major order.

    The map is taken to cover the whole image, as it does where maps of cells are enlarged to the image.
    """
    rows, columns = np.nonzero(cells.detach().cpu().numpy())
    cell_height, cell_width = prepared_shape[0] / cells.shape[0], prepared_shape[1] / cells.shape[1]
    return np.stack([(columns + 0.5) * cell_width - 0.5, (rows + 0.5) * cell_height - 0.5], axis=1)


def _strong(strength: Tensor, extrema: Tensor, keep: float) -> Tensor:
    """The extrema whose strength is positive and reaches `keep` of the strongest's, per map."""
    strongest = strength.masked_fill(~extrema, 0).amax(dim=(1, 2), keepdim=True)
    return extrema & (strength > 0) & (strength >= keep * strongest)


def _check(score_map: Tensor, probability: Tensor, follow: str, keep: float) -> None:
    problems = []
    if score_map.ndim != 3 or probability.shape != score_map.shape[:1]:
        shapes = f"{tuple(score_map.shape)} and {tuple(probability.shape)}"
        problems.append(f"score_map and probability must have shapes (N, h, w) and (N,), got {shapes}")
    if follow not in FOLLOW:
        problems.append(f"follow must be one of {', '.join(FOLLOW)}, got '{follow}'")
    if not 0 <= keep <= 1:
        problems.append(f"keep is a share of the strongest extremum and must be in [0, 1], got {keep}")
    if problems:
        raise LemlightError("localization: " + "; ".join(problems))


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

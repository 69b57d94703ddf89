"""What a classifier says of images and where it looks: the extrema that are followed, the methods, the regions."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.errors import LemlightError
from lemlight.localization.baselines import (
    AttentionRollout,
    FeatureBaseline,
    attention_blocks,
    cam_of_scores,
    evaluating,
    signs_of,
)
from lemlight.localization.choice import Follow, RegionSettings
from lemlight.localization.excitation_backprop import Passage
from lemlight.localization.propagation_rules import exact
from lemlight.localization.regions import Region, find_regions, smoothed
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.ensemble import Ensemble, enlarged
from lemlight.models.lem import Extrema, Ties, local_extrema, valid_only

KEEP = 0.5
TRIED = 128  # px


def select_extrema(
    score_map: Tensor,
    probability: Tensor,
    *,
    follow: Follow,
    keep: float,
    ties: Ties = "strict",
    threshold: float = 0.5,
    valid: Tensor | None = None,
) -> Extrema:
    """Choose the extrema that a location map starts from (Zhu et al., Bioengineering 2025, Algorithm 2).

    Which extrema the paper selects is [open]. Here the strength of a maximum is its score's distance above the mean of
    its map, that of a minimum the distance below, so that a bias, which shifts all scores alike, changes nothing. An
    extremum counts where its strength is positive and reaches the fraction `keep` of the strongest of its kind in the
    same map.

    Args:
        score_map: raw scores `(N, h, w)`.
        probability: of malignancy, `(N,)` in [0, 1]; looked at only where `follow` is "predicted".
        follow: "maxima", "minima", "both", or as in the paper "predicted": the maxima of images whose probability
            exceeds `threshold`, the minima of the others.
        keep: in [0, 1]; 1 leaves the strongest alone (several if equally strong), 0 all of positive strength.
        ties: see `local_extrema`.
        threshold: probability, 0.5 in the paper.
        valid: cells `(N, h, w)` that count; None: all.

    Returns:
        Maxima and minima, bool `(N, h, w)`; nothing where a map has no extremum that counts.
    """
    maxima, minima = local_extrema(score_map, ties, valid)
    scores = score_map.detach()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    above = scores - valid_only(scores, valid).mean(dim=(1, 2), keepdim=True)
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


class Method(Protocol):
    """A localization method, ours or a user's: any callable of this kind that Hydra builds from `_target_`.

    `images` are `(N, 1, H, W)` float32 in [0, 1] on the classifier's device, `malignant` `(N,)` bool says which of them
    are explained as malignant, the others as benign. It gives maps `(N, H, W)`, finite and at least 0, the larger the
    more a pixel matters, and leaves the classifier as it was.
    """

    def __call__(self, classifier: MammogramClassifier, images: Tensor, malignant: Tensor) -> Tensor:
        """Compute the maps."""


class Explanation(NamedTuple):
    """What a classifier says of images, and where it looks.

    Attributes:
        probability: `(N,)` in [0, 1], float64 where the device has it.
        malignant: `(N,)` bool, predicted malignant.
        score_map: `(N, h, w)` logits.
        maps: `(N, H, W)` float32, at least 0.
        maxima, minima: `(N, h, w)` bool, the extrema that were followed; none for a baseline.
        lost: `(N,)` importance that reached no pixel; 0 for a baseline.
        suspicion: `(N, H, W)` float32, what speaks for malignancy, whatever is predicted: the map of the maxima, or of
            the logit for a baseline. None unless it was asked for.
        valid: `(N, h, w)` bool, the cells of the score map that count; None where all do.
    """

    probability: Tensor
    malignant: Tensor
    score_map: Tensor
    maps: Tensor
    maxima: Tensor
    minima: Tensor
    lost: Tensor
    suspicion: Tensor | None = None
    valid: Tensor | None = None


class Importance:
    """Importance from the extrema down to the pixels (Zhu et al. 2025, Eq. 10-11), see `Passage`.

    As a `Method` it follows the maxima of malignant images and the minima of the others, from half of the strongest's
    strength on. `explain` lets one choose both.
    """

    def __call__(self, classifier: MammogramClassifier, images: Tensor, malignant: Tensor) -> Tensor:
        """Compute the maps."""
        return self.maps(classifier, images, malignant, "predicted", KEEP)

    def maps(
        self, classifier: MammogramClassifier, images: Tensor, malignant: Tensor, follow: Follow, keep: float
    ) -> Tensor:
        """Compute the maps from the extrema of that kind and strength, see `select_extrema`."""
        passage = Passage(classifier, images)
        with evaluating(classifier, images.device.type), torch.no_grad():
            scores = classifier.look(images, passage.features)
        ties, valid = classifier.ties, scores.valid
        extrema = select_extrema(scores.score_map, malignant.float(), follow=follow, keep=keep, ties=ties, valid=valid)
        return passage.back(*extrema).maps


def maps_by(
    method: Method, classifier: MammogramClassifier, images: Tensor, malignant: Tensor, follow: Follow, keep: float
) -> Tensor:
    """Compute maps by a method; by importance from the extrema of that kind and strength, see `select_extrema`."""
    if isinstance(method, Importance):
        return method.maps(classifier, images, malignant, follow, keep)
    return method(classifier, images, malignant)


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
                maps = maps_by(self.method, network, moved, malignant, self.follow, own.keep)
                strength = [torch.from_numpy(smoothed(one.cpu().numpy(), own.smoothing)) for one in maps]
                total += move.back(torch.stack(strength).to(total))
        mean: Tensor = total / (len(self.settings) * len(classifier.moves))
        return mean


def try_methods(classifier: MammogramClassifier, methods: Iterable[Method], shape: tuple[int, int]) -> None:
    """Refuse before any work what a network does not allow: LemlightError names the function without a rule.

    Importance is tried on noise of at most 128 px a side, within the `shape` (H, W) of the images; attention rollout
    wants attention.
    """
    methods = list(methods)
    if any(isinstance(method, AttentionRollout) for method in methods):
        attention_blocks(classifier)
    if any(isinstance(method, Importance) for method in methods):
        size = tuple(min(side, TRIED) for side in shape)
        device = classifier.scorer.weight.device
        Passage(classifier, torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0)).to(device))


def explain(
    classifier: MammogramClassifier,
    images: Tensor,
    method: Method,
    *,
    follow: Follow = "predicted",
    keep: float = KEEP,
    threshold: float = 0.5,
) -> Explanation:
    """Predict images `(N, 1, H, W)` in [0, 1] and map where the prediction comes from.

    Args:
        classifier: looked at in eval mode, and left as it was.
        images: on its device.
        method: makes the maps.
        follow: which extrema importance follows, see `select_extrema`; other methods have none.
        keep: the same.
        threshold: probability above which an image is predicted malignant.

    Raises:
        LemlightError: the method gives no maps, or importance has no rule for the network.
    """
    return ForwardPass(classifier, images, [method], threshold).explain(method, [keep], follow)[0]


class ForwardPass:
    """One forward pass of images `(N, 1, H, W)` in [0, 1], by which any number of methods explain.

    Methods that look at more than the features pass the network again by themselves.

    Args:
        classifier: looked at in eval mode, and left as it was.
        images: on its device.
        methods: those that will explain.
        threshold: probability above which an image is predicted malignant.
        repeat: whether importance will be followed back several times, see `Passage`.

    Raises:
        LemlightError: importance has no rule for the network.
    """

    def __init__(
        self,
        classifier: MammogramClassifier,
        images: Tensor,
        methods: Iterable[Method],
        threshold: float,
        repeat: bool = False,
    ) -> None:
        self.classifier, self.images, self.threshold = classifier, images, threshold
        importance = any(isinstance(method, Importance) for method in methods)
        self._passage = Passage(classifier, images, repeat) if importance else None
        with evaluating(classifier, images.device.type), torch.no_grad():
            self.features: Tensor = self._passage.features if self._passage else classifier.backbone(images)
            scores = classifier.look(images, self.features)
        self.probability, self.score_map = exact(scores.logit).sigmoid(), scores.score_map.float()
        self.valid = scores.valid
        self.malignant = self.probability > threshold

    def explain(
        self, method: Method, keeps: Sequence[float], follow: Follow, suspicion_at: float | None = None
    ) -> list[Explanation]:
        """Explain as the function `explain` does, once for each keep, of which one may want the `suspicion` as well."""
        if isinstance(method, Importance):
            return self._by_importance(keeps, follow, suspicion_at)
        maps, suspicion, others = self._maps(method, self.malignant), None, ~self.malignant
        if suspicion_at is not None:
            suspicion = maps.clone()
            if others.any():
                suspicion[others] = self._maps(method, torch.ones_like(self.malignant[others]), others)
        found = _without_extrema(self.probability, self.malignant, self.score_map, maps, suspicion)
        return [found._replace(valid=self.valid)] * len(keeps)

    def _by_importance(self, keeps: Sequence[float], follow: Follow, suspicion_at: float | None) -> list[Explanation]:
        assert self._passage is not None  # the method was not among those that were said to explain
        kinds: list[tuple[Follow, float]] = [(follow, keep) for keep in keeps]
        if suspicion_at is not None:
            kinds.append(("maxima", suspicion_at))
        given: dict[str, Any] = {"ties": self.classifier.ties, "threshold": self.threshold, "valid": self.valid}
        wanted = [
            select_extrema(self.score_map, self.probability, follow=kind, keep=keep, **given) for kind, keep in kinds
        ]
        packed, places = pack_selections(wanted)  # most images have the same extrema for several keeps
        passed = [self._passage.back(*selection) for selection in packed]
        maps, lost = torch.stack([one.maps for one in passed]), torch.stack([one.lost for one in passed])
        every = torch.arange(len(self.images), device=maps.device)
        suspicion = maps[places[-1], every]
        return [
            Explanation(
                self.probability,
                self.malignant,
                self.score_map,
                maps[place, every],
                *selection,
                lost[place, every],
                suspicion if keep == suspicion_at else None,
                self.valid,
            )
            for keep, selection, place in zip(keeps, wanted, places, strict=False)
        ]

    def _maps(self, method: Method, malignant: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """The maps of some images by a method, which may be a user's own; of ours some need the features alone."""
        images = self.images[rows]
        if isinstance(method, FeatureBaseline):
            maps = method.of_features(self.classifier, self.features[rows], images, malignant)
        else:
            maps = method(self.classifier, images, malignant)
        shape = (len(images), *images.shape[2:])
        if not isinstance(maps, Tensor) or maps.shape != shape or not bool((maps >= 0).all() & maps.isfinite().all()):
            got = f"a tensor of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
            name = getattr(method, "__name__", type(method).__name__)
            raise LemlightError(
                f"the localization method {name} must give finite maps {shape} of at least 0, got {got}"
            )
        return maps.detach().float()


def explain_scores(probability: Tensor, score_map: Tensor, shape: tuple[int, int], threshold: float) -> Explanation:
    """Explain by CAM where probability `(N,)` and score map `(N, h, w)` are all that there is of the network.

    The maps are those of `explain` with the method CAM, at the size `shape` (H, W) of the image.
    """
    malignant = probability > threshold
    maps = enlarged(cam_of_scores(score_map, signs_of(malignant)), shape)
    return _without_extrema(probability, malignant, score_map, maps, None)


def _without_extrema(
    probability: Tensor, malignant: Tensor, score_map: Tensor, maps: Tensor, suspicion: Tensor | None
) -> Explanation:
    nothing = torch.zeros_like(score_map, dtype=torch.bool)
    lost = torch.zeros_like(probability)
    return Explanation(probability, malignant, score_map, maps, nothing, nothing, lost, suspicion)


def regions_of(
    found: Explanation,
    number: int,
    strength: NDArray[Any],
    cutoff: float,
    geometry: BreastGeometry,
    spacing: tuple[float, float] | None,
) -> list[Region]:
    """Find the regions of the image `number`, whose smoothed map is `strength` (H, W), see `find_regions`."""
    maxima, cells = found.maxima[number], found.maxima[number] | found.minima[number]
    speak_for = maxima[cells].cpu().numpy() if cells.any() else bool(found.malignant[number])
    return find_regions(
        strength,
        cutoff,
        geometry,
        spacing=spacing,
        probability=float(found.probability[number]),
        extrema=extremum_points(cells, geometry.prepared_shape),
        malignant=speak_for,
    )

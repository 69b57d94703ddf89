"""Backbone, scorer and pooling as one network, the cells that it pools, and building it from its config.

A pooling sees the cells that count by its argument `valid`. Of these are left out what lies in the air, and what
separates the views of a bag, whose maps are laid side by side: to a pooling a breast is one image with a wide map.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemlight.building import build
from lemlight.errors import LemlightError
from lemlight.models.adapting import checkpoint_gradients
from lemlight.models.lem import Extrema, local_extrema, valid_only
from lemlight.models.pooling import Scorer

BREAST = 0.5  # a cell counts if the breast covers this fraction of it [reading]


def breast_cells(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """The cells `(N, h, w)` bool of maps of `shape` (h, w) that the breast covers half of; air is 0 in an image.

    The map is taken to cover the whole image `(N, 1, H, W)`, in [0, 1] as prepared. Of an image whose breast covers no
    cell all cells count: to leave all of them out would leave nothing to be pooled.
    """
    down, across = (_overlaps(side, cells) for side, cells in zip(images.shape[2:], shape, strict=True))
    covered = down.to(images.device) @ (images[:, 0] > 0).float() @ across.to(images.device).T
    inside = covered > BREAST - 1e-5  # rounding of the sum
    return inside | ~inside.flatten(1).any(dim=1).view(-1, 1, 1)


def _overlaps(pixels: int, cells: int) -> Tensor:
    """How much of each of the cells along a side each px covers: `(cells, pixels)`, sums to 1 in every cell."""
    size = pixels / cells
    pixel, cell = torch.arange(pixels).double(), torch.arange(cells).double().unsqueeze(1)
    ends = torch.minimum(pixel + 1, (cell + 1) * size) - torch.maximum(pixel, cell * size)
    return (ends.clamp(min=0) / size).float()


def takes(name: str, function: Callable[..., object]) -> bool:
    """Whether a pooling's `forward` or `regularizer` takes the cells that count, `valid`, or the `images`."""
    return name in inspect.signature(function).parameters


def lists_of_cells(score_map: Tensor, features: Tensor, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The cells that count of each image as a map of one row: scores `(1, 1, K)`, features `(1, C, 1, K)`.

    For a pooling that does not take `valid`; it must look at cells without their neighbours.
    """
    return [
        (scores[inside].view(1, 1, -1), vectors[:, inside].unsqueeze(1).unsqueeze(0))
        for scores, vectors, inside in zip(score_map, features, valid, strict=True)
    ]


def bags_by_size(bag: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each number V of views: the B bags that have so many `(B,)`, and the places of their views `(B, V)`.

    Args:
        bag: `(N,)`, the number of the bag that each view belongs to, from 0 on without a gap.
    """
    sizes, places = torch.bincount(bag), torch.argsort(bag, stable=True)
    starts = sizes.cumsum(0) - sizes
    bags = [((sizes == views).nonzero().squeeze(1), views) for views in sorted(set(sizes.tolist()))]
    return [(own, places[starts[own].unsqueeze(1) + torch.arange(views, device=bag.device)]) for own, views in bags]


def side_by_side(maps: Tensor, places: Tensor) -> Tensor:
    """Lay the maps `(N, ..., h, w)` of the views of bags `(B, V)` side by side, a column of 0 between two of them.

    Gives `(B, ..., h, V * (w + 1) - 1)`.
    """
    apart = functional.pad(maps[places], (0, 1))
    return apart.movedim(1, -2).flatten(-2)[..., :-1]


class Scores(NamedTuple):
    """What a classifier says about images, or about bags of several views.

    Attributes:
        logit: `(N,)`, of the pooling method; the probability of malignancy is its sigmoid. `(B,)` of bags.
        gap_logit: `(N,)`, mean of the same score map. `(B,)` of bags.
        score_map: `(N, h, w)`, raw scores, float32; 0 where a cell does not count.
        regularizer: scalar, the pooling's own loss term (0 for most).
        valid: `(N, h, w)` bool, the cells that count; None where all do.
        further: logits `(N,)` of parts of the pooling, which are trained beside it; none for most.
    """

    logit: Tensor
    gap_logit: Tensor
    score_map: Tensor
    regularizer: Tensor
    valid: Tensor | None = None
    further: tuple[Tensor, ...] = ()


class MammogramClassifier(nn.Module):
    """Images `(N, 1, H, W)` in [0, 1] -> `Scores`; every pooling method shares the backbone and the scorer.

    `backbone` is any module from images to features `(N, C, h, w)`; `pooling` see `lemlight.models.pooling`. With
    `inside_breast` the cells of the score map that lie in the air do not count, see `breast_cells`.

    Attributes:
        temperature: by which the logit is divided; 1 in training, then what the validation split chose.
        frozen: the backbone is not trained: no gradient, running statistics as they are, no dropout.
    """

    temperature: float = 1.0
    frozen: bool = False

    def __init__(self, backbone: nn.Module, scorer: Scorer, pooling: nn.Module, inside_breast: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.scorer = scorer
        self.pooling = pooling
        self.inside_breast = inside_breast

    def freeze(self) -> None:
        """Train the backbone no more."""
        self.frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "MammogramClassifier":
        """Set the mode of all modules but of a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor, bag: Tensor | None = None) -> Scores:
        """Compute logits, score map and regularizer; of bags where `bag` `(N,)` numbers them, see `judge`."""
        return self.look(images, self.backbone(images), bag)

    def look(self, images: Tensor, features: Tensor, bag: Tensor | None = None) -> Scores:
        """Compute the same where the features `(N, C, h, w)` of the images are known."""
        return self.judge(features, self.valid(images, features), bag, images)

    def valid(self, images: Tensor, features: Tensor) -> Tensor | None:
        """The cells `(N, h, w)` of the score map that count; None: all of them, unless `inside_breast`."""
        return breast_cells(images, (features.shape[2], features.shape[3])) if self.inside_breast else None

    def judge(
        self,
        features: Tensor,
        valid: Tensor | None = None,
        bag: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Scores:
        """Compute the same from the features `(N, C, h, w)` of the backbone.

        Args:
            features: of the images.
            valid: the cells that count, see `valid`.
            bag: `(N,)`, the number of the bag that each image is a view of, from 0 to B - 1. The score maps of its
                views, side by side, are pooled as one. None: each image on its own.
            images: `(N, 1, H, W)`, for a pooling that looks at them.
        """
        score_map = self.scorer(features)
        if valid is not None:
            score_map = score_map.masked_fill(~valid, 0)
        if bag is None or torch.equal(bag, torch.arange(len(bag), device=bag.device)):  # images, to the last digit
            return self._pooled(score_map, features, valid, images)
        counted = torch.ones_like(score_map, dtype=torch.bool) if valid is None else valid
        groups, pooled = bags_by_size(bag), []
        for _, places in groups:
            if places.shape[1] == 1:
                own = places.squeeze(1)
                pooled.append(self._pooled(score_map[own], features[own], None if valid is None else valid[own]))
            else:
                pooled.append(self._pooled(*(side_by_side(maps, places) for maps in (score_map, features, counted))))
        order = torch.argsort(torch.cat([bags for bags, _ in groups]))
        return Scores(
            logit=torch.cat([scores.logit for scores in pooled])[order],
            gap_logit=torch.cat([scores.gap_logit for scores in pooled])[order],
            score_map=score_map,
            regularizer=torch.stack([one.regularizer * (len(one.logit) / len(order)) for one in pooled]).sum(),
            valid=valid,
        )

    def _pooled(
        self, score_map: Tensor, features: Tensor, valid: Tensor | None, images: Tensor | None = None
    ) -> Scores:
        """Pool each map on its own; a pooling that does not take `valid` gets the list of the cells that count."""
        regularizer = getattr(self.pooling, "regularizer", _nothing)
        more = {"images": images} if self.takes_images else {}
        # in this order: gradients are added up in it, and rounded so
        if valid is None:
            logit = self.pooling(score_map, features, self.scorer, **more)
        elif self.takes_valid:
            logit = self.pooling(score_map, features, self.scorer, valid=valid, **more)
        else:
            cells = lists_of_cells(score_map, features, valid)
            logit = torch.cat([self.pooling(scores, vectors, self.scorer) for scores, vectors in cells])
        gap_logit = valid_only(score_map, valid).mean(dim=(1, 2))
        if valid is None:
            term = regularizer(score_map)
        elif takes("valid", regularizer):
            term = regularizer(score_map, valid=valid)
        else:
            term = torch.stack([regularizer(scores) for scores, _ in lists_of_cells(score_map, features, valid)]).mean()
        logit, *further = logit if isinstance(logit, tuple) else (logit,)
        return Scores(self.calibrated(logit), gap_logit, score_map, term, valid, tuple(further))

    def calibrated(self, logit: Tensor) -> Tensor:
        """Divide the pooling's logits `(N,)` by the temperature."""
        return logit if self.temperature == 1 else logit / self.temperature

    def extrema(self, scores: Scores) -> Extrema:
        """The extrema of its score maps, among the cells that count, told as its pooling tells them."""
        return local_extrema(scores.score_map, self.ties, scores.valid)

    @property
    def takes_valid(self) -> bool:
        """Whether its pooling takes the cells that count; another one gets them as a list, see `lists_of_cells`."""
        return takes("valid", self.pooling.forward)

    @property
    def takes_images(self) -> bool:
        """Whether its pooling looks at the images as well."""
        return takes("images", self.pooling.forward)

    @property
    def ties(self) -> Any:
        """How the extrema of its score maps are told, see `local_extrema`: a pooling's own choice, or "strict"."""
        return getattr(self.pooling, "ties", "strict")

    @property
    def output_stride(self) -> int:
        """Image px per cell of the score map, of the backbone; 32 where it does not say."""
        return int(getattr(self.backbone, "output_stride", 32))


UNTRAINED = {"weights": "none", "weights_file": None, "local_weights": "none"}  # where trained ones are loaded next


def _nothing(score_map: Tensor, valid: Tensor | None = None) -> Tensor:
    return score_map.new_zeros(())


def build_classifier(config: Mapping[str, Any], first_weights: bool = True) -> MammogramClassifier:
    """Build backbone, scorer and pooling from a config with `backbone`, `pooling`, `scorer_bias`, `inside_breast`.

    Args:
        config: plain values; check them first where they come from a file, see `lemlight.building.check_trust`.
        first_weights: False leaves the backbone's weights random, for one whose trained weights are loaded next.

    Raises:
        LemlightError: a part that cannot be built, weights that are not to be had, or a part that is no backbone or no
            pooling.
    """
    part = dict(config["backbone"])
    frozen, checkpointed = (_switch(part, name) for name in ("frozen", "gradient_checkpointing"))
    method = dict(config["pooling"])
    if not first_weights:
        part |= {key: value for key, value in UNTRAINED.items() if key in part}
        method |= {key: value for key, value in UNTRAINED.items() if key in method}
    backbone = build(part, "backbone", kind=nn.Module)
    channels = getattr(backbone, "out_channels", None)
    if not isinstance(channels, int):
        raise LemlightError(
            f"backbone: {part['_target_']} has no `out_channels`, the number of channels of its features (N, C, h, w): "
            "set self.out_channels in its constructor"
        )
    pooling = build(method, "pooling", channels=channels, kind=nn.Module)
    scorer, inside_breast = Scorer(channels, config.get("scorer_bias", True)), config.get("inside_breast", False)
    classifier = MammogramClassifier(backbone, scorer, pooling, inside_breast)
    kept = frozen and config.get("feature_versions") is not None
    if classifier.takes_images and (kept or config.get("level", "image") != "image"):
        raise LemlightError(
            f"pooling: {type(pooling).__name__} looks at single images; set "
            + ("feature_versions=null: kept features are no images" if kept else "level=image")
        )
    if not classifier.scorer.weight.is_meta:  # shapes alone answer nothing
        _check_pooling(classifier, channels, config["pooling"]["_target_"])
    if frozen:
        classifier.freeze()
    if checkpointed:
        checkpoint_gradients(backbone)
    return classifier


def _switch(part: dict[str, Any], name: str) -> bool:
    """Take a key of a backbone's part that is no argument of its constructor."""
    value = part.pop(name, False)
    if not isinstance(value, bool):
        raise LemlightError(f"backbone.{name}={value}: must be true or false")
    return value


@torch.no_grad()
def _check_pooling(classifier: MammogramClassifier, channels: int, target: str) -> None:
    """Try the pooling on two small maps: a wrong shape is to be found before any image is read."""
    features = torch.linspace(0, 1, 2 * channels * 12).view(2, channels, 3, 4)
    valid = torch.ones(2, 3, 4, dtype=torch.bool) if classifier.inside_breast else None
    classifier.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            logit = classifier.judge(features, valid, images=torch.zeros(2, 1, 48, 64)).logit
    except LemlightError:
        raise
    except Exception as error:
        raise LemlightError(
            f"pooling: {target} failed on score maps (2, 3, 4) and features (2, {channels}, 3, 4) with "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        classifier.train()
    shape = tuple(logit.shape) if isinstance(logit, Tensor) else type(logit).__name__
    if shape != (2,):
        raise LemlightError(
            f"pooling: {target} must turn score maps (N, h, w) into logits (N,): of 2 maps it made {shape}"
        )

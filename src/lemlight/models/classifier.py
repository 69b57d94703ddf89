"""Backbone, scorer and pooling as one network, and building it from its config."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lemlight.building import build
from lemlight.errors import LemlightError
from lemlight.models.pooling import Scorer


class Scores(NamedTuple):
    """What a classifier says about images.

    Attributes:
        logit: `(N,)`, of the pooling method; the probability of malignancy is its sigmoid.
        gap_logit: `(N,)`, mean of the same score map.
        score_map: `(N, h, w)`, raw scores, float32.
        regularizer: scalar, the pooling's own loss term (0 for most).
    """

    logit: Tensor
    gap_logit: Tensor
    score_map: Tensor
    regularizer: Tensor


class MammogramClassifier(nn.Module):
    """Images `(N, 1, H, W)` in [0, 1] -> `Scores`; every pooling method shares the backbone and the scorer.

    `backbone` is any module from images to features `(N, C, h, w)`; `pooling` see `lemlight.models.pooling`.

    Attributes:
        temperature: by which the logit is divided; 1 in training, then what the validation split chose.
    """

    temperature: float = 1.0

    def __init__(self, backbone: nn.Module, scorer: Scorer, pooling: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.scorer = scorer
        self.pooling = pooling

    def forward(self, images: Tensor) -> Scores:
        """Compute logits, score map and regularizer."""
        return self.judge(self.backbone(images))

    def judge(self, features: Tensor) -> Scores:
        """Compute the same from the features `(N, C, h, w)` of the backbone."""
        score_map = self.scorer(features)
        regularizer = getattr(self.pooling, "regularizer", None)
        return Scores(
            logit=self.calibrated(self.pooling(score_map, features, self.scorer)),
            gap_logit=score_map.mean(dim=(1, 2)),
            score_map=score_map,
            regularizer=regularizer(score_map) if regularizer else score_map.new_zeros(()),
        )

    def calibrated(self, logit: Tensor) -> Tensor:
        """Divide the pooling's logits `(N,)` by the temperature."""
        return logit if self.temperature == 1 else logit / self.temperature

    @property
    def ties(self) -> Any:
        """How the extrema of its score maps are told, see `local_extrema`: a pooling's own choice, or "strict"."""
        return getattr(self.pooling, "ties", "strict")

    @property
    def output_stride(self) -> int:
        """Image px per cell of the score map, of the backbone; 32 where it does not say."""
        return int(getattr(self.backbone, "output_stride", 32))


def build_classifier(config: Mapping[str, Any], first_weights: bool = True) -> MammogramClassifier:
    """Build backbone, scorer and pooling from a config with `backbone`, `pooling` and `scorer_bias`.

    Args:
        config: plain values; check them first where they come from a file, see `lemlight.building.check_trust`.
        first_weights: False leaves the backbone's weights random, for one whose trained weights are loaded next.

    Raises:
        LemlightError: a part that cannot be built, weights that are not to be had, or a part that is no backbone or no
            pooling.
    """
    part = dict(config["backbone"])
    if not first_weights and "weights" in part:
        part |= {"weights": "none"} | ({"weights_file": None} if "weights_file" in part else {})
    backbone = build(part, "backbone", kind=nn.Module)
    channels = getattr(backbone, "out_channels", None)
    if not isinstance(channels, int):
        raise LemlightError(
            f"backbone: {part['_target_']} has no `out_channels`, the number of channels of its features (N, C, h, w): "
            "set self.out_channels in its constructor"
        )
    pooling = build(config["pooling"], "pooling", channels=channels, kind=nn.Module)
    classifier = MammogramClassifier(backbone, Scorer(channels, config.get("scorer_bias", True)), pooling)
    _check_pooling(classifier, channels, config["pooling"]["_target_"])
    return classifier


@torch.no_grad()
def _check_pooling(classifier: MammogramClassifier, channels: int, target: str) -> None:
    """Try the pooling on two small maps: a wrong shape is to be found before any image is read."""
    features = torch.linspace(0, 1, 2 * channels * 12).view(2, channels, 3, 4)
    classifier.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            logit = classifier.judge(features).logit
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

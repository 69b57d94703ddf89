"""Backbone, scorer and pooling as one network."""

from typing import NamedTuple

from torch import Tensor, nn

from lemlight.models.backbones import Backbone
from lemlight.models.pooling import Pooling, Scorer


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
    """Images `(N, 1, H, W)` in [0, 1] -> `Scores`; every pooling method shares the backbone and the scorer."""

    def __init__(self, backbone: Backbone, scorer: Scorer, pooling: Pooling) -> None:
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
        return Scores(
            logit=self.pooling(score_map, features, self.scorer),
            gap_logit=score_map.mean(dim=(1, 2)),
            score_map=score_map,
            regularizer=self.pooling.regularizer(score_map),
        )

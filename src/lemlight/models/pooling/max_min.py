"""Max-min pooling."""

from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.models.pooling.base import Pooling, check_share, share_count
from lemlight.models.scorer import Scorer


class MaxMinPooling(Pooling):
    """`logit = (mean of the top kmax + alpha * mean of the bottom kmin) / 2` (WILDCAT; Durand 2016, 2017).

    Args:
        kmax: share of regions with the highest scores, in (0, 1]; WILDCAT's 0.2 [open].
        kmin: share of regions with the lowest scores, in (0, 1] [open].
        alpha: weight of the lowest, at least 0; WILDCAT's 0.7 [open].
    """

    def __init__(self, kmax: float = 0.2, kmin: float = 0.2, alpha: float = 0.7) -> None:
        super().__init__()
        check_share("max_min", "kmax", kmax)
        check_share("max_min", "kmin", kmin)
        if not alpha >= 0:
            raise LemlightError(f"max_min: alpha must be at least 0, got {alpha}")
        self.kmax, self.kmin, self.alpha = kmax, kmin, alpha

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        scores = score_map.flatten(1)
        regions = scores.shape[1]
        highest = scores.topk(share_count(self.kmax, regions), dim=1).values.mean(dim=1)
        lowest = scores.topk(share_count(self.kmin, regions), dim=1, largest=False).values.mean(dim=1)
        return (highest + self.alpha * lowest) / 2

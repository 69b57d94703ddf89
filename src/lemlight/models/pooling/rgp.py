"""Region-based group-max pooling."""

from torch import Tensor

from lemlight.models.pooling.base import Pooling, check_share, share_count
from lemlight.models.scorer import Scorer


class RegionGroupMaxPooling(Pooling):
    """Score all regions, average the feature vectors of the top share `k`, score that (Shu et al., TMI 2020, 39:2246).

    The scorer is linear, so the score of the average vector is the average of the k scores: it is computed so.
    The choice of regions is not differentiated. k = 1 is GAP.

    Args:
        k: share of regions, in (0, 1]; 0.7 in the published configuration.
    """

    def __init__(self, k: float = 0.7) -> None:
        super().__init__()
        check_share("rgp", "k", k)
        self.k = k

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        scores = score_map.flatten(1)
        return scores.topk(share_count(self.k, scores.shape[1]), dim=1).values.mean(dim=1)

"""Sparse multiple-instance learning."""

from torch import Tensor

from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer


class SparseMIL(Pooling):
    """`p = max_ij sigmoid(S_ij)`, so `logit = max_ij S_ij`, with an L1 loss on all region probabilities (Zhu W. 2017).

    The L1 norm is divided by the number of regions, so that its weight beta does not depend on the size of the map;
    the source's weight on the undivided sum is beta / (h * w) [reading].
    """

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return score_map.amax(dim=(1, 2))

    def regularizer(self, score_map: Tensor) -> Tensor:
        """Mean probability of the regions, in [0, 1]."""
        return score_map.sigmoid().mean()

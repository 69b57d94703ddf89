"""Global group-max pooling."""

import torch
from torch import Tensor

from lemlight.models.pooling.base import Pooling, check_share, share_count
from lemlight.models.scorer import Scorer


class GlobalGroupMaxPooling(Pooling):
    """Average the top share `k` of every channel on its own, score that C-vector (Shu et al., TMI 2020, 39:2246).

    The choice of activations is not differentiated. k = 1 is GAP.

    Args:
        k: share of the activations of a channel, in (0, 1]; 0.7 in the published configuration.
    """

    def __init__(self, k: float = 0.7) -> None:
        super().__init__()
        check_share("ggp", "k", k)
        self.k = k

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool features `(N, C, h, w)` into `(N,)`."""
        activations = features.flatten(2)
        activations = activations.to(torch.promote_types(activations.dtype, torch.float32))
        count = share_count(self.k, activations.shape[2])
        averages = activations.topk(count, dim=2).values.mean(dim=2, keepdim=True)
        return scorer.score_vectors(averages).squeeze(1)

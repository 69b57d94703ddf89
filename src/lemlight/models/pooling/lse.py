"""Log-sum-exp pooling."""

import math

import torch
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer


class LogSumExpPooling(Pooling):
    """`logit = (1/r) log mean_ij exp(r S_ij)` (Pinheiro and Collobert 2015; Sun 2016), without overflow.

    Args:
        r: sharpness, more than 0: r -> 0 is GAP, r -> inf is GMP. 4 by default [open].
    """

    def __init__(self, r: float = 4.0) -> None:
        super().__init__()
        if not 0 < r < math.inf:
            raise LemlightError(f"lse: r must be more than 0 and finite, got {r} (r -> 0 is gap, r -> inf is gmp)")
        self.r = r

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        scores = score_map.flatten(1)
        return (torch.logsumexp(self.r * scores, dim=1) - math.log(scores.shape[1])) / self.r

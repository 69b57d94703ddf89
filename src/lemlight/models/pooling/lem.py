"""Local extremum mapping as a pooling method."""

import torch
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.models.lem import check_sparse_options, check_ties, local_extrema, masked_mean, sparse_loss
from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer

AGGREGATES = ("mean", "sum")


class LocalExtremumMapping(Pooling):
    """`logit = s+ + s-`, s+ over the local maxima, s- over the local minima (Zhu et al., Bioengineering 2025, Eq. 3-5).

    The gradient reaches the extrema alone; the choice of extrema is not differentiated [reading]. A map with one kind
    of extremum only is scored by that kind, the other contributes 0: nothing of it stands out [reading].
    A map without any extremum falls back to GAP, so that it has a probability and a gradient [reading].

    Args:
        aggregate: s+ and s- are the "mean" or the "sum" of the scores of their extrema [reading].
        ties: see `local_extrema` [reading].
        threshold: of the sparse loss, see `sparse_loss` [open].
        penalty_factor: of the sparse loss [reading].
        norm: of the sparse loss [open].
    """

    def __init__(
        self,
        aggregate: str = "mean",
        ties: str = "strict",
        threshold: float = 1.0,
        penalty_factor: float = 3.0,
        norm: str = "l1",
    ) -> None:
        super().__init__()
        if aggregate not in AGGREGATES:
            raise LemlightError(f"lem: aggregate must be one of {', '.join(AGGREGATES)}, got '{aggregate}'")
        check_ties(ties)
        check_sparse_options(threshold, penalty_factor, norm)
        self.aggregate, self.ties = aggregate, ties
        self.threshold, self.penalty_factor, self.norm = threshold, penalty_factor, norm

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        maxima, minima = local_extrema(score_map, self.ties)
        if self.aggregate == "mean":
            logit = masked_mean(score_map, maxima) + masked_mean(score_map, minima)
        else:
            logit = (score_map * maxima).sum(dim=(1, 2)) + (score_map * minima).sum(dim=(1, 2))
        return torch.where((maxima | minima).flatten(1).any(dim=1), logit, score_map.mean(dim=(1, 2)))

    def regularizer(self, score_map: Tensor) -> Tensor:
        """Sparse loss (Eq. 6) of the map."""
        extrema = local_extrema(score_map, self.ties)
        return sparse_loss(score_map, extrema, self.threshold, self.penalty_factor, self.norm)

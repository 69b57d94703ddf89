"""Global average pooling."""

from torch import Tensor

from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer


class GlobalAveragePooling(Pooling):
    """`logit = mean_ij S_ij`: the same as GAP on the features and a fully connected layer (Zhou 2016)."""

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return score_map.mean(dim=(1, 2))

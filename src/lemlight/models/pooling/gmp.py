"""Global max pooling."""

from torch import Tensor

from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer


class GlobalMaxPooling(Pooling):
    """`logit = max_ij S_ij` (Oquab 2015); equal maxima share the gradient."""

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return score_map.amax(dim=(1, 2))

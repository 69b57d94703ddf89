"""Gated attention over regions."""

import torch
from torch import Tensor, nn

from lemlight.errors import LemlightError
from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer


class AttentionMIL(Pooling):
    """`logit = score of sum_k a_k F_k`, `a = softmax_k(w . (tanh(V F_k) * sigmoid(U F_k)))` (Ilse 2018, Eq. 9).

    Attention sums to 1 and the scorer is linear, so the score of the weighted sum is the weighted sum of the scores:
    it is computed so. Equal attention everywhere (w = 0) is GAP.

    Args:
        channels: C of the features.
        hidden: length of the attention vectors, at least 1; 128 in the source.
    """

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        if hidden < 1:
            raise LemlightError(f"attention_mil: hidden must be at least 1, got {hidden}")
        self.content = nn.Conv2d(channels, hidden, kernel_size=1)
        self.gate = nn.Conv2d(channels, hidden, kernel_size=1)
        self.weight = nn.Conv2d(hidden, 1, kernel_size=1)

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return (self.attention(features) * score_map).sum(dim=(1, 2))

    def attention(self, features: Tensor) -> Tensor:
        """Return the attention `(N, h, w)`, which sums to 1 in every image."""
        hidden = torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features))
        logits: Tensor = self.weight(hidden).squeeze(1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.flatten(1).softmax(dim=1).view_as(logits)

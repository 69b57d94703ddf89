"""The scorer: one weight per channel turns a feature map into a score map."""

import torch
from torch import Tensor, nn

from lemlight.errors import LemlightError


class Scorer(nn.Module):
    """1x1 convolution `C -> 1` without activation: features `(N, C, h, w)` -> scores `(N, h, w)` (Eq. 1-2), logits.

    It computes in float32 at least, also under autocast: bfloat16 scores would tie, and extrema are decided on them.
    It is a matrix product rather than a convolution because cuDNN would round the latter to TF32.
    Weights start at N(0, 0.01^2) and the bias at 0, so that probabilities start near 0.5 and the map is not flat.
    Whether the paper has a bias is [open]; it shifts every score alike and moves no extremum.

    Attributes:
        weight: `(1, C, 1, 1)`.
        bias: `(1,)` or None.
    """

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        if channels < 1:
            raise LemlightError(f"scorer: channels must be at least 1, got {channels}")
        self.weight = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Score every cell of a feature map."""
        images, _, height, width = features.shape
        return self.score_vectors(features.flatten(2)).view(images, height, width)

    def score_vectors(self, vectors: Tensor) -> Tensor:
        """Score the feature vectors of K regions: `(N, C, K)` -> `(N, K)`."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(device_type=vectors.device.type, enabled=False):
            scores: Tensor = torch.matmul(self.weight.to(dtype).view(1, -1), vectors.to(dtype)).squeeze(1)
            return scores if self.bias is None else scores + self.bias.to(dtype)

"""Peak stimulation."""

import torch
from torch import Tensor
from torch.nn import functional

from lemlight.models.lem import masked_mean
from lemlight.models.pooling.base import Pooling
from lemlight.models.scorer import Scorer


class PeakStimulation(Pooling):
    """`logit = mean of the peaks`: local maxima in 3x3 windows that reach the map's median (PRM; Zhou 2018).

    As in the original a cell is a peak if it is the first maximum of its window in reading order, and the median is
    the lower one. The highest cell of a map is always a peak.
    """

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return masked_mean(score_map, peaks(score_map.detach()))


def peaks(score_map: Tensor) -> Tensor:
    """Find the peaks of score maps `(N, h, w)`: bool, the same shape."""
    _, height, width = score_map.shape
    first = functional.max_pool2d(score_map.unsqueeze(1), 3, stride=1, padding=1, return_indices=True)[1].squeeze(1)
    own = torch.arange(height * width, device=score_map.device).view(height, width)
    ordered = score_map.flatten(1).sort(dim=1).values  # torch.median is not deterministic on a GPU
    median = ordered[:, (height * width - 1) // 2].view(-1, 1, 1)
    return (first == own) & (score_map >= median)

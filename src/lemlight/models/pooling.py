"""The scorer and the pooling methods: features -> score map -> logit.

A pooling method is a module whose `forward(score_map, features, scorer)` turns score maps `(N, h, w)` of features
`(N, C, h, w)` into logits `(N,)`. An argument `channels` of its constructor is given C, an argument `valid` of its
`forward` the cells that count, bool `(N, h, w)`, or None where all do, an argument `images` the images `(N, 1, H, W)`.
Where it gives a tuple of logits, the first is predicted with, and all of them are trained. See docs/own/pooling.md.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemlight.arguments import Count, Fraction, NotNegative, Positive, checked
from lemlight.errors import LemlightError
from lemlight.models.lem import Norm, Ties, local_extrema, masked_mean, sparse_loss, valid_only


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

    @checked
    def __init__(self, channels: Count, bias: bool = True) -> None:
        super().__init__()
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


class Pooling(nn.Module):
    """What lemlight's own pooling methods share; a user's own may be any module with this `forward`.

    Each image is pooled on its own: the result does not depend on the rest of the batch.

    Attributes:
        ties: how the extrema of its score maps are told, see `local_extrema`; of LEM a choice.
        ramps: whether lambda ramps for it (Eq. 8): for LEM alone, whose early extrema are random.
    """

    ties: Ties = "strict"
    ramps = False

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool score maps `(N, h, w)` of features `(N, C, h, w)`, scored by `scorer`, into logits `(N,)`.

        Where `valid` `(N, h, w)` is given, its cells alone count, at least one of each image: the others are neither
        pooled nor anyone's neighbour. With all of them the result is that without it, to the last digit.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it pools")

    def regularizer(self, score_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the method's own loss term, a scalar; 0 where it has none."""
        return score_map.new_zeros(())


def mean_of_top(values: Tensor, fraction: float, largest: bool = True, valid: Tensor | None = None) -> Tensor:
    """Mean of the highest (or lowest) `fraction` of the last dimension: a rounded number of values, at least one.

    Of the `valid` ones alone, where these are given; their shape is that of `values` or 1 in its middle.
    """
    count = max(1, round(fraction * values.shape[-1]))
    if valid is None:
        return values.topk(count, dim=-1, largest=largest).values.mean(dim=-1)
    last = float("-inf") if largest else float("inf")
    best = values.masked_fill(~valid, last).topk(count, dim=-1, largest=largest).values
    counts = _of_number(lambda number: max(1, round(fraction * number)), valid)
    taken = torch.arange(count, device=values.device) < counts
    return torch.where(taken, best, 0).mean(dim=-1) * (count / counts.squeeze(-1)).to(values.dtype)


def _of_number(rule: Callable[[int], float], valid: Tensor) -> Tensor:
    """Look up a rule for the number of valid cells in the last dimension, which becomes 1; as exact as for all."""
    table = torch.tensor([rule(number) for number in range(valid.shape[-1] + 1)], device=valid.device)
    return table[valid.sum(dim=-1, keepdim=True)]


def _flat(valid: Tensor | None) -> Tensor | None:
    return None if valid is None else valid.flatten(1)


class GlobalAveragePooling(Pooling):
    """`logit = mean_ij S_ij`: the same as GAP on the features and a fully connected layer (Zhou 2016)."""

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return valid_only(score_map, valid).mean(dim=(1, 2))


class GlobalMaxPooling(Pooling):
    """`logit = max_ij S_ij` (Oquab 2015); equal maxima share the gradient."""

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return (score_map if valid is None else score_map.masked_fill(~valid, float("-inf"))).amax(dim=(1, 2))


class RegionGroupMaxPooling(Pooling):
    """RGP: score all regions, average the features of the best fraction `k`, score that (Shu, TMI 2020, 39:2246).

    The scorer is linear, so the score of the average vector is the average of the k scores: it is computed so.
    The choice of regions is not differentiated. k = 1 is GAP.

    Args:
        k: fraction of regions; 0.7 in the published configuration.
    """

    @checked
    def __init__(self, k: Fraction = 0.7) -> None:
        super().__init__()
        self.k = k

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return mean_of_top(score_map.flatten(1), self.k, valid=_flat(valid))


class GlobalGroupMaxPooling(Pooling):
    """GGP: average the best fraction `k` of every channel on its own, score that C-vector (Shu, TMI 2020, 39:2246).

    The choice of activations is not differentiated. k = 1 is GAP.

    Args:
        k: fraction of the activations of a channel; 0.7 in the published configuration.
    """

    @checked
    def __init__(self, k: Fraction = 0.7) -> None:
        super().__init__()
        self.k = k

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool features `(N, C, h, w)` into `(N,)`."""
        activations = features.flatten(2)
        activations = activations.to(torch.promote_types(activations.dtype, torch.float32))
        among = None if valid is None else valid.flatten(1).unsqueeze(1)
        return scorer.score_vectors(mean_of_top(activations, self.k, valid=among).unsqueeze(2)).squeeze(1)


class LogSumExpPooling(Pooling):
    """`logit = (1/r) log mean_ij exp(r S_ij)` (Pinheiro and Collobert 2015; Sun 2016), without overflow.

    Args:
        r: sharpness: r -> 0 is GAP, r -> inf is GMP. 4 by default [open].
    """

    @checked
    def __init__(self, r: Positive = 4.0) -> None:
        super().__init__()
        self.r = r

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        scores = score_map.flatten(1)
        if valid is None:
            return (torch.logsumexp(self.r * scores, dim=1) - math.log(scores.shape[1])) / self.r
        scores = scores.masked_fill(~valid.flatten(1), float("-inf"))
        logarithm = _of_number(lambda number: math.log(max(1, number)), valid.flatten(1)).squeeze(1)
        return (torch.logsumexp(self.r * scores, dim=1) - logarithm.to(scores.dtype)) / self.r


class MaxMinPooling(Pooling):
    """`logit = (mean of the top kmax + alpha * mean of the bottom kmin) / 2` (WILDCAT; Durand 2016, 2017).

    Args:
        kmax: fraction of regions with the highest scores; WILDCAT's 0.2 [open].
        kmin: fraction of regions with the lowest scores [open].
        alpha: weight of the lowest; WILDCAT's 0.7 [open].
    """

    @checked
    def __init__(self, kmax: Fraction = 0.2, kmin: Fraction = 0.2, alpha: NotNegative = 0.7) -> None:
        super().__init__()
        self.kmax, self.kmin, self.alpha = kmax, kmin, alpha

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        scores, valid = score_map.flatten(1), _flat(valid)
        lowest = mean_of_top(scores, self.kmin, largest=False, valid=valid)
        return (mean_of_top(scores, self.kmax, valid=valid) + self.alpha * lowest) / 2


class PeakStimulation(Pooling):
    """`logit = mean of the peaks`: local maxima in 3x3 windows that reach the map's median (PRM; Zhou 2018).

    As in the original a cell is a peak if it is the first maximum of its window in reading order, and the median is
    the lower one. The highest cell of a map is always a peak.
    """

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        return masked_mean(score_map, peaks(score_map.detach(), valid))


def peaks(score_map: Tensor, valid: Tensor | None = None) -> Tensor:
    """Find the peaks of score maps `(N, h, w)`, among the `valid` cells: bool, the same shape."""
    images, height, width = score_map.shape
    if valid is None:
        middle = torch.full((images, 1), (height * width - 1) // 2, device=score_map.device)
    else:
        middle = (valid.flatten(1).sum(dim=1, keepdim=True) - 1) // 2
        score_map = score_map.masked_fill(~valid, float("inf"))
    ordered = score_map.flatten(1).sort(dim=1).values  # torch.median is not deterministic on a GPU
    median = ordered.gather(1, middle).unsqueeze(2)
    if valid is not None:
        score_map = score_map.masked_fill(~valid, float("-inf"))
    first = functional.max_pool2d(score_map.unsqueeze(1), 3, stride=1, padding=1, return_indices=True)[1].squeeze(1)
    own = torch.arange(height * width, device=score_map.device).view(height, width)
    return (first == own) & (score_map >= median)


class SparseMIL(GlobalMaxPooling):
    """`p = max_ij sigmoid(S_ij)`, so `logit = max_ij S_ij`, with an L1 loss on all region probabilities (Zhu W. 2017).

    The L1 norm is divided by the number of regions, so that its weight beta does not depend on the size of the map;
    the source's weight on the undivided sum is beta / (h * w) [reading].
    """

    def regularizer(self, score_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean probability of the regions, in [0, 1]."""
        return valid_only(score_map.sigmoid(), valid).mean()


class GatedAttention(nn.Module):
    """`a = softmax_k(w . (tanh(V F_k) * sigmoid(U F_k)))` (Ilse 2018, Eq. 9): features `(N, C, h, w)` -> `(N, h, w)`.

    It sums to 1 in every image.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.content = nn.Conv2d(channels, hidden, kernel_size=1)
        self.gate = nn.Conv2d(channels, hidden, kernel_size=1)
        self.weight = nn.Conv2d(hidden, 1, kernel_size=1)

    def forward(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Weigh the cells, of the `valid` ones alone where these are given."""
        hidden = torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features))
        logits: Tensor = self.weight(hidden).squeeze(1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if valid is not None:
            logits = logits.masked_fill(~valid, float("-inf"))
        return logits.flatten(1).softmax(dim=1).view_as(logits)


class AttentionMIL(GatedAttention, Pooling):
    """`logit = score of sum_k a_k F_k` with gated attention a over the regions (Ilse 2018).

    Attention sums to 1 and the scorer is linear, so the score of the weighted sum is the weighted sum of the scores:
    it is computed so. Equal attention everywhere (w = 0) is GAP.

    Args:
        channels: C of the features.
        hidden: length of the attention vectors; 128 in the source.
    """

    @checked
    def __init__(self, channels: Count, hidden: Count = 128) -> None:
        super().__init__(channels, hidden)

    def attention(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the attention `(N, h, w)`, which sums to 1 in every image."""
        return super().forward(features, valid)

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:  # type: ignore[override]  # a pooling's
        """Pool `(N, h, w)` into `(N,)`."""
        return (self.attention(features, valid) * score_map).sum(dim=(1, 2))


class MultiScaleMIL(Pooling):
    """Gated attention over the regions of each scale of a feature pyramid on its own, all scales scored together.

    For `backbone=pyramid`, whose features are those of its scales one after the other: a cell of a coarse scale fills
    several of the map, which share its attention, so that this is attention over the coarse cells themselves. Late
    fusion of the scales by one linear score [reading] of multi-scale MIL on mammograms (Mourão, Nascimento, Santiago
    and Silveira, MICCAI 2025).

    Args:
        channels: C of the features, of all scales.
        scales: how many the features hold.
        hidden: length of the attention vectors.

    Raises:
        LemlightError: the channels are not those of so many scales.
    """

    @checked
    def __init__(self, channels: Count, scales: Count = 3, hidden: Count = 128) -> None:
        super().__init__()
        if channels % scales:
            raise LemlightError(
                f"pooling.scales={scales}: the backbone has {channels} channels, which are not so many equal parts; "
                "use backbone=pyramid, with as many scales"
            )
        self.attentions = nn.ModuleList(GatedAttention(channels // scales, hidden) for _ in range(scales))

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool features `(N, C, h, w)` into `(N,)`."""
        parts = features.chunk(len(self.attentions), dim=1)
        means = [
            torch.einsum("nhw,nchw->nc", (weights := attention(part, valid)), part.to(weights.dtype))
            for attention, part in zip(self.attentions, parts, strict=True)
        ]
        return scorer.score_vectors(torch.cat(means, dim=1).unsqueeze(2)).squeeze(1)


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

    ramps = True

    @checked
    def __init__(
        self,
        aggregate: Literal["mean", "sum"] = "mean",
        ties: Ties = "strict",
        threshold: NotNegative = 1.0,
        penalty_factor: NotNegative = 3.0,
        norm: Norm = "l1",
    ) -> None:
        super().__init__()
        self.aggregate, self.ties = aggregate, ties
        self.threshold, self.penalty_factor, self.norm = threshold, penalty_factor, norm

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer, valid: Tensor | None = None) -> Tensor:
        """Pool `(N, h, w)` into `(N,)`."""
        maxima, minima = local_extrema(score_map, self.ties, valid)
        if self.aggregate == "mean":
            logit = masked_mean(score_map, maxima) + masked_mean(score_map, minima)
        else:
            logit = (score_map * maxima).sum(dim=(1, 2)) + (score_map * minima).sum(dim=(1, 2))
        gap = valid_only(score_map, valid).mean(dim=(1, 2))
        return torch.where((maxima | minima).flatten(1).any(dim=1), logit, gap)

    def regularizer(self, score_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """Sparse loss (Eq. 6) of the map."""
        extrema = local_extrema(score_map, self.ties, valid)
        return sparse_loss(score_map, extrema, self.threshold, self.penalty_factor, self.norm, valid)

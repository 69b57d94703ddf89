"""Local extremum mapping: where a score map has extrema, and the sparse loss that keeps them few.

Zhu, Zhang, Wang, Wang, Wang, Qian, Bioengineering 2025, 12(4), 325, Eq. 3-6.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Ties = Literal["strict", "all"]
Norm = Literal["l1", "l2"]
ROUNDING = 1e-4  # of a map's spread; float32 maps of one network differ by some 1e-6 of it from machine to machine


class Extrema(NamedTuple):
    """Cells `(N, h, w)` bool where a score map has a maximum or a minimum; constants in the backward pass."""

    maxima: Tensor
    minima: Tensor


def local_extrema(score_map: Tensor, ties: Ties = "strict", valid: Tensor | None = None) -> Extrema:
    """Find the extrema of a score map `(N, h, w)` in 3x3 windows clipped at the border (Eq. 3-4).

    Extrema are decided on in float32 at least, nothing is padded in.

    Args:
        score_map: raw scores (logits), any floating type.
        ties: "strict" [reading]: an extremum exceeds each of its neighbours by more than rounding (`ROUNDING` of the
            map's spread), so flat neighbourhoods, as in air, and plateaus have none, and neither has a map of one cell.
            "all": the literal equations, every cell that equals its window's maximum or minimum, so that a flat map is
            all maxima and all minima.
        valid: cells `(N, h, w)` that count; None: all. The others are no extrema and nobody's neighbours.
    """
    scores = score_map.detach()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).unsqueeze(1)
    both = torch.cat([scores, -scores], dim=1)  # a minimum is a maximum of the negated map
    if valid is not None:
        both = both.masked_fill(~valid.unsqueeze(1), float("-inf"))
    if ties == "all":
        found = both == functional.max_pool2d(both, kernel_size=3, stride=1, padding=1)
    else:
        spread = both.amax(dim=(2, 3), keepdim=True).sum(dim=1, keepdim=True)  # highest - lowest
        neighbour = _highest_neighbour(both)
        # without neighbours nothing stands out
        found = (both > neighbour + ROUNDING * spread) & (neighbour > float("-inf"))
    if valid is not None:
        found = found & valid.unsqueeze(1)
    return Extrema(found[:, 0], found[:, 1])


def _highest_neighbour(maps: Tensor) -> Tensor:
    """Highest of the up to 8 neighbours of every cell, the cell itself left out: `(N, C, h, w)`, same shape."""
    padded = functional.pad(maps, (1, 1, 1, 1), value=float("-inf"))
    left, centre, right = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    sides = torch.maximum(left, right)
    rows = torch.maximum(sides, centre)
    above_below = torch.maximum(rows[..., :-2, :], rows[..., 2:, :])
    return torch.maximum(above_below, sides[..., 1:-1, :])


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` `(N, h, w)` over the cells of `mask`, per image `(N,)`; 0 where the mask is empty."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


def valid_only(values: Tensor, valid: Tensor | None) -> Tensor:
    """Make the mean of `values` `(N, h, w)` over all cells that over the valid ones: the others 0, these scaled up.

    Where all are valid, or None says so, these are the values themselves.
    """
    if valid is None:
        return values
    scale = valid[0].numel() / valid.sum(dim=(1, 2), keepdim=True)
    return torch.where(valid, values * scale.to(values.dtype), 0)


def sparse_loss(
    score_map: Tensor,
    extrema: Extrema,
    threshold: float = 1.0,
    penalty_factor: float = 3.0,
    norm: Norm = "l1",
    valid: Tensor | None = None,
) -> Tensor:
    """Sparse loss (Eq. 6), a scalar: the mean over images of `L_elim + penalty_factor * L_pen`.

    `L_elim = mean over maxima of relu(-S) + mean over minima of relu(S)`: a malignant cue with a negative score and a
    benign one with a positive score are wrong [reading]. `L_pen`: norm of `relu(|S| - threshold)` over the cells that
    are no extremum [reading], divided by the number of those cells (l1: their mean, l2: their root mean square), so
    that it does not depend on the size of the map [reading]. Sets without cells contribute 0.

    Args:
        score_map: raw scores `(N, h, w)`.
        extrema: of this map, constants in the backward pass.
        threshold: scores within +-threshold are free [open], logit units.
        penalty_factor: weight of the penalty loss, 3 in the paper [reading].
        norm: of the penalty [open].
        valid: cells `(N, h, w)` that count; None: all.
    """
    wrong_maxima = masked_mean(functional.relu(-score_map), extrema.maxima)
    wrong_minima = masked_mean(functional.relu(score_map), extrema.minima)
    others = ~(extrema.maxima | extrema.minima)
    if valid is not None:
        others = others & valid
    excess = functional.relu(score_map.abs() - threshold) * others
    order = 1 if norm == "l1" else 2
    # vector_norm has the gradient 0 at 0, where a square root has none
    penalty: Tensor = torch.linalg.vector_norm(excess, ord=order, dim=(1, 2))
    penalty = penalty / others.sum(dim=(1, 2)).clamp(min=1).to(penalty.dtype) ** (1 / order)
    return (wrong_maxima + wrong_minima + penalty_factor * penalty).mean()

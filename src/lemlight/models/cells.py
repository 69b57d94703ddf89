"""Which cells of score maps count, and the score maps of several views as one.

A pooling sees the cells that count by its argument `valid`. Of these are left out what lies in the air, and what
separates the views of a bag, whose maps are laid side by side: to a pooling a breast is one image with a wide map.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

BREAST = 0.5  # a cell counts if the breast covers this fraction of it [reading]


def breast_cells(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """The cells `(N, h, w)` bool of maps of `shape` (h, w) that the breast covers half of; air is 0 in an image.

    The map is taken to cover the whole image `(N, 1, H, W)`, in [0, 1] as prepared. Of an image whose breast covers no
    cell all cells count: to leave all of them out would leave nothing to be pooled.
    """
    down, across = (_overlaps(side, cells) for side, cells in zip(images.shape[2:], shape, strict=True))
    covered = down.to(images.device) @ (images[:, 0] > 0).float() @ across.to(images.device).T
    inside = covered > BREAST - 1e-5  # rounding of the sum
    return inside | ~inside.flatten(1).any(dim=1).view(-1, 1, 1)


def _overlaps(pixels: int, cells: int) -> Tensor:
    """How much of each of the cells along a side each px covers: `(cells, pixels)`, sums to 1 in every cell."""
    size = pixels / cells
    pixel, cell = torch.arange(pixels).double(), torch.arange(cells).double().unsqueeze(1)
    ends = torch.minimum(pixel + 1, (cell + 1) * size) - torch.maximum(pixel, cell * size)
    return (ends.clamp(min=0) / size).float()


def takes(name: str, function: Callable[..., object]) -> bool:
    """Whether a pooling's `forward` or `regularizer` takes the cells that count, `valid`, or the `images`."""
    return name in inspect.signature(function).parameters


def lists_of_cells(score_map: Tensor, features: Tensor, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The cells that count of each image as a map of one row: scores `(1, 1, K)`, features `(1, C, 1, K)`.

    For a pooling that does not take `valid`; it must look at cells without their neighbours.
    """
    return [
        (scores[inside].view(1, 1, -1), vectors[:, inside].unsqueeze(1).unsqueeze(0))
        for scores, vectors, inside in zip(score_map, features, valid, strict=True)
    ]


def bags_by_size(bag: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each number V of views: the B bags that have so many `(B,)`, and the places of their views `(B, V)`.

    Args:
        bag: `(N,)`, the number of the bag that each view belongs to, from 0 on without a gap.
    """
    sizes, places = torch.bincount(bag), torch.argsort(bag, stable=True)
    starts = sizes.cumsum(0) - sizes
    bags = [((sizes == views).nonzero().squeeze(1), views) for views in sorted(set(sizes.tolist()))]
    return [(own, places[starts[own].unsqueeze(1) + torch.arange(views, device=bag.device)]) for own, views in bags]


def side_by_side(maps: Tensor, places: Tensor) -> Tensor:
    """Lay the maps `(N, ..., h, w)` of the views of bags `(B, V)` side by side, a column of 0 between two of them.

    Gives `(B, ..., h, V * (w + 1) - 1)`.
    """
    apart = functional.pad(maps[places], (0, 1))
    return apart.movedim(1, -2).flatten(-2)[..., :-1]

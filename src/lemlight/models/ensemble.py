"""Several networks, and moved copies of an image, as one network: the mean of their logits."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemlight.models.classifier import MammogramClassifier, Scores

Augmented = Literal["flip", "shift"]


class Move(NamedTuple):
    """Where a copy of an image lies: shifted down and to the right by px, then mirrored or not."""

    down: int = 0
    right: int = 0
    mirrored: bool = False

    def there(self, images: Tensor) -> Tensor:
        """Move images `(..., H, W)`; what comes in from outside is 0, air."""
        shifted = functional.pad(images, (self.right, -self.right, self.down, -self.down))
        return shifted.flip(-1) if self.mirrored else shifted

    def back(self, maps: Tensor) -> Tensor:
        """Bring maps `(..., H, W)` of moved images to where the images were; what was pushed out is 0."""
        upright = maps.flip(-1) if self.mirrored else maps
        return functional.pad(upright, (-self.right, self.right, -self.down, self.down))


def moves_of(names: Sequence[Augmented], output_stride: int) -> list[Move]:
    """The copies of an image for test-time augmentation, the unmoved one first: each is a pass of the network.

    "shift" adds four, by a quarter of a cell of the score map in each direction; "flip" the mirror image of each.
    """
    step = max(1, output_stride // 4)
    shifts = [(0, 0), *([(step, 0), (-step, 0), (0, step), (0, -step)] if "shift" in names else [])]
    return [Move(*shift, mirrored) for mirrored in ([False, True] if "flip" in names else [False]) for shift in shifts]


def enlarged(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Maps `(N, h, w)` at the size `shape` (H, W) of the image, bilinear (align_corners=False)."""
    if maps.shape[1:] == shape:
        return maps
    return functional.interpolate(maps.unsqueeze(1), size=shape, mode="bilinear", align_corners=False)[:, 0]


class Ensemble(MammogramClassifier):
    """Networks as one, each looking at each move of an image: the mean of their (calibrated) logits.

    Its backbone hands the images through, so that "features" are images here. Its score map is the mean of those of the
    networks of the unmoved image, in the cells of the first one.
    """

    def __init__(self, networks: Sequence[MammogramClassifier], moves: Sequence[Move] = (Move(),)) -> None:
        super().__init__(nn.Identity(), networks[0].scorer, networks[0].pooling)
        self.networks = nn.ModuleList(networks)
        self.moves = list(moves)

    @property
    def members(self) -> list[MammogramClassifier]:
        """The networks."""
        return [network for network in self.networks if isinstance(network, MammogramClassifier)]

    @property
    def output_stride(self) -> int:
        """Of the first network."""
        return self.members[0].output_stride

    def judge(
        self,
        features: Tensor,
        valid: Tensor | None = None,
        bag: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Scores:
        """Compute the means for images `(N, 1, H, W)`, or for bags of them."""
        found = [[network(move.there(features), bag) for move in self.moves] for network in self.members]
        every = [scores for of_network in found for scores in of_network]
        maps = [of_network[0].score_map for of_network in found]
        alike = [enlarged(one, (maps[0].shape[1], maps[0].shape[2])) for one in maps]
        return Scores(
            logit=torch.stack([scores.logit for scores in every]).mean(dim=0),
            gap_logit=torch.stack([scores.gap_logit for scores in every]).mean(dim=0),
            score_map=torch.stack(alike).mean(dim=0),
            regularizer=every[0].regularizer,
            valid=every[0].valid,
        )

"""GMIC: a global network that says where to look, a local one that looks closely there, and both together.

Shen, Wu, Phang, Park, Liu, Tyagi, Heacock, Kim, Moy, Cho, Geras, "An interpretable classifier for high-resolution
breast cancer screening images utilizing weakly supervised localization", Medical Image Analysis 68 (2021) 101908, arXiv
2002.07613. Steps and values were checked against the authors' published code (AGPL), of which nothing was taken; the
typeset paper was not at hand, so that no equation is named by its number.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemlight.arguments import Count, Fraction, InnerFraction, checked
from lemlight.errors import LemlightError
from lemlight.models.backbones import Backbone, efficientnet_lite0, torchvision_cnn
from lemlight.models.lem import valid_only
from lemlight.models.pooling import GatedAttention, Pooling, Scorer, mean_of_top

SMALLEST = 32  # px of a patch: one cell of the local network
EDGE = 1e-6  # probabilities stay this far from 0 and 1, whose logits are infinite


class GMIC(Pooling):
    """Top-t pooled saliency, patches where it is highest, their attention-weighed features, and a fusion of both.

    The backbone is the global network and the sigmoid of the score map its saliency map A, for two classes one map. The
    logit is that of the fusion, which is predicted with; those of the global and the local module are trained beside it
    with the same loss, as in the source.

    [reading] What of it is ours: patches are cut from the prepared image; the backbone is any, where the source has a
    narrow ResNet-22; the L1 norm of A is divided by its cells, so that `loss.beta` does not depend on their number: it
    is the source's weight on the sum times the number of cells; attention and the local classifier have biases.

    Args:
        channels: C of the features.
        top: t, the fraction of the cells whose mean saliency is the global module's probability; 1 % to 20 %
            in the source.
        patches: K, how many are looked at.
        patch: side of a patch, fraction of the image's shorter side; 256 of 1920 px in the source. At least 32 px.
        hidden: length of the attention vectors, 128 in the source.
        local: the local network, one of torchvision or efficientnet_lite0; ResNet-18 in the source.
        local_weights: its first weights; those of ImageNet in the source.
    """

    @checked
    def __init__(
        self,
        channels: Count,
        top: Fraction = 0.02,
        patches: Count = 6,
        patch: InnerFraction = 0.133,
        hidden: Count = 128,
        local: str = "resnet18",
        local_weights: Literal["imagenet", "bundled", "none"] = "none",
    ) -> None:
        super().__init__()
        self.top, self.patches, self.patch = top, patches, patch
        self.local = local_network(local, local_weights)
        self.attention = GatedAttention(self.local.out_channels, hidden)
        self.local_score = nn.Linear(self.local.out_channels, 1)
        self.fusion = nn.Linear(channels + self.local.out_channels, 1)

    def forward(  # type: ignore[override]  # several logits, see `lemlight.models.pooling`
        self,
        score_map: Tensor,
        features: Tensor,
        scorer: Scorer,
        valid: Tensor | None = None,
        images: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the logits `(N,)` of fusion, global and local module for score maps `(N, h, w)` of `images`."""
        if images is None:
            raise LemlightError("pooling=gmic looks at the images, and has features alone here")
        saliency = score_map.sigmoid()
        cells = None if valid is None else valid.flatten(1)
        whole = torch.logit(mean_of_top(saliency.flatten(1), self.top, valid=cells), EDGE)
        seen = saliency.detach() if valid is None else saliency.detach() * valid
        patches = cut(images, *self._places(seen, images))
        count, number = patches.shape[:2]
        vectors = self.local(patches.flatten(0, 1)).mean(dim=(2, 3)).view(count, number, -1)
        weights = self.attention(vectors.transpose(1, 2).unsqueeze(3)).squeeze(2)  # (N, K)
        bag = torch.einsum("nk,nkl->nl", weights.to(vectors.dtype), vectors)
        highest = features if valid is None else features.masked_fill(~valid.unsqueeze(1), float("-inf"))
        together = self.fusion(torch.cat([highest.amax(dim=(2, 3)), bag], dim=1)).squeeze(1)
        return together, whole, self.local_score(bag).squeeze(1)

    def regularizer(self, score_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The L1 norm of the saliency map, divided by its cells: in [0, 1]."""
        return valid_only(score_map.sigmoid(), valid).mean()

    def _places(self, saliency: Tensor, images: Tensor) -> tuple[Tensor, int]:
        """The upper left corners `(N, K, 2)` of the patches (y, x), px, and their side."""
        size = images.shape[2:]
        side = min(max(SMALLEST, round(self.patch * min(size))), *size)
        cell = [length / cells for length, cells in zip(size, saliency.shape[1:], strict=True)]
        window = [min(cells, max(1, round(side / px))) for cells, px in zip(saliency.shape[1:], cell, strict=True)]
        corners = best_windows(saliency, (window[0], window[1]), self.patches)
        px = saliency.new_tensor(cell)
        middle = (corners + saliency.new_tensor(window) / 2) * px
        last = torch.tensor([length - side for length in size], device=saliency.device)
        return torch.minimum((middle - side / 2).round().long().clamp(min=0), last), side


def local_network(name: str, weights: Any) -> Backbone:
    """Build the network of the patches; LemlightError for weights that it does not have."""
    if name == "efficientnet_lite0":
        return efficientnet_lite0(weights=weights)
    return torchvision_cnn(name, weights=weights)


def best_windows(saliency: Tensor, window: tuple[int, int], number: int) -> Tensor:
    """Find one after the other the windows of the highest sum in maps `(N, h, w)` (the source's `retrieve_roi`).

    Each map is brought to [0, 1] first, and a window that was taken is 0 from then on.

    Returns:
        The upper left cells (y, x) of the windows, `(N, number, 2)`.
    """
    low, high = saliency.amin(dim=(1, 2), keepdim=True), saliency.amax(dim=(1, 2), keepdim=True)
    left = (saliency - low) / (high - low).clamp(min=torch.finfo(saliency.dtype).tiny)
    rows, columns = (torch.arange(length, device=saliency.device) for length in saliency.shape[1:])
    corners = []
    for _ in range(number):
        sums = functional.avg_pool2d(left.unsqueeze(1), window, stride=1).squeeze(1)
        best = sums.flatten(1).argmax(dim=1)
        top, side = best // sums.shape[2], best % sums.shape[2]
        down = (rows >= top[:, None]) & (rows < top[:, None] + window[0])
        across = (columns >= side[:, None]) & (columns < side[:, None] + window[1])
        left = left.masked_fill(down[:, :, None] & across[:, None, :], 0)
        corners.append(torch.stack([top, side], dim=1))
    return torch.stack(corners, dim=1)


def cut(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cut square patches `(N, K, 1, side, side)` from images `(N, 1, H, W)` at `corners` `(N, K, 2)` (y, x), px."""
    steps = torch.arange(side, device=images.device)
    rows, columns = (corners[..., axis, None] + steps for axis in (0, 1))
    image = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    return images[image, 0, rows[..., :, None], columns[..., None, :]].unsqueeze(2)

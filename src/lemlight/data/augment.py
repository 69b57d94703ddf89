"""Augmentation of prepared mammograms, decided by one seed per image; air stays 0, and nothing else becomes it.

An augmentation is a callable `(image, seed) -> image` of the store's uint16 (H, W), run by the processes that read; the
image it gets is read-only. One with a method `on_device(images, seeds)` goes on with the whole batch where the network
is: uint16 (N, 1, H, W) and int64 (N,) give float32 in [0, 1].
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Annotated

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from lemlight.arguments import Probability, checked

StoredImage = NDArray[np.uint16]
Augmentation = Callable[[StoredImage, int], StoredImage]
FULL = 65535  # of the store: 1.0
GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # of SplitMix64, as int64


class NoAugmentation:
    """Images as prepared."""

    def __call__(self, image: StoredImage, seed: int) -> StoredImage:
        """Return the image."""
        return image


class StandardAugmentation:
    """Flip and rotation, then, inside the moved breast, brightness, contrast and Gaussian noise.

    Args:
        flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip.
        rotate: probability of a rotation by up to `degrees` either way about the centre of the image.
        degrees: see `rotate`.
        brightness_contrast: probability of a shift by up to `brightness` (of the full range) and a factor of
            1 +- `contrast`. The paper's saturation does nothing to a grey image.
        brightness: see `brightness_contrast`.
        contrast: see `brightness_contrast`.
        noise: probability of Gaussian noise with a standard deviation of up to `noise_std` (of the full range).
        noise_std: see `noise`.
    """

    @checked
    def __init__(
        self,
        flip: Probability,
        vertical_flip: Probability,
        rotate: Probability,
        degrees: Annotated[float, Field(ge=0, le=180)],
        brightness_contrast: Probability,
        brightness: Probability,
        contrast: Probability,
        noise: Probability,
        noise_std: Probability,
    ) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version at import
        import albumentations as A

        rotation = A.Rotate((-degrees, degrees), border_mode=cv2.BORDER_CONSTANT, fill=0, p=rotate)
        self.compose = A.Compose([A.HorizontalFlip(p=flip), A.VerticalFlip(p=vertical_flip), rotation])
        self.brightness_contrast, self.brightness, self.contrast = brightness_contrast, brightness, contrast
        self.noise, self.noise_std = noise, noise_std

    def __call__(self, image: StoredImage, seed: int) -> StoredImage:
        """Move a copy of the image; its zeros, the air, move with it."""
        self.compose.set_random_seed(seed)
        return np.asarray(self.compose(image=image)["image"], dtype=np.uint16)

    def on_device(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Shade moved images: uint16 (N, 1, H, W) with their seeds (N,) give float32 in [0, 1], on any device alike."""
        return self.shade(images, seeds, at_once=images.device.type != "cpu")

    def shade(self, images: Tensor, seeds: Tensor, at_once: bool) -> Tensor:
        """Do as `on_device`; one after the other they stay in a processor's cache, and most need no noise."""
        drawn = uniform(seeds, 5).unbind(1)
        shaded, noisy = drawn[0] < self.brightness_contrast, drawn[3] < self.noise
        gain = torch.where(shaded, 1 + self.contrast * (2 * drawn[1] - 1), 1) / FULL
        shift = torch.where(shaded, self.brightness * (2 * drawn[2] - 1), 0)
        std = torch.where(noisy, self.noise_std * drawn[4], 0)
        out = torch.empty(images.shape, device=images.device)
        if at_once:
            return _shade(images, gain, shift, std, seeds, out)
        for n in range(len(images)):
            one = slice(n, n + 1)
            _shade(images[one], gain[one], shift[one], std[one] if noisy[n] else None, seeds[one], out[one])
        return out


def _shade(images: Tensor, gain: Tensor, shift: Tensor, std: Tensor | None, seeds: Tensor, out: Tensor) -> Tensor:
    """Write `images * gain + shift + std * noise` to `out`: in [1 / 65535, 1] inside the breast, 0 where it is not."""
    gain, shift = gain.view(-1, 1, 1, 1), shift.view(-1, 1, 1, 1)
    stored = images.float()
    torch.mul(stored, gain, out=out).add_(shift)
    if std is not None:
        out.addcmul_(gaussian(seeds, images[0].numel()).view(images.shape), std.view(-1, 1, 1, 1))
    return torch.minimum(out.clamp_(1 / FULL, 1), stored, out=out)  # a stored pixel is 0, or 1 and more


def uniform(seeds: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1), float32 (N, count), from seeds int64 (N,); the same bits on every device."""
    return (_stream(seeds, count) >> 40).bitwise_and_(2**24 - 1).float() / 2**24


def gaussian(seeds: Tensor, count: int) -> Tensor:
    """Standard normal noise, float32 (N, count), from seeds int64 (N,); the same bits on every device.

    64 random bits make four numbers, each the quantile of one of 65536 equal intervals.
    """
    words = _stream(~seeds, -(-count // 4)).view(torch.int16).int().add_(2**15)
    return _quantiles(seeds.device).index_select(0, words.flatten()).view(words.shape)[:, :count]


def _stream(seeds: Tensor, count: int) -> Tensor:
    """SplitMix64 (Steele et al., OOPSLA 2014), counters in place of its state: int64 (N, count)."""
    steps = torch.arange(1, count + 1, device=seeds.device) * GOLDEN
    return _mixed(_mixed(seeds.unsqueeze(1) * GOLDEN) + steps)


def _mixed(bits: Tensor) -> Tensor:
    """Mix the bits of every number, in place; torch's shift carries the sign along, which does not belong there."""
    for shift, factor in ((30, FIRST), (27, SECOND), (31, 1)):
        bits ^= (bits >> shift).bitwise_and_(2 ** (64 - shift) - 1)
        bits *= factor
    return bits


@cache
def _quantiles(device: torch.device) -> Tensor:
    middles = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    quantiles: Tensor = torch.special.ndtri(middles)
    return quantiles.to(device, torch.float32)

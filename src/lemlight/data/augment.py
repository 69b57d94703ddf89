"""Augmentation of prepared mammograms with albumentations: decided by one seed per image, air stays 0.

An augmentation is a callable `(image, seed) -> image` of float32 (H, W) in [0, 1]; the seed alone decides the outcome.
"""

import os
from collections.abc import Callable
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lemlight.arguments import Probability, checked

FloatImage = NDArray[np.float32]
Augmentation = Callable[[FloatImage, int], FloatImage]


class NoAugmentation:
    """Images as prepared."""

    def __call__(self, image: FloatImage, seed: int) -> FloatImage:
        """Return the image."""
        return image


class StandardAugmentation:
    """Flip, rotation, brightness and contrast, Gaussian noise; outside the moved breast the image is set to 0.

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
        limits = {"brightness_limit": (-brightness, brightness), "contrast_limit": (-contrast, contrast)}
        steps = [
            A.HorizontalFlip(p=flip),
            A.VerticalFlip(p=vertical_flip),
            rotation,
            A.RandomBrightnessContrast(**limits, p=brightness_contrast),
            A.GaussNoise(std_range=(0, noise_std), p=noise),
        ]
        self.compose = A.Compose(steps)

    def __call__(self, image: FloatImage, seed: int) -> FloatImage:
        """Augment a copy of the image; air (exactly 0) stays exactly 0."""
        self.compose.set_random_seed(seed)
        moved = self.compose(image=image, mask=(image > 0).astype(np.uint8))  # the breast moves with the image
        # brightness and noise act on the air as well: only what lies inside the breast may show
        inside = np.multiply(moved["image"], moved["mask"], dtype=np.float32)
        return np.asarray(np.clip(inside, 0, 1, out=inside), dtype=np.float32)

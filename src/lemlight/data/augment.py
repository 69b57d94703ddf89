"""Augmentation of prepared mammograms with albumentations: decided by one seed per image, air stays 0."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lemlight.data.table import bullet_error

FloatImage = NDArray[np.float32]
Mask = NDArray[np.uint8]
Augmentation = Callable[[FloatImage, Mask, int], tuple[FloatImage, Mask]]


@dataclass(frozen=True)
class AugmentSettings:
    """What may happen to an image: probabilities of the steps, and how far each goes.

    Attributes:
        flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip.
        rotate: probability of a rotation by up to `degrees` either way about the centre of the image.
        brightness_contrast: probability of a shift by up to `brightness` (of the full range) and a factor of
            1 +- `contrast`. The paper's saturation does nothing to a grey image.
        noise: probability of Gaussian noise with a standard deviation of up to `noise_std` (of the full range).
    """

    flip: float = 0.5
    vertical_flip: float = 0.0
    rotate: float = 0.5
    degrees: float = 30.0
    brightness_contrast: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.2
    noise: float = 0.5
    noise_std: float = 0.02

    def __post_init__(self) -> None:
        limits = {name: 180.0 if name == "degrees" else 1.0 for name in asdict(self)}
        problems = [
            f"augmentation.{name} must lie in [0, {limits[name]:g}], got {value}"
            for name, value in asdict(self).items()
            if not 0 <= value <= limits[name]
        ]
        if problems:
            raise bullet_error("the augmentation cannot be built", problems)


class _Pipeline:
    """Moves image, lesion mask and breast mask (image > 0) alike; outside the moved breast the image is set to 0."""

    def __init__(self, settings: AugmentSettings) -> None:
        self.compose = _compose(settings)

    def __call__(self, image: FloatImage, mask: Mask, seed: int) -> tuple[FloatImage, Mask]:
        self.compose.set_random_seed(seed)
        moved = self.compose(image=image, mask=mask, breast=(image > 0).astype(np.uint8))
        # brightness and noise act on the air as well: only what lies inside the breast may show
        inside = np.multiply(moved["image"], moved["breast"], dtype=np.float32)
        return np.clip(inside, 0, 1, out=inside), moved["mask"]


def _compose(settings: AugmentSettings) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version at import
    import albumentations as A

    degrees, brightness, contrast = settings.degrees, settings.brightness, settings.contrast
    steps = [
        A.HorizontalFlip(p=settings.flip),
        A.VerticalFlip(p=settings.vertical_flip),
        A.Rotate(
            limit=(-degrees, degrees),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            border_mode=cv2.BORDER_CONSTANT,
            fill=0,
            fill_mask=0,
            p=settings.rotate,
        ),
        A.RandomBrightnessContrast(
            brightness_limit=(-brightness, brightness),
            contrast_limit=(-contrast, contrast),
            p=settings.brightness_contrast,
        ),
        A.GaussNoise(std_range=(0, settings.noise_std), p=settings.noise),
    ]
    return A.Compose(steps, additional_targets={"breast": "mask"})


def _identity(image: FloatImage, mask: Mask, seed: int) -> tuple[FloatImage, Mask]:
    return image, mask


def build_augmentation(settings: AugmentSettings | None) -> Augmentation:
    """Build the function (image float32 (H, W) in [0, 1], mask uint8 (H, W), seed) -> the same two, augmented.

    The seed alone decides the outcome; air (exactly 0) stays exactly 0; None gives the identity.
    """
    return _identity if settings is None else _Pipeline(settings)

"""Where the breast is on a mammogram, on which side the chest wall lies, and the prepared image cut out of it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lemlight.data.geometry import BreastGeometry
from lemlight.errors import ImageError

WORKING_SIDE = 384  # px of the longest side on which the breast is looked for: 0.6 to 0.8 mm per px
LEAST_SHARE = 0.02  # of the image; anything smaller is a label or dirt


def breast_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The breast in a mammogram (H, W) of values in [0, 1] as bool (H, W): bright on dark, without labels and border.

    Raises ImageError where no breast is found: flat images, noise, and regions below 2 % of the image.
    """
    small = _working_copy(pixels)
    region = _region(small)
    height, width = pixels.shape
    smooth = cv2.resize(region.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth >= 0.5, dtype=np.bool_)


def chest_wall_on_right(mask: NDArray[np.bool_]) -> bool:
    """Whether the breast in the mask (H, W) hangs from the right border: where it is tallest, else where it is more."""
    strip = max(1, round(0.03 * mask.shape[1]))
    columns = mask.sum(axis=0)
    inside = np.flatnonzero(columns)
    if not inside.size:
        return False
    left, right = columns[inside[0] : inside[0] + strip].sum(), columns[inside[-1] - strip + 1 : inside[-1] + 1].sum()
    if left == right:
        half = mask.shape[1] // 2
        return bool(columns[-half:].sum() > columns[:half].sum())
    return bool(right > left)


def find_geometry(
    pixels: NDArray[np.float32],
    prepared_shape: tuple[int, int],
    crop: bool = True,
    flip: bool = True,
    margin: float = 0.02,
) -> tuple[BreastGeometry, NDArray[np.bool_]]:
    """The way from an original (H, W) in [0, 1] to `prepared_shape`, and its breast mask, bool (H, W).

    `flip` brings the chest wall to the left; `crop` keeps the breast's box and a `margin` of the image's longest side
    around it. The aspect is kept. Raises ImageError where no breast is found.
    """
    mask = breast_mask(pixels)
    height, width = mask.shape
    flipped = flip and chest_wall_on_right(mask)
    box = (0, 0, height, width)
    if crop:
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        x = width - x - w if flipped else x
        edge = round(margin * max(height, width))
        box = (max(0, y - edge), max(0, x - edge), min(height, y + h + edge), min(width, x + w + edge))
    return BreastGeometry.fit((height, width), flipped, box, prepared_shape), mask


def prepare_pixels(
    pixels: NDArray[np.float32], geometry: BreastGeometry, mask: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """The prepared image, uint16: 0 outside the breast, round(65535 * value) and at least 1 inside.

    A prepared px is inside where the breast mask (H, W) covers at least half of it.
    """
    values = np.clip(np.rint(geometry.image_to_prepared(pixels) * 65535), 1, 65535)
    inside = geometry.image_to_prepared(mask) >= 0.5
    return np.where(inside, values, 0).astype(np.uint16)


def _working_copy(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with its longest side at most WORKING_SIDE px, blurred a little."""
    if pixels.ndim != 2 or min(pixels.shape) < 16:
        raise ImageError(f"no breast found: an image of shape {pixels.shape} is too small or has no two axes")
    if not np.isfinite(pixels).all():
        raise ImageError("no breast found: the image holds values that are not finite")
    height, width = pixels.shape
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(np.ascontiguousarray(pixels, dtype=np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 1.5), dtype=np.float32)


def _region(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest bright region of the working copy, labels cut off, holes filled."""
    low, high = np.percentile(small, (0.5, 99.5))
    if high - low < 0.01:
        raise ImageError("no breast found: the image is flat (no contrast between breast and air)")
    # the root spreads the dim skin line against the air; the clip keeps labels from setting the threshold
    levels = np.rint(255 * np.sqrt(np.clip((small - low) / (high - low), 0, 1))).astype(np.uint8)
    _, bright = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        raise ImageError("no breast found: nothing bright is larger than a label")
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < LEAST_SHARE * labels.size:
        raise ImageError("no breast found: the largest bright region covers less than 2 % of the image")
    contours, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(opened), contours, -1, 1, thickness=cv2.FILLED)
    return np.asarray(filled > 0, dtype=np.bool_)

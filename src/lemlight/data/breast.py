"""Where the breast is on a mammogram, on which side the chest wall lies, and the prepared image cut out of it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lemlight.data.geometry import BreastGeometry
from lemlight.data.raster import Image
from lemlight.errors import ImageError

WORKING_SIDE = 384  # px of the longest side on which the breast is looked for: 0.6 to 0.8 mm per px
LEAST_FRACTION = 0.02  # of the image; anything smaller is a label or dirt
LEAST_CONTRAST = 0.01  # of the full range, between air and breast
AIR_LEVEL = 0.1  # root of the fraction of the contrast: 1 % above the darkest is air


def breast_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The breast in a mammogram (H, W) of values in [0, 1] as bool (H, W): bright on dark, without labels and border.

    Raises ImageError where no breast is found: flat images, noise, and regions below 2 % of the image.
    """
    region = _region(_working_copy(pixels))
    height, width = pixels.shape
    smooth = cv2.resize(region.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth > 127, dtype=np.bool_)


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


def prepare_image(
    image: Image, prepared_shape: tuple[int, int], crop: bool, flip: bool
) -> tuple[BreastGeometry, NDArray[np.uint16], list[str]]:
    """Find the breast of an image, turned where its header says so, and prepare it, as `prepare_pixels` does.

    With notes on the outline that was found.
    """
    upright = np.rot90(image.pixels, image.turns)
    geometry, mask = find_geometry(upright, prepared_shape, crop, flip)
    return geometry.turned(image.turns), prepare_pixels(upright, geometry, mask), odd_outline(mask)


def odd_outline(mask: NDArray[np.bool_]) -> list[str]:
    """Say what is odd about a breast mask (H, W): no air in sight, or the chest wall at the top or the bottom.

    The chest wall is the side of the mask's box that the breast lies along. Of the 322 films of mini-MIAS none is noted
    as they are, and 9 of 10 when they are turned by 90 degrees.
    """
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    box = mask[y : y + h, x : x + w]
    if box.all():
        return ["the breast that was found is a whole rectangle: no air is in sight"]
    rows, columns = (max(1, round(0.03 * side)) for side in box.shape)
    across = max(box[:rows].any(axis=0).mean(), box[-rows:].any(axis=0).mean())
    upright = max(box[:, :columns].any(axis=1).mean(), box[:, -columns:].any(axis=1).mean())
    if across < 0.9 or upright > across - 0.15:
        return []
    return ["the chest wall seems to lie at the top or the bottom, and no PatientOrientation says so: turn the image"]


def _working_copy(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with its longest side at most WORKING_SIDE px, blurred a little, as levels in [0, 1]."""
    if pixels.ndim != 2 or min(pixels.shape) < 16:
        raise ImageError(f"no breast found: an image of shape {pixels.shape} is too small or has no two axes")
    height, width = pixels.shape
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    sharp = cv2.resize(np.ascontiguousarray(pixels, dtype=np.float32), size, interpolation=cv2.INTER_AREA)
    if not np.isfinite(sharp).all():
        raise ImageError("no breast found: the image holds values that are not finite")
    small = cv2.GaussianBlur(sharp, (0, 0), 1.0)
    low, high = np.percentile(small, (0.5, 99.5))
    if high - low < LEAST_CONTRAST:
        raise ImageError("no breast found: the image is flat (no contrast between breast and air)")
    if small.var() < 0.3 * sharp.var():  # 0.08 for white noise, 0.9 and more for mammograms
        raise ImageError("no breast found: the image is noise")
    # the clip keeps labels from setting the scale, the root spreads the dim skin line against the air
    return np.asarray(np.sqrt(np.clip((small - low) / (high - low), 0, 1)), dtype=np.float32)


def _region(levels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest bright region of the working copy down to its skin line, labels cut off, holes filled."""
    if (levels < AIR_LEVEL).mean() < LEAST_FRACTION:
        return np.ones(levels.shape, dtype=np.bool_)  # no air in sight: a breast that fills the frame
    otsu, _ = cv2.threshold(np.rint(255 * levels).astype(np.uint8), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    inner = otsu / 255
    dark = levels[levels <= inner]
    spread = 1.4826 * np.median(np.abs(dark - np.median(dark)))
    # Otsu cuts the dim rim off, so the region grows from there down to just above the air
    outer = min(inner, max(0.4 * inner, float(np.median(dark) + 6 * spread)))
    border = _film_border(levels > inner)
    disc = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)), dtype=np.uint8)  # wider than letters
    core = _largest(_opened((levels > inner) & ~border, disc))
    grown = _opened((levels > outer) & ~border, disc)
    _, labels = cv2.connectedComponents(grown.astype(np.uint8), connectivity=4)
    region = grown & np.isin(labels, labels[core & grown])
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(levels.shape, dtype=np.uint8), contours, -1, 1, thickness=cv2.FILLED)
    return _without_leaks(filled > 0)


def _without_leaks(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region without the light that leaks in along the chest wall, narrow beside the breast, above and below it."""
    reach = round(0.2 * region.sum(axis=1).max()) | 1  # odd: an even element shifts what it opens
    breast = _largest(_opened(region, np.ones((1, reach), dtype=np.uint8)))
    # the breast itself ends in a narrow corner at the chest wall: that comes back
    grown = cv2.dilate(breast.astype(np.uint8), np.ones((2 * reach + 1, 1), dtype=np.uint8))
    return region & (grown > 0)


def _film_border(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bright lines along the sides of a film, out to where they end: bright over most of their length.

    A line counts only where the line further in is much darker; on the left and the right, where it shows nothing but
    air, since the chest wall is bright too and tissue beside it must not be lost.
    """
    border = np.zeros_like(bright)
    for turns in range(4):
        side, out = np.rot90(bright, turns), np.rot90(border, turns)  # views: writing to `out` writes to `border`
        depth = max(2, round(0.05 * side.shape[0]))
        fraction = side[: depth + 1].mean(axis=1)
        most = 0.45 if turns % 2 == 0 else 0.1
        lines = np.flatnonzero(fraction[:depth] > 0.7) if fraction[depth] < most else np.empty(0, dtype=np.intp)
        if lines.size:
            out[: lines[-1] + 3] = True  # 2 px more: the blur carried the line on
    return border


def _opened(region: NDArray[np.bool_], element: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The region without what the element does not fit into; outside the image there is nothing."""
    edge = max(element.shape)
    padded = cv2.copyMakeBorder(region.astype(np.uint8), edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, element)
    return np.asarray(opened[edge:-edge, edge:-edge] > 0, dtype=np.bool_)


def _largest(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    if count < 2:
        raise ImageError("no breast found: nothing bright is larger than a label")
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < LEAST_FRACTION * labels.size:
        raise ImageError("no breast found: the largest bright region covers less than 2 % of the image")
    return np.asarray(labels == largest, dtype=np.bool_)

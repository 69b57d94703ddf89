"""Whether decoded pixels look like a mammogram: air dark, a fair part of the range used. What does not is noted."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 128  # px of the longest side on which air is looked for
FLAT = 0.05  # of the contrast, between neighbours
LEAST_AIR, BRIGHTER = 0.03, 0.85  # of the image; of what is no air
USED = 0.27  # of the range: 14 of 16 bits are a quarter
POLARITY = "air is the brightest region: inverted (MONOCHROME1 taken for MONOCHROME2)?"
DEPTH = "uses {used} of {bits} bits (values up to {most} of {range}): too dark or without contrast?"


def odd_pixels(pixels: NDArray[np.float32], bits: int) -> list[str]:
    """Say what is odd about pixels (H, W) in [0, 1] that were `bits` deep: polarity and depth; nothing as a rule."""
    return [POLARITY] * air_is_bright(pixels) + list(filter(None, [depth_note(pixels, bits)]))


def depth_note(pixels: NDArray[np.float32], bits: int) -> str:
    """Say how many of the bits an image uses, where that is a small part of the range; "" where it is a fair one."""
    part = min(float(pixels.max()), 1 - float(pixels.min()))  # from black on, or of MONOCHROME1 from white on
    if part >= USED:  # a label that was burnt in uses the whole range
        low, high = np.percentile(_thinned(pixels), (1, 99))
        part = float(min(high, 1 - low))
    used = round(part * (2**bits - 1)).bit_length()
    if part >= USED or not 0 < used < bits:
        return ""
    return DEPTH.format(used=used, bits=bits, most=2**used - 1, range=2**bits - 1)


def _thinned(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every k-th pixel, so that 512 to 1024 are left of the longest side: enough to look at, and 10 times faster."""
    step = max(1, max(pixels.shape) // 512)
    return np.ascontiguousarray(pixels[::step, ::step])


def air_is_bright(pixels: NDArray[np.float32]) -> bool:
    """Whether the flat regions that reach three sides of the image (H, W) are brighter than the rest.

    False where there is no air. Measured on mini-MIAS (322 films): none is called inverted, and of the inverted ones
    304; of digital images none and all.
    """
    scale = min(1.0, SIDE / max(pixels.shape))
    size = max(8, round(pixels.shape[1] * scale)), max(8, round(pixels.shape[0] * scale))
    small = cv2.resize(_thinned(pixels), size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (1, 99))
    element = np.ones((3, 3), dtype=np.uint8)
    flat = cv2.dilate(small, element) - cv2.erode(small, element) < FLAT * (high - low)
    count, labels, found, _ = cv2.connectedComponentsWithStats(flat.astype(np.uint8), connectivity=4)
    regions = [labels == n for n in range(1, count) if found[n, cv2.CC_STAT_AREA] >= LEAST_AIR * labels.size]
    sides = [sum(_reaches(np.rot90(region, turns)) for turns in range(4)) for region in regions]
    at_border = [(region, reached) for region, reached in zip(regions, sides, strict=True) if reached >= 2]
    rest = small[~np.any([region for region, _ in at_border], axis=0)] if at_border else small[:0]
    if not rest.size:
        return False
    bright = dark = 0.0
    for region, reached in at_border:
        above = float((rest < np.median(small[region])).mean())
        bright += float(region.mean()) * (above > BRIGHTER and reached >= 3)
        dark += float(region.mean()) * (above < 0.5)
    return bright > dark


def _reaches(region: NDArray[np.bool_]) -> bool:
    """Whether a region lies along a tenth of the first rows."""
    return bool(region[:3].any(axis=0).mean() >= 0.1)


def mixed(notes: Mapping[str, int], images: int) -> list[str]:
    """Warn where some of the images, but not all, are inverted or of less depth, by the counts of their notes."""
    counts = {"are inverted, their air is bright": notes.get(POLARITY, 0)}
    for note, count in notes.items():
        if note.startswith(DEPTH.partition("{")[0]) and " bits (" in note:
            words = note.partition(" (")[0].replace("uses", "use")
            counts[words] = counts.get(words, 0) + count
    return [
        f"{count} of {images} files {what}: a network learns to tell them by that, as it does sites; correct them"
        for what, count in counts.items()
        if 0 < count < images
    ]

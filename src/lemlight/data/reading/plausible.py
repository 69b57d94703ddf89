"""Whether decoded pixels look like a mammogram: air dark, a fair part of the range used. What does not is noted."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 128  # px of the longest side on which air is looked for
FLAT = 0.05  # of the contrast, between neighbours
LEAST_AIR, MOST, BRIGHTER = 0.03, 0.5, 0.85  # of the image, twice; of what is no air
USED = 0.27  # of the range: 14 of 16 bits are a quarter
POLARITY = "air is the brightest region: inverted (MONOCHROME1 taken for MONOCHROME2)?"
LEAST_SPREAD = 0.07  # of the range: 12 of 16 bits are a sixteenth; more may be a breast without contrast
DEPTH = "uses {used} of {bits} bits (values up to {most} of {range}): too dark or without contrast?"


def odd_pixels(pixels: NDArray[np.float32], bits: int) -> list[str]:
    """Say what is odd about pixels (H, W) in [0, 1] that were `bits` deep: polarity and depth; nothing as a rule."""
    return [POLARITY] * air_is_bright(pixels) + list(filter(None, [depth_note(pixels, bits)]))


def depth_note(pixels: NDArray[np.float32], bits: int) -> str:
    """Say how many of the bits an image uses, where that is a small part of the range; "" where it is a fair one."""
    low = cv2.minMaxLoc(pixels, (pixels > 0).view(np.uint8))[0]  # 20 times as fast as numpy with where
    part = _part(low, float(pixels.max()))
    if part >= USED:  # a label that was burnt in uses the whole range
        seen = _thinned(pixels)
        part = _part(float(np.percentile(seen[seen > 0], 1)), float(np.percentile(seen, 99))) if seen.any() else part
    used = round(part * (2**bits - 1)).bit_length()
    if part >= USED or not 0 < used < bits:
        return ""
    return DEPTH.format(used=used, bits=bits, most=2**used - 1, range=2**bits - 1)


def _part(low: float, high: float) -> float:
    """The part of the range that values above 0 (padding) use: from black on, from white on (of MONOCHROME1), or a very
    small one in between (of signed values).
    """
    part, spread = min(high, 1 - low), high - low
    return spread if part >= USED and 0 < spread < LEAST_SPREAD else part


def _thinned(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every k-th pixel, so that 512 to 1024 are left of the longest side: enough to look at, and 10 times faster."""
    step = max(1, max(pixels.shape) // 512)
    return np.ascontiguousarray(pixels[::step, ::step])


def air_is_bright(pixels: NDArray[np.float32]) -> bool:
    """Whether the flat regions that reach three sides of the image (H, W) are brighter than the rest.

    False where there is no air. Measured on mini-MIAS (322 films): one is called inverted (mdb152), and of the inverted
    ones 303; of digital phantoms none and all, of phantoms on film with white padding none.
    """
    scale = min(1.0, SIDE / max(pixels.shape))
    size = max(8, round(pixels.shape[1] * scale)), max(8, round(pixels.shape[0] * scale))
    shrunk = cv2.resize(_thinned(pixels), size, interpolation=cv2.INTER_AREA)
    small = _without_frame(np.asarray(shrunk, dtype=np.float32))
    bright, dark = _flat_parts(small, 3, 0.5)
    if bright <= dark:
        return False
    inner = _without_white(small)
    if inner.size == small.size:
        return True
    bright, dark = _flat_parts(inner, 2, 1 - BRIGHTER)  # where padding alone is white, what is left of it is little
    return bright > 0.15 * dark


def _flat_parts(small: NDArray[np.float32], sides: int, dark_most: float) -> tuple[float, float]:
    """The fractions of the image (H, W) that are flat, lie at its sides and are its brightest part, or dark.

    What is bright reaches as many `sides`; what is dark is above less than `dark_most` of the rest.
    """
    low, high = np.percentile(small, (1, 99))
    element = np.ones((3, 3), dtype=np.uint8)
    flat = cv2.dilate(small, element) - cv2.erode(small, element) < FLAT * (high - low)
    count, labels, found, _ = cv2.connectedComponentsWithStats(flat.astype(np.uint8), connectivity=4)
    regions = [labels == n for n in range(1, count) if found[n, cv2.CC_STAT_AREA] >= LEAST_AIR * labels.size]
    reach = [sum(_reaches(np.rot90(region, turns)) for turns in range(4)) for region in regions]
    # most of the image is air, whatever lies between it and the sides
    reach = [4 if reached and region.mean() > MOST else reached for region, reached in zip(regions, reach, strict=True)]
    at_border = [(region, reached) for region, reached in zip(regions, reach, strict=True) if reached >= 2]
    rest = small[~np.any([region for region, _ in at_border], axis=0)] if at_border else small[:0]
    bright = dark = 0.0
    if not rest.size:
        return bright, dark
    for region, reached in at_border:
        level = np.median(small[region])
        bright += float(region.mean()) * float((rest <= level).mean() > BRIGHTER and reached >= sides)
        dark += float(region.mean()) * float((rest < level).mean() < dark_most)
    return bright, dark


def _without_white(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image (H, W) without the lines along its sides that are nearly all white."""
    white = small > 0.97 * small.max()
    for _ in range(2):  # the columns beside a film are white all along once the rows above it are gone
        for axis in (1, 0):
            inside = np.flatnonzero(white.mean(axis=axis) < 0.9)
            if inside.size < 8:
                return small
            lines = slice(inside[0], inside[-1] + 1)
            small, white = (a[lines] if axis else a[:, lines] for a in (small, white))
    return small


def _without_frame(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image (H, W) without a black frame, which has four sides; air leaves the chest wall to the breast."""
    x, y, width, height = cv2.boundingRect((small > 0.02 * small.max()).astype(np.uint8))
    sides = x, y, small.shape[1] - x - width, small.shape[0] - y - height
    edge = 1  # the picture's edge is half black
    inner = small[y + edge : y + height - edge, x + edge : x + width - edge]
    return np.ascontiguousarray(inner, dtype=np.float32) if min(sides) > 0 and min(inner.shape) >= 8 else small


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

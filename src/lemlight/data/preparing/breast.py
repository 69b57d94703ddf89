"""Where the breast is on a mammogram, on which side the chest wall lies, and the prepared image cut out of it.

A film has more than one kind of air: the padding around it, one value and often the darkest, and the film base, a
little brighter. Neither is known beforehand, so that air is taken from where it must be, opposite the chest wall.
Labels, white strips and padding are known by their sharp edges: tissue fades.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.reading.raster import Image
from lemlight.errors import ImageError

WORKING_SIDE = 384  # px of the longest side on which the breast is looked for: 0.6 to 0.8 mm per px
LEAST_FRACTION = 0.02  # of the image; anything smaller is no breast
LARGEST_MARK = 0.04  # of the film: 17 cm2 of 18x24 cm; strips may be larger
LEAST_CONTRAST = 0.01  # of the full range, between air and breast
MARGIN = 0.02  # of the image's longest side, around the breast
DISC = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)), dtype=np.uint8)  # wider than letters

# fractions of the contrast, which goes from 0 where the image is darkest to 1 where it is brightest
PADDING = 0.01  # what is darker is padding or air without any film base
WHITE = 0.97  # what is brighter may be white padding
MOST_AIR = 0.5  # what is brighter is no air
AIR_WIDTH = 0.02  # air strays as far from its level
RIM_MOST = 0.06  # the dim rim of the breast begins no higher above the air, however that strays
RIM_LEAST = 0.16  # nor lower, as a fraction of the level between air and tissue (Otsu)
FLAT = 0.01  # air varies less from its mean over 9 px; 0.001 on film, 0.005 with strong grain, 0.02 and more in tissue
FAINT = 0.05  # less between air and tissue is no breast
MARK = 0.5  # labels and strips are brighter
MARK_STEP = 0.3  # their edges rise as much within 5 px, of the working copy as everything here


def breast_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The breast in a mammogram (H, W) of values in [0, 1] as bool (H, W): bright on dark, without labels and border.

    All ones where a breast fills the frame: no air in sight. Where a film has padding, all of the film.
    Raises ImageError where no breast is found: flat images, noise, and regions below 2 % of the image.
    """
    sharp, smooth = _working_copy(pixels)
    film = _film(smooth)
    region = np.zeros(smooth.shape, dtype=np.bool_)
    region[film] = _region(smooth[film], _marks(sharp[film]))
    height, width = pixels.shape
    full = cv2.resize(region.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 127, dtype=np.bool_)


def chest_wall_on_right(mask: NDArray[np.bool_]) -> bool:
    """Whether the breast in the mask (H, W) hangs from the right border: where it is tallest.

    A breast that is as tall on the other side is cut off there too: it hangs from where its upper end is.
    """
    columns = mask.sum(axis=0)
    inside, rows = np.flatnonzero(columns), np.flatnonzero(mask.any(axis=1))
    if not inside.size:
        return False
    strip = max(1, round(0.03 * mask.shape[1]))
    left, right = columns[inside[0] : inside[0] + strip].sum(), columns[inside[-1] - strip + 1 : inside[-1] + 1].sum()
    if min(left, right) > 0.7 * max(left, right):
        upper = mask[rows[0] : rows[0] + max(1, round(0.03 * mask.shape[0]))].sum(axis=0)
        half = mask.shape[1] // 2
        if upper[:half].sum() != upper[-half:].sum():
            left, right = upper[:half].sum(), upper[-half:].sum()
    return bool(right > left)


def find_geometry(
    pixels: NDArray[np.float32],
    prepared_shape: tuple[int, int],
    crop: bool = True,
    flip: bool = True,
) -> tuple[BreastGeometry, NDArray[np.bool_]]:
    """The way from an original (H, W) in [0, 1] to `prepared_shape`, and its breast mask, bool (H, W).

    `flip` brings the chest wall to the left; `crop` keeps the breast's box and a MARGIN of the image's longest side
    around it. The aspect is kept. Raises ImageError where no breast is found.
    """
    mask = breast_mask(pixels)
    height, width = mask.shape
    flipped = flip and chest_wall_on_right(mask)
    box = (0, 0, height, width)
    if crop:
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        x = width - x - w if flipped else x
        edge = round(MARGIN * max(height, width))
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


def _working_copy(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The image with its longest side at most WORKING_SIDE px, as fractions of its contrast, and the same blurred."""
    if pixels.ndim != 2 or min(pixels.shape) < 16:
        raise ImageError(f"no breast found: an image of shape {pixels.shape} is too small or has no two axes")
    height, width = pixels.shape
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    sharp = cv2.resize(np.ascontiguousarray(pixels, dtype=np.float32), size, interpolation=cv2.INTER_AREA)
    if not np.isfinite(sharp).all():
        raise ImageError("no breast found: the image holds values that are not finite")
    smooth = cv2.GaussianBlur(sharp, (0, 0), 1.0)
    low, high = np.percentile(smooth, (0.5, 99.5))
    if high - low < LEAST_CONTRAST:
        raise ImageError("no breast found: the image is flat (no contrast between breast and air)")
    if smooth.var() < 0.3 * sharp.var():  # 0.08 for white noise, 0.9 and more for mammograms
        raise ImageError("no breast found: the image is noise")
    # cut off above, lest labels set the scale; not below, where the darkest tissue would come out as flat as air
    sharp, smooth = (np.minimum((values - low) / (high - low), 1).astype(np.float32) for values in (sharp, smooth))
    return sharp, smooth


def _film(smooth: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns of the film without the padding around it, white or dark; of a digital image, of the breast."""
    top, left, bottom, right = 0, 0, *smooth.shape
    white = smooth > WHITE
    for _ in range(2):  # the columns beside a film are white all along once the rows above it are gone
        fractions = white[:, left:right].mean(axis=1)
        top, bottom = top + _white_lines(fractions[top:bottom]), bottom - _white_lines(fractions[top:bottom][::-1])
        fractions = white[top:bottom].mean(axis=0)
        left, right = left + _white_lines(fractions[left:right]), right - _white_lines(fractions[left:right][::-1])
    inside = smooth[top:bottom, left:right]
    film = _largest(_opened(inside > PADDING, DISC), inside < WHITE)  # a white bar may be larger than a breast
    x, y, w, h = cv2.boundingRect(film.view(np.uint8))
    return slice(top + y, top + y + h), slice(left + x, left + x + w)


def _white_lines(fractions: NDArray[np.float64]) -> int:
    """How many lines at the beginning are white padding: nearly all of each, and ending soon, as tissue does not."""
    end = int(np.argmax(fractions < 0.9))
    ends = 0 < end < fractions.size - 10 and fractions[end + 10] < 0.5  # within 10 px: a film may lie askew
    return end + 2 if ends else 0  # 2 px more: the blur carried the white on


def _marks(sharp: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Labels, letters and white strips on a film: bright, small or narrow, and cut off sharply on nearly all sides."""
    inner = cv2.copyMakeBorder(sharp[2:-2, 2:-2], 2, 2, 2, 2, cv2.BORDER_REPLICATE)  # the film's own edge is sharp too
    square = np.ones((5, 5), dtype=np.uint8)
    bright = _opened(inner > MARK, square).astype(np.uint8)  # a bright skin line is narrower
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    edge = (bright > 0) & (cv2.erode(bright, square[:3, :3]) == 0)
    step = cv2.dilate(inner, square) - cv2.erode(inner, square)
    lengths, sharp_lengths = (np.bincount(labels[some], minlength=count) for some in (edge, edge & (step > MARK_STEP)))
    sides = np.sort(stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]], axis=1)
    box = sides.prod(axis=1)  # px; the area of a tilted strip is at least half of it
    strips = (sides[:, 0] < 0.2 * sides[:, 1]) & (stats[:, cv2.CC_STAT_AREA] > 0.4 * box)
    found = (sharp_lengths > 0.8 * lengths) & (strips | (box < LARGEST_MARK * sharp.size))
    found[0] = False  # what is not bright
    closed = cv2.morphologyEx(found[labels].astype(np.uint8), cv2.MORPH_CLOSE, square)  # over the letters of a label
    return np.asarray(cv2.dilate(closed, square) > 0, dtype=np.bool_)


def _air(smooth: NDArray[np.float32], marks: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The level of the brightest air on a film and its spread; None where no air is in sight.

    Looked for opposite the chest wall: along the far side, in its corners, and along the far halves of the upper and
    the lower side. A dark level that a twentieth of the pixels there agree on, where nothing else varies, is air: of
    two, padding and film base, the brighter one.
    """
    height, half = smooth.shape[0], smooth.shape[1] // 2
    tissue = np.where(marks, 0, np.minimum(smooth, MOST_AIR)).sum(axis=0)  # clipped: a gland may lie far off
    if tissue[:half].sum() > tissue[-half:].sum():
        smooth, marks = smooth[:, ::-1], marks[:, ::-1]
    near = np.zeros(smooth.shape, dtype=np.bool_)
    near[2:-2, 2:8] = near[2:8, 2:half] = near[-8:-2, 2:half] = True  # 2 px in: padding is blurred into the edge
    near[2 : height // 6, 2 : half // 3] = near[-height // 6 : -2, 2 : half // 3] = True  # where a film lies askew
    mean = cv2.blur(smooth, (9, 9))
    flat = cv2.blur(smooth**2, (9, 9)) - mean**2 < FLAT**2
    least = 0.05 * (near & ~marks).sum()
    band = np.maximum(smooth[near & ~marks & flat], 0)
    air = None
    for darkest in (0.0, PADDING):
        rest = band[band >= darkest]
        counts, edges = np.histogram(rest, bins=round(MOST_AIR / 0.01), range=(0, MOST_AIR))
        agreeing = np.convolve(counts, np.ones(3), "same")
        peak = int(np.argmax(agreeing))
        if agreeing[peak] > least:
            around = rest[(rest >= edges[max(0, peak - 1)]) & (rest <= edges[min(peak + 2, counts.size)])]
            level = float(np.median(around))
            air = level, 1.4826 * float(np.median(np.abs(rest[np.abs(rest - level) < AIR_WIDTH] - level)))
    return air


def _region(smooth: NDArray[np.float32], marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest bright region of a film down to its skin line, marks cut off, holes filled."""
    found = _air(smooth, marks)
    if found is None:
        return np.ones(smooth.shape, dtype=np.bool_)
    air, spread = found
    high = float(np.percentile(smooth[~marks], 99.5))
    if high - air < FAINT:
        raise ImageError("no breast found: nothing but air and labels")
    levels = np.sqrt(np.clip((smooth - air) / (high - air), 0, 1))  # the root spreads the dim skin line against the air
    otsu, _ = cv2.threshold(np.rint(255 * levels[~marks]).astype(np.uint8), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    inner = otsu / 255
    # Otsu cuts the dim rim off, so the region grows from there down to just above the air
    outer = min(inner, float(np.sqrt(np.clip(4 * spread / (high - air), RIM_LEAST * inner**2, RIM_MOST))))
    marks = marks | _border(levels > inner)
    core = _largest(_opened((levels > inner) & ~marks, DISC))
    grown = _opened((levels > outer) & ~marks, DISC)
    _, labels = cv2.connectedComponents(grown.astype(np.uint8), connectivity=4)
    region = grown & np.isin(labels, labels[core & grown])
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(levels.shape, dtype=np.uint8), contours, -1, 1, thickness=cv2.FILLED)
    return _without_leaks(filled > 0)


def _without_leaks(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region without the light that leaks in along the chest wall, a strip or wedge above and below the breast.

    The breast itself ends in a narrow corner there, but becomes narrower from row to row; light does not.
    """
    widths = region.sum(axis=1)
    kept = np.ones(widths.shape, dtype=np.bool_)
    middle, widest = int(np.argmax(widths)), widths.max()
    for way in (1, -1):
        outwards, out = widths[middle::way], kept[middle::way]  # views: writing to `out` writes to `kept`
        narrowest = np.minimum.accumulate(outwards)
        again = np.flatnonzero((narrowest < 0.35 * widest) & (outwards > narrowest + 0.05 * widest))
        if again.size:  # of 322 real films no breast becomes wider again
            out[int(np.argmax(outwards == narrowest[again[0]])) :] = False
        for row in np.flatnonzero(outwards < 0.2 * widest):
            if outwards[row] > outwards[max(0, row - 5)] - 2:
                out[max(0, row - 4) :] = False
                break
    return _largest(region & kept[:, None])


def _border(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bright lines along the sides of a film that are no marks, since tissue touches them.

    Bright over most of their length, and the line further in is much darker; on the left and the right it shows
    nothing but air, since the chest wall is bright too.
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


def _largest(region: NDArray[np.bool_], counted: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """The connected part of the region with the most px, of those that are `counted`; ImageError where it is small."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    if count < 2:
        raise ImageError("no breast found: nothing bright is larger than a label")
    sizes = stats[:, cv2.CC_STAT_AREA] if counted is None else np.bincount(labels[counted], minlength=count)
    largest = 1 + int(np.argmax(sizes[1:]))
    if stats[largest, cv2.CC_STAT_AREA] < LEAST_FRACTION * labels.size:
        raise ImageError("no breast found: the largest bright region covers less than 2 % of the image")
    return np.asarray(labels == largest, dtype=np.bool_)

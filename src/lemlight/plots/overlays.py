"""Images under their location maps with regions and true lesions: one, and a sheet of the best and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib import colormaps, get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from lemlight.files import written_aside
from lemlight.plots.style import GREEN, SKY, outlines

PLACES = ("best", "median", "worst")
SHOWN = 9  # overlays in all
TYPES = 3  # of lesions, the most frequent


def choose_overlays(images: pd.DataFrame) -> dict[str, str]:
    """Choose up to nine image_ids and give each its title, as `mass, worst: Dice 0.12`.

    Of each image: image_id, dsc (NaN where it shows no lesion, left out) and type, that of its lesions in one word.
    """
    measured = images.dropna(subset="dsc")
    frequent = measured["type"].value_counts().index[:TYPES]
    each = SHOWN // max(1, len(frequent)) // len(PLACES)
    titles: dict[str, str] = {}
    for kind in frequent:
        ordered = measured[measured["type"] == kind].sort_values("dsc", ascending=False, kind="stable")
        name = f"{kind}, " if kind else ""
        ids, dsc = ordered["image_id"].tolist(), ordered["dsc"].tolist()
        titles |= {
            str(ids[row]): f"{name}{place}: Dice {dsc[row]:.2f}" for row, place in _places(len(ids), each).items()
        }
    return titles


def type_of(types: Sequence[str]) -> str:
    """Name the lesions of one image by one word: their type, "several types", or "" where it is not known."""
    found = set(types)
    return "several types" if len(found) > 1 else next(iter(found), "")


def _places(count: int, each: int) -> dict[int, str]:
    """Name `each` rows of the first, the middle and the last of `count` sorted ones; of few rows each one once."""
    each = max(1, min(each, count // len(PLACES)))
    named: dict[int, str] = {}
    for place, start in zip(PLACES, (0, (count - each) // 2, count - each), strict=True):
        for row in range(start, start + each):
            named.setdefault(row, place)
    return named


LONGEST = 1200  # px of the longer side of an image in the picture of one, whatever its own
IN_A_SHEET = 480
PAIRS_PER_ROW = 3
MARGIN, GAP = 14, 12  # px
SCALE_BARS_MM = (100, 50, 20, 10, 5, 2, 1)
LABEL = "strength of the location map"
REGION, BENIGN, LESION = (ImageColor.getrgb(colour) for colour in (SKY, GREEN, "white"))
FONT = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")  # of matplotlib, as in all other figures
Panel = NDArray[np.uint8]  # (h, w, 3) RGB
Mark = tuple[str, tuple[int, ...]]  # what a legend says, of which colour


# plasma (perceptually uniform, safe for the colour-blind) as RGBA (256, 4), see-through at 0
HEAT = np.rint(255 * colormaps["plasma"](np.linspace(0, 1, 256))).astype(np.uint8)
HEAT[:, 3] = np.rint(255 * (0.8 * np.linspace(0, 1, 256) ** 0.75))
OPACITY = HEAT[:, 3:].astype(np.float32) / 255
INK = HEAT[:, :3] * OPACITY  # what the colours add


@dataclass(frozen=True, eq=False)
class OverlayItem:
    """One image and what the model says about it, all in the original orientation and px (H, W).

    `image` in [0, 1], which may be smaller than the original; `strength` the location map in [0, 1], zeros where there
    is no extremum; `regions` found in it, of which `contour` and `score` are drawn, see
    `lemlight.localization.regions.Region`; `probability` in [0, 1] and the `prediction` from it, a class name;
    `spacing` (row, column) mm or None; `lesions` bool, the true ones, all False for none, or None where unknown.
    `image_id` is printed and may be empty: it must not name a patient.
    """

    image_id: str
    image: NDArray[Any]
    strength: NDArray[Any]
    regions: Sequence[Any]
    probability: float
    prediction: str
    spacing: tuple[float, float] | None = None
    lesions: NDArray[Any] | None = None


def draw_pair(item: OverlayItem, longest: int) -> tuple[Panel, Panel]:
    """Draw the image with a scale bar, and the image under its map with regions and lesions; longer side `longest` px.

    The colours mean the same in every picture: 0 to 1. A map of zeros is stated in words.
    """
    factor = longest / max(item.strength.shape)
    height, width = (max(1, round(side * factor)) for side in item.strength.shape)
    grey = np.rint(255 * _resized(item.image, (height, width))).astype(np.uint8)
    plain = np.repeat(grey[:, :, None], 3, axis=2)
    overlay = heated(plain, _resized(item.strength, (height, width)))
    line = max(2, longest // 500)
    for outline in outlines(item.lesions):
        _draw_line(overlay, outline, factor, LESION, line, dash=5 * line)
    for region in item.regions:
        _draw_line(overlay, region.contour, factor, BENIGN if region.score is None else REGION, line)
    return _labelled(item, plain, overlay, factor)


def _resized(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The array in [0, 1] at another size, by areas where that is smaller."""
    way = cv2.INTER_AREA if shape[0] < array.shape[0] else cv2.INTER_LINEAR
    values = cv2.resize(np.asarray(array, dtype=np.float32), shape[::-1], interpolation=way)
    return np.asarray(np.clip(np.atleast_2d(values), 0, 1), dtype=np.float32)


def heated(plain: Panel, strength: NDArray[np.float32]) -> Panel:
    """The image under the colours of its map; blended only where there are any."""
    level, overlay = np.rint(255 * strength).astype(np.uint8), plain.copy()
    x, y, width, height = cv2.boundingRect(level)
    part, colour = overlay[y : y + height, x : x + width], level[y : y + height, x : x + width]
    part[:] = np.rint(part * (1 - OPACITY)[colour] + INK[colour])
    return overlay


def _draw_line(
    panel: Panel, xy: NDArray[Any], factor: float, colour: tuple[int, ...], width: int, dash: int | None = None
) -> None:
    """Draw a line through points (K, 2) in px of the original, edged in black: it is seen on white tissue, too."""
    points = (np.asarray(xy, dtype=np.float64) + 0.5) * factor - 0.5
    steps = np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    pieces = [points]
    if dash is not None:
        starts = np.arange(0, steps[-1], 1.5 * dash + width + 2)
        along = [np.linspace(start, min(start + dash, steps[-1]), 6) for start in starts]
        pieces = [np.stack([np.interp(at, steps, points[:, axis]) for axis in (0, 1)], axis=1) for at in along]
    fixed = [np.rint(piece * 16).astype(np.int32) for piece in pieces]  # sixteenths of a px
    for ink, thickness in (((0, 0, 0), width + 2), (colour, width)):
        cv2.polylines(panel, fixed, False, ink, thickness, cv2.LINE_AA, 4)


def _labelled(item: OverlayItem, plain: Panel, overlay: Panel, factor: float) -> tuple[Panel, Panel]:
    """Write what stands on the panels: the scale bar, scores beside their regions, that there is no extremum."""
    left, right = Image.fromarray(plain), Image.fromarray(overlay)
    size = max(16, max(left.size) // 55)
    if item.spacing is not None:
        _draw_scale(left, item.spacing[1] / factor, size)
    for region in item.regions:
        x, (top, bottom) = region.contour[:, 0].mean(), (region.contour[:, 1].min(), region.contour[:, 1].max())
        above = top > 0.05 * item.strength.shape[0]
        at = ((x + 0.5) * factor, (top * factor - 0.4 * size) if above else (bottom * factor + 0.4 * size))
        said = "benign" if region.score is None else f"{region.score:.2f}"
        _write(right, at, said, size, "ms" if above else "ma")
    if not item.strength.any():
        _write(right, (right.width / 2, right.height / 2), "no extremum", size, "mm")
    return np.asarray(left), np.asarray(right)


def _draw_scale(picture: Image.Image, mm_per_px: float, size: int) -> None:
    """Draw a bar of at most a third of the width in the darker of the lower corners; mm at the detector."""
    fitting = [length for length in SCALE_BARS_MM if length / mm_per_px <= picture.width / 3]
    if not fitting:
        return
    long, (width, height) = round(fitting[0] / mm_per_px), picture.size
    low, half = np.asarray(picture)[-max(1, height // 8) :], max(1, width // 2)
    left = low[:, :half].mean() <= low[:, -half:].mean()
    x, y = round(0.04 * width if left else 0.96 * width - long), round(0.97 * height)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - 1, y - 1, x + long, y + size // 4 + 1), fill="black")
    draw.rectangle((x, y, x + long - 1, y + size // 4), fill="white")
    _write(picture, (x + long / 2, y - 0.4 * size), f"{fitting[0]} mm", size, "ms")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, size)


def _write(
    picture: Image.Image, at: tuple[float, float], text: str, size: int, anchor: str, edged: bool = True
) -> None:
    """Write white text edged in black, or black text; anchors as in Pillow."""
    more: dict[str, Any] = {"fill": "white", "stroke_width": 2, "stroke_fill": "black"} if edged else {"fill": "black"}
    ImageDraw.Draw(picture).text(at, text, font=_font(size), anchor=anchor, **more)


def legend_of(items: Sequence[OverlayItem]) -> list[Mark]:
    """What a legend explains of these items, with its colour."""
    marks: list[Mark] = []
    scores = [region.score for item in items for region in item.regions]
    if any(score is not None for score in scores):
        marks.append(("suspicious region with its score", REGION))
    if None in scores:
        marks.append(("region that speaks for benign", BENIGN))
    if any(item.lesions is not None and item.lesions.any() for item in items):
        marks.append(("true lesion", LESION))
    return marks


def overlay_figure(item: OverlayItem, path: Path) -> Path:
    """Draw one image: as it is with a scale bar, and beside it under its location map with regions and true lesions.

    The longer side of the image has 1200 px. The same item gives the same bytes.
    """
    heading = f"predicted {item.prediction}, p = {item.probability:.3f}"
    return _compose([draw_pair(item, LONGEST)], [(item.image_id, heading)], legend_of([item]), path)


def overlay_sheet(items: Sequence[OverlayItem], path: Path, titles: Sequence[str]) -> Path:
    """Draw several images as pairs, three pairs a row, each under its title (`best, Dice 0.81`, ...)."""
    pairs = [draw_pair(item, IN_A_SHEET) for item in items]
    said = [
        (f"{title}\n{item.image_id}".rstrip(), f"predicted {item.prediction}, p = {item.probability:.2f}")
        for item, title in zip(items, titles, strict=True)
    ]
    return _compose(pairs, said, legend_of(items), path)


def _compose(
    pairs: Sequence[tuple[Panel, Panel]],
    said: Sequence[tuple[str, str]],
    marks: Sequence[Mark],
    path: Path,
) -> Path:
    """Put pairs side by side, each under what is said of its two panels, with a colour bar and a legend; write it."""
    size = 22 if len(pairs) == 1 else 18
    above = max(text.count("\n") + 1 for texts in said for text in texts) * (size + 6) + GAP
    high = max(plain.shape[0] for plain, _ in pairs)
    wide = max(
        *(plain.shape[1] for plain, _ in pairs), *(round(_widest(text, size)) for texts in said for text in texts)
    )
    rows, columns = -(-len(pairs) // PAIRS_PER_ROW), min(PAIRS_PER_ROW, len(pairs))
    cell_width, cell_height = 2 * (wide + GAP) + 2 * GAP, above + high + GAP
    body_width = max(columns * cell_width, sum(_widest(text, 18) + 100 for text, _ in marks))
    body_height = max(rows * cell_height, 300)
    page = Image.new("RGB", (round(body_width) + MARGIN + 110, body_height + 2 * MARGIN + 44), "white")
    for number, ((plain, overlay), texts) in enumerate(zip(pairs, said, strict=True)):
        x = MARGIN + number % columns * cell_width
        y = MARGIN + number // columns * cell_height
        for panel, text, left in ((plain, texts[0], x), (overlay, texts[1], x + wide + GAP)):
            ImageDraw.Draw(page).multiline_text((left, y), text, fill="black", font=_font(size), spacing=4)
            page.paste(Image.fromarray(panel), (left, y + above))
    _draw_colours(page, page.width - 104, MARGIN + above, min(body_height - above - GAP, 1000))
    x, y, pixels = MARGIN, page.height - MARGIN - 12, np.array(page)
    places = []
    for text, colour in marks:
        _draw_line(pixels, np.array([[x, y], [x + 44, y]]), 1, colour, 3, dash=10 if colour == LESION else None)
        places.append((x + 54, y))
        x += round(_widest(text, 18)) + 90
    page = Image.fromarray(pixels)
    for place, (text, _) in zip(places, marks, strict=True):
        _write(page, place, text, 18, "lm", edged=False)
    with written_aside(path) as aside:
        encoded = cv2.imencode(".png", cv2.cvtColor(np.asarray(page), cv2.COLOR_RGB2BGR))[1]
        aside.write_bytes(encoded.tobytes())
    return path


def _widest(text: str, size: int) -> float:
    return max(_font(size).getlength(line) for line in text.split("\n"))


def _draw_colours(page: Image.Image, x: int, y: int, height: int) -> None:
    """Draw the colour bar, black below the colours as the tissue is dark, with its label."""
    levels = np.rint(np.linspace(255, 0, height)).astype(np.uint8)[:, None].repeat(26, axis=1)
    page.paste(Image.fromarray(np.rint(INK[levels]).astype(np.uint8)), (x, y))
    for tick in range(6):
        at = y + (height - 1) * (1 - tick / 5)
        _write(page, (x + 32, at), f"{tick / 5:.1f}", 16, "lm", edged=False)
    label = Image.new("RGB", (round(_widest(LABEL, 16)) + 4, 24), "white")
    _write(label, (2, 12), LABEL, 16, "lm", edged=False)
    turned = label.rotate(90, expand=True)
    page.paste(turned, (x + 70, y + max(0, (height - turned.height) // 2)))

"""The same mammogram under the location map of every method."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from lemlight.reporting.comparison.curves_overlaid import Groups
from lemlight.reporting.figures.overlay_panels import HEAT, lesion_outlines
from lemlight.reporting.figures.style import SKY

FOLDER, LIST = "examples", "examples.csv"
LONGEST = 400  # px of a picture on the page
LEVELS = 64  # of a location map
EDGE, REGION, WHITE = LEVELS, LEVELS + 1, LEVELS + 2  # further colours of a picture
DASH, GAP = 12, 10  # points of an outline, about half a px apart

Pixels = NDArray[np.uint8]
Examples = Mapping[str, tuple[Path, pd.DataFrame]]
"""Method -> folder of its first training, and the list of its examples by image_id."""


@dataclass(frozen=True)
class Overlay:
    """What one method says of a mammogram; `png` (base64) lies over the image and is see-through elsewhere."""

    method: str
    probability: float
    called: str
    png: str


@dataclass(frozen=True)
class Mammogram:
    """One image under all methods; nothing in it names a patient. `image` and `lesions` are PNG as base64."""

    label: int
    width: int
    height: int
    image: str
    lesions: str
    """Empty where no lesion is known."""
    overlays: tuple[Overlay, ...]


def read_mammograms(groups: Groups) -> list[Mammogram]:
    """Return the images that the first training of every method left in its folder examples/, in their order.

    Methods that left none are passed over; only images that all others share are shown.
    """
    known, labels = known_examples(groups)
    read = [_mammogram(image_id, label, known) for image_id, label in labels.items()]
    return [mammogram for mammogram in read if mammogram is not None]


def known_examples(groups: Groups) -> tuple[Examples, dict[str, int]]:
    """Return what the first training of every method lists, by method, and the images that all share with labels."""
    lists = {method: (runs[0].folder, _list(runs[0].folder / FOLDER / LIST)) for method, runs in groups.items()}
    known = {method: (folder, rows) for method, (folder, rows) in lists.items() if rows is not None}
    if not known:
        return {}, {}
    shared = set.intersection(*(set(rows.index) for _, rows in known.values()))
    _, rows = next(iter(known.values()))
    labels = next(iter(groups.values()))[0].predictions.set_index("image_id")["label"]
    return known, {name: int(labels[name]) for name in rows.index if name in shared and name in labels.index}


def overlay_pixels(strength: Pixels, cutoff: float) -> Pixels:
    """Return a map (H, W) of 0 to 255 as indices of the palette, the borders of its regions drawn into it."""
    pixels = np.round(strength / 255 * (LEVELS - 1)).astype(np.uint8)
    inside = (strength >= max(1.0, cutoff * 255)).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(pixels, contours, -1, EDGE, 3)
    cv2.drawContours(pixels, contours, -1, REGION, 1)
    return pixels


def lesion_pixels(lesions: NDArray[np.bool_]) -> Pixels:
    """Return the dashed outlines of lesions (H, W) as indices of the palette."""
    pixels = np.zeros(lesions.shape, dtype=np.uint8)
    for outline in lesion_outlines(lesions):
        points = np.round(outline).astype(np.int32)
        for colour, thickness in ((EDGE, 3), (WHITE, 1)):
            for start in range(0, len(points), DASH + GAP):
                cv2.polylines(pixels, [points[start : start + DASH + 1]], False, colour, thickness)
    return pixels


def _mammogram(image_id: str, label: int, known: Examples) -> Mammogram | None:
    overlays: list[Overlay] = []
    image = lesions = None
    for method, (folder, rows) in known.items():
        row = dict(rows.loc[image_id])
        start = folder / FOLDER / str(row["number"])
        strength = read_grey(start.with_name(f"{row['number']}_map.png"))
        image = read_grey(start.with_name(f"{row['number']}_image.png")) if image is None else image
        lesions = read_grey(start.with_name(f"{row['number']}_lesions.png")) if lesions is None else lesions
        if strength is None or image is None or strength.shape != image.shape:
            continue
        called = "malignant" if row["called_malignant"] else "benign"
        overlays.append(
            Overlay(method, float(row["probability"]), called, _palette(overlay_pixels(strength, row["cutoff"])))
        )
    if image is None or not overlays:
        return None
    outlines = "" if lesions is None or not lesions.any() else _palette(lesion_pixels(lesions > 127))
    return Mammogram(label, image.shape[1], image.shape[0], _png(Image.fromarray(image)), outlines, tuple(overlays))


def _list(path: Path) -> pd.DataFrame | None:
    try:
        rows = pd.read_csv(path, dtype={"image_id": str, "number": str}).set_index("image_id")
    except (OSError, ValueError, KeyError):
        return None
    wanted = {"number", "probability", "called_malignant", "cutoff"}
    right = wanted <= set(rows.columns) and rows.index.is_unique and rows["number"].str.fullmatch(r"\d+").all()
    return rows if right else None


def read_grey(path: Path) -> Pixels | None:
    """Read a grey PNG, made smaller where it is large; None where there is none, or a damaged one."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    if pixels is None:
        return None
    factor = LONGEST / max(pixels.shape)
    if factor >= 1:
        return np.asarray(pixels, np.uint8)
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _palette(pixels: Pixels) -> str:
    heat = np.round(np.asarray(HEAT(np.linspace(0, 1, LEVELS))) * 255).astype(np.uint8)
    marks = [(0, 0, 0, 255), (*(round(255 * part) for part in to_rgb(SKY)), 255), (255, 255, 255, 255)]
    colours = np.concatenate([heat, np.array(marks, dtype=np.uint8)])
    image = Image.fromarray(pixels, mode="P")
    image.putpalette(colours[:, :3].tobytes())
    return _png(image, transparency=colours[:, 3].tobytes())


def _png(image: Image.Image, **options: bytes) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")

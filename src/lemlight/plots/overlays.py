"""Images under their location maps with regions and true lesions: one, and a sheet of the best and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from lemlight.plots.style import GREEN, SKY, bare, explain, new_figure, outline_lesions, pair_grid, save

PLACES = ("best", "median", "worst")
SHOWN = 9  # overlays in all
TYPES = 3  # of lesions, the most frequent


def choose_overlays(images: pd.DataFrame) -> dict[str, str]:
    """Choose up to nine image_ids and give each its title, as `mass, worst: Dice 0.12`.

    Args:
        images: a row per image: image_id, dsc (NaN where it shows no lesion, left out), type: of its lesions, one word.
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


LONGEST = 1600  # px of an image as it is drawn
SCALE_BARS_MM = (100, 50, 20, 10, 5, 2, 1)
EDGED: dict[str, Any] = {"path_effects": [withStroke(linewidth=2.4, foreground="black")]}  # seen on white tissue, too
REGION: dict[str, Any] = {"color": SKY, "linewidth": 1.3, **EDGED}
BENIGN: dict[str, Any] = {"color": GREEN, "linewidth": 1.3, **EDGED}
LESION: dict[str, Any] = {"color": "white", "linewidth": 1.3, "linestyle": (0, (4, 2)), **EDGED}
SCORE: dict[str, Any] = {"color": "white", "fontsize": 8, "ha": "center", "textcoords": "offset points", **EDGED}


def _heat() -> ListedColormap:
    """Plasma (perceptually uniform, safe for the colour-blind), see-through at 0 so that the breast is seen."""
    colours = colormaps["plasma"](np.linspace(0, 1, 256))
    colours[:, 3] = 0.8 * np.linspace(0, 1, 256) ** 0.75
    return ListedColormap(colours, "heat")


HEAT = _heat()


@dataclass(frozen=True, eq=False)
class OverlayItem:
    """One image and what the model says about it, all in the original orientation and px (H, W).

    `image` in [0, 1]; `strength` the location map in [0, 1], zeros where there is no extremum; `regions` found in it,
    of which `contour` and `score` are drawn, see `lemlight.localization.regions.Region`;
    `probability` in [0, 1] and the `prediction` from it, a class name; `spacing` (row, column) mm or None;
    `lesions` bool, the true ones, all False for none, or None where unknown. `image_id` is printed and may be empty: it
    must not name a patient.
    """

    image_id: str
    image: NDArray[Any]
    strength: NDArray[Any]
    regions: Sequence[Any]
    probability: float
    prediction: str
    spacing: tuple[float, float] | None = None
    lesions: NDArray[Any] | None = None


def draw_pair(pair: Any, item: OverlayItem) -> AxesImage:
    """Draw an item into two axes and return its colours; all coordinates are px of the original."""
    plain, overlay = pair[:2]
    height, width = item.image.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    image = _reduced(item.image)
    for axes in (plain, overlay):
        axes.set_axis_off()
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="antialiased")
    plain.set_title(item.image_id, loc="left", fontsize=8, parse_math=False)
    heat = _reduced(item.strength)
    colours: AxesImage = overlay.imshow(
        heat, cmap=HEAT, norm=Normalize(0, 1), extent=extent, interpolation="antialiased"
    )
    outline_lesions(overlay, item.lesions, **LESION)
    for region in item.regions:
        _draw_region(overlay, region, height)
    if not item.strength.any():
        overlay.text(0.5, 0.5, "no extremum", transform=overlay.transAxes, ha="center", color="white", **EDGED)
    overlay.set(xlim=extent[:2], ylim=extent[2:])
    if item.spacing is not None:
        _draw_scale(plain, image, item.spacing[1], (height, width))
    return colours


def _reduced(array: NDArray[Any]) -> NDArray[np.float32]:
    """Make the longer side at most LONGEST px, by areas."""
    values = np.ascontiguousarray(array, dtype=np.float32)
    factor = LONGEST / max(values.shape)
    if factor >= 1:
        return values
    height, width = (max(1, round(side * factor)) for side in values.shape)
    return np.clip(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), 0, 1)


def _draw_region(axes: Axes, region: Any, height: int) -> None:
    """Draw the outline with its score above, or below where it touches the upper edge of the image."""
    axes.plot(*region.contour.T, **(BENIGN if region.score is None else REGION))
    top, bottom = region.contour[:, 1].min(), region.contour[:, 1].max()
    above = top > 0.05 * height
    axes.annotate(
        "benign" if region.score is None else f"{region.score:.2f}",
        (region.contour[:, 0].mean(), top if above else bottom),
        xytext=(0, 3 if above else -3),
        va="bottom" if above else "top",
        **SCORE,
    )


def _draw_scale(axes: Axes, image: NDArray[np.float32], spacing: float, shape: tuple[int, int]) -> None:
    """Draw a bar of at most a third of the width in the darker of the lower corners; mm at the detector."""
    height, width = shape
    fitting = [length for length in SCALE_BARS_MM if length / spacing <= width / 3]
    if not fitting:
        return
    pixels = fitting[0] / spacing
    low, half = image[-max(1, len(image) // 8) :], max(1, image.shape[1] // 2)
    left = low[:, :half].mean() <= low[:, -half:].mean()
    start = 0.04 * width if left else 0.96 * width - pixels
    y = 0.97 * height
    axes.plot([start, start + pixels], [y, y], color="white", linewidth=3, solid_capstyle="butt", **EDGED)
    axes.annotate(f"{fitting[0]} mm", (start + pixels / 2, y), xytext=(0, 4), **SCORE)


def legend_marks(items: Sequence[OverlayItem]) -> list[Line2D]:
    """Return what a legend explains of these items."""
    marks = []
    scores = [region.score for item in items for region in item.regions]
    if any(score is not None for score in scores):
        marks.append(Line2D([], [], label="suspicious region with its score", **REGION))
    if None in scores:
        marks.append(Line2D([], [], label="region that speaks for benign", **BENIGN))
    if any(item.lesions is not None and item.lesions.any() for item in items):
        marks.append(Line2D([], [], label="true lesion", **LESION))
    return marks


DPI = 200
SHORTEST_INCHES = 4.5
NARROWEST_INCHES = 1.5
PAIRS_PER_ROW = 3
LABEL = "strength of the location map"


def overlay_figure(item: OverlayItem, path: Path) -> Path:
    """Draw one image: as it is with a scale bar, and beside it under its location map with regions and true lesions.

    The colours mean the same in every figure: 0 to 1. A map of zeros is stated in words. Images of more than 1600 px
    are drawn smaller. The same item gives the same bytes.
    """
    longest = max(item.image.shape)
    inches = max(SHORTEST_INCHES, min(LONGEST, longest) / DPI) / longest
    height, width = (max(NARROWEST_INCHES, side * inches) for side in item.image.shape)
    figure = new_figure(2 * width + 1.4, height + 1.1)
    figure.set_dpi(DPI)
    axes = figure.subplots(1, 2)
    colours = draw_pair(axes, item)
    figure.suptitle(f"predicted {item.prediction}, p = {item.probability:.3f}", fontsize=13, parse_math=False)
    explain(figure, colours, axes, LABEL, legend_marks([item]))
    return save(figure, path)


def overlay_sheet(items: Sequence[OverlayItem], path: Path, titles: Sequence[str]) -> Path:
    """Draw several images as pairs, three pairs a row, each under its title (`best, Dice 0.81`, ...)."""
    figure, pairs = pair_grid([item.image for item in items], PAIRS_PER_ROW)
    for item, title, pair in zip(items, titles, pairs, strict=False):
        colours = draw_pair(pair, item)
        bare(pair[0], f"{title}\n{item.image_id}".rstrip(), loc="left", fontsize=9)
        bare(pair[1], f"predicted {item.prediction}, p = {item.probability:.2f}", loc="left", fontsize=9)
    explain(figure, colours, pairs, LABEL, legend_marks(items))
    return save(figure, path)

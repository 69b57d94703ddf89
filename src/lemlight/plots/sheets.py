"""Sheets of images: examples of a test beside their score maps, and the contact sheet of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from lemlight.plots.style import CLASS_NAMES, GREEN, ORANGE, SKY, bare, new_figure, outlines, save


def choose_examples(predictions: pd.DataFrame, count: int, seed: int, threshold: float = 0.5) -> list[str]:
    """Return at most count image_ids drawn evenly from malignant and benign images, predicted right and wrong.

    They come in that order: malignant right, malignant wrong, benign right, benign wrong; within each at random from
    the seed. Where a kind has too few images the others fill up.
    """
    truth = predictions["label"].to_numpy(dtype=np.bool_)
    right = (predictions["probability"].to_numpy() > threshold) == truth
    drawn = draw_evenly([truth & right, truth & ~right, ~truth & right, ~truth & ~right], count, seed)
    return [str(predictions["image_id"].iloc[row]) for rows in drawn for row in rows]


def draw_evenly(kinds: Sequence[NDArray[np.bool_]], count: int, seed: int) -> list[list[int]]:
    """Draw at most `count` rows, as many of each of the kinds (N,) as of any other as far as they go; those of each."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(np.flatnonzero(kind)).tolist() for kind in kinds]
    # The first of every kind come before the second of any: the first `count` of this order are an even draw.
    turns = sorted((turn, kind) for kind, rows in enumerate(drawn) for turn in range(len(rows)))[:count]
    return [rows[: sum(kind == number for _, kind in turns)] for number, rows in enumerate(drawn)]


PAIRS_PER_ROW = 2
# See-through where the score is 0, so that the breast is seen: benign evidence blue, malignant evidence orange.
OVERLAY = LinearSegmentedColormap.from_list(
    "scores",
    [
        (0.0, (*to_rgb(SKY), 0.85)),
        (0.5, (*to_rgb(SKY), 0.0)),
        (0.5, (*to_rgb(ORANGE), 0.0)),
        (1.0, (*to_rgb(ORANGE), 0.85)),
    ],
)


@dataclass(frozen=True)
class SheetItem:
    """One image of a sheet; nothing in it names a patient.

    `image` (H, W) in [0, 1]; `score_map` (h, w) raw scores, `maxima` and `minima` (h, w) bool; `mask` (H, W) bool, the
    true lesions, or None; `label` 0 or 1; `probability` in [0, 1].
    """

    image: NDArray[Any]
    score_map: NDArray[Any]
    maxima: NDArray[Any]
    minima: NDArray[Any]
    mask: NDArray[Any] | None
    label: int
    probability: float

    def is_sound(self) -> bool:
        """Whether it can be drawn: shapes that fit, and finite scores."""
        cells, whole = self.score_map.shape, self.image.shape
        fits = (
            len(cells) == len(whole) == 2
            and self.score_map.size > 0
            and self.maxima.shape == self.minima.shape == cells
        )
        return fits and (self.mask is None or self.mask.shape == whole) and bool(np.isfinite(self.score_map).all())


def image_sheet(items: Sequence[SheetItem], path: Path) -> Path:
    """Draw every item as a pair: the image with its true lesions, and the image under its score map with the extrema.

    One colour scale, symmetric about 0, holds for all items: a healthy image does not glow.
    """
    largest = max(float(np.abs(item.score_map).max()) for item in items)
    scale = Normalize(-largest or -1.0, largest or 1.0)
    columns = min(PAIRS_PER_ROW, len(items))
    rows = -(-len(items) // columns)
    figure = new_figure(4.8 * columns + 1.0, max(3.0, rows * (2.2 * _tallest(items) + 0.45)) + 0.3)
    grid = figure.subplots(rows, 3 * columns, squeeze=False, width_ratios=(1, 1, 0.06) * columns)  # a gap behind each
    for axes in grid.flat:
        bare(axes)
    pairs = grid.reshape(-1, 3)
    for item, pair in zip(items, pairs, strict=False):
        draw_truth(pair[0], item)
        colours = draw_scores(pair[1], item, scale)
    marks = [
        Line2D([], [], color=ORANGE, marker="^", markeredgecolor="black", linestyle="none", label="maximum"),
        Line2D([], [], color=SKY, marker="v", markeredgecolor="black", linestyle="none", label="minimum"),
    ]
    if any(item.mask is not None and item.mask.any() for item in items):
        marks.insert(0, Line2D([], [], color=GREEN, linewidth=1.6, label="true lesion"))
    bar = figure.colorbar(colours, ax=pairs, shrink=0.7, aspect=25, pad=0.02)
    bar.ax.set_facecolor("black")  # as the tissue below is dark
    bar.set_label("score (above 0: malignant)")
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return save(figure, path)


def _tallest(items: "Sequence[SheetItem | Thumbnail]") -> float:
    """Height over width of the images, up to which they get room."""
    return min(3.0, max(float(item.image.shape[0] / item.image.shape[1]) for item in items))


def cell_centres(cells: NDArray[Any], shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y (K,) in px of the true cells (h, w) of a map that covers an image (H, W)."""
    rows, columns = np.nonzero(cells)
    return (columns + 0.5) * shape[1] / cells.shape[1] - 0.5, (rows + 0.5) * shape[0] / cells.shape[0] - 0.5


def draw_truth(axes: Axes, item: SheetItem) -> None:
    """Draw the image with its true lesions, under the name of its class."""
    _draw_outlined(axes, item.image, item.mask, linewidth=1.6)
    bare(axes, CLASS_NAMES[item.label], fontsize=11)


def _draw_outlined(axes: Axes, image: NDArray[Any], mask: NDArray[Any] | None, linewidth: float) -> None:
    """Draw an image (H, W) and around its lesions, mask (H, W), a line."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    for outline in outlines(mask):
        axes.plot(*outline.T, scalex=False, scaley=False, color=GREEN, linewidth=linewidth)


def draw_scores(axes: Axes, item: SheetItem, scale: Normalize) -> AxesImage:
    """Draw the image under its score map with the extrema, under its probability."""
    _draw_outlined(axes, item.image, None, 0)
    height, width = item.image.shape
    colours = axes.imshow(
        item.score_map,
        cmap=OVERLAY,
        norm=scale,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )
    for cells, marker, colour in ((item.maxima, "^", ORANGE), (item.minima, "v", SKY)):
        x, y = cell_centres(cells, (height, width))
        axes.scatter(x, y, s=40, marker=marker, color=colour, edgecolors="black", linewidths=0.7)
    bare(axes, f"p = {item.probability:.2f}", fontsize=11)
    return colours


PER_ROW = 6
INCHES = 1.9  # width of a thumbnail


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """One image of the sheet; nothing in it names a patient.

    `image` (H, W) in [0, 1]; `lesions` bool (H, W), None where unknown; `label` 0 or 1; `split` may be empty; `types`
    are those of the lesions.
    """

    image: NDArray[Any]
    lesions: NDArray[Any] | None
    label: int
    split: str = ""
    types: tuple[str, ...] = ()

    def caption(self) -> str:
        """Say label and split, and below what is known of the lesions."""
        first = ", ".join(filter(None, (CLASS_NAMES[self.label], self.split)))
        if self.lesions is None:
            return f"{first}\nlesions unknown"
        named = ", ".join(dict.fromkeys(kind or "lesion" for kind in self.types))
        return f"{first}\n{named or ('lesion' if self.lesions.any() else 'no lesion')}"


def contact_sheet(items: Sequence[Thumbnail], path: Path) -> Path:
    """Draw the thumbnails, six a row, each with its lesions outlined and what is known of it above."""
    columns = min(PER_ROW, len(items))
    rows = -(-len(items) // columns)
    figure = new_figure(max(3.0, INCHES * columns), rows * (INCHES * _tallest(items) + 0.45) + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, item in zip(grid.flat, items, strict=False):
        _draw_outlined(axes, item.image, item.lesions, linewidth=1.4)
        axes.set_title(item.caption(), fontsize=8, parse_math=False)
    if any(item.lesions is not None and item.lesions.any() for item in items):
        outline = Line2D([], [], color=GREEN, linewidth=1.6, label="annotated lesion")
        figure.legend(handles=[outline], loc="outside lower center", frameon=False)
    return save(figure, path)

"""Sheets of images: examples of a test beside their score maps, and the contact sheet of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.classification import check_scored, predicted_malignant
from lemlight.plots.style import CLASS_NAMES, GREEN, ORANGE, SKY, bare, new_figure, save


def choose_examples(predictions: pd.DataFrame, count: int, seed: int, threshold: float = 0.5) -> list[str]:
    """Return at most count image_ids drawn evenly from malignant and benign images, predicted right and wrong.

    They come in that order: malignant right, malignant wrong, benign right, benign wrong; within each at random from
    the seed. Where a kind has too few images the others fill up.
    """
    if count < 1:
        raise LemlightError(f"a sheet needs at least one image, got {count}")
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    right = predicted_malignant(probability, threshold) == truth
    generator = np.random.default_rng(seed)
    kinds = [
        generator.permutation(np.flatnonzero(kind))
        for kind in (truth & right, truth & ~right, ~truth & right, ~truth & ~right)
    ]
    # The first of every kind come before the second of any: the first `count` of this order are an even draw.
    even = sorted((turn, kind, row) for kind, rows in enumerate(kinds) for turn, row in enumerate(rows))
    chosen = sorted(even[:count], key=lambda pick: (pick[1], pick[0]))
    return [str(predictions["image_id"].iloc[int(row)]) for _, _, row in chosen]


ITEMS_PER_ROW = 2
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

    def problems(self) -> list[str]:
        """Return what keeps the item from being drawn."""
        found = []
        if self.image.ndim != 2 or self.score_map.ndim != 2:
            found.append(f"image {self.image.shape} and score map {self.score_map.shape} must be (H, W) and (h, w)")
        elif not np.isfinite(self.score_map).all():
            found.append("the score map has NaN or infinite values")
        if self.maxima.shape != self.score_map.shape or self.minima.shape != self.score_map.shape:
            found.append(f"maxima {self.maxima.shape}, minima {self.minima.shape}, score map {self.score_map.shape}")
        if self.mask is not None and self.mask.shape != self.image.shape:
            found.append(f"mask {self.mask.shape}, image {self.image.shape}")
        return found


def image_sheet(items: Sequence[SheetItem], path: Path) -> Path:
    """Draw every item as a pair: the image with its true lesions, and the image under its score map with the extrema.

    One colour scale, symmetric about 0, holds for all items: a healthy image does not glow.

    Raises:
        LemlightError: no items, or shapes that do not fit.
    """
    if wrong := [f"item {number}: {text}" for number, item in enumerate(items) for text in item.problems()]:
        raise LemlightError("cannot draw the sheet of images: " + "; ".join(wrong))
    if not items:
        raise LemlightError("cannot draw the sheet of images: there are none")
    pairs = min(ITEMS_PER_ROW, len(items))
    rows = -(-len(items) // pairs)
    tallest = max(item.image.shape[0] / item.image.shape[1] for item in items)
    figure = new_figure(4.8 * pairs + 1.0, max(3.0, rows * (2.3 * tallest + 0.35)) + 0.5)
    grid = figure.subplots(rows, 3 * pairs, squeeze=False, width_ratios=(1, 1, 0.06) * pairs)  # a gap parts the pairs
    largest = max(float(np.abs(item.score_map).max()) for item in items)
    scale = Normalize(-largest or -1.0, largest or 1.0)
    for axes in grid.flat:
        bare(axes)
    for item, pair in zip(items, grid.reshape(-1, 3), strict=False):
        draw_truth(pair[0], item)
        colours = draw_scores(pair[1], item, scale)
    _explain(figure, colours, grid, lesions=any(item.mask is not None and item.mask.any() for item in items))
    return save(figure, path)


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
    if mask is not None and mask.any():
        inside = np.pad(mask.astype(float), 1)  # an outline along the border of the image is drawn, too
        across, down = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        axes.contour(across, down, inside, levels=[0.5], colors=[GREEN], linewidths=linewidth)


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


def _explain(figure: Figure, colours: AxesImage, grid: NDArray[Any], lesions: bool) -> None:
    bar = figure.colorbar(colours, ax=grid, shrink=0.7, aspect=20 * len(grid), pad=0.01)
    bar.ax.set_facecolor("black")
    bar.set_label("score (above 0: malignant)")
    outline = Line2D([], [], color=GREEN, linewidth=1.6, label="true lesion")
    marks = [
        *([outline] if lesions else []),
        Line2D([], [], color=ORANGE, marker="^", markeredgecolor="black", linestyle="none", label="maximum"),
        Line2D([], [], color=SKY, marker="v", markeredgecolor="black", linestyle="none", label="minimum"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)


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
    """Draw the thumbnails, six a row, each with its lesions outlined and what is known of it above.

    Raises:
        LemlightError: no items, or shapes that do not fit.
    """
    if not items:
        raise LemlightError("cannot draw the contact sheet: there are no images")
    for number, item in enumerate(items):
        if item.image.ndim != 2 or (item.lesions is not None and item.lesions.shape != item.image.shape):
            shapes = f"image {item.image.shape}, lesions {None if item.lesions is None else item.lesions.shape}"
            raise LemlightError(f"cannot draw the contact sheet: item {number}: {shapes}")
    columns = min(PER_ROW, len(items))
    rows = -(-len(items) // columns)
    tallest = min(3.0, max(item.image.shape[0] / item.image.shape[1] for item in items))
    figure = new_figure(max(3.0, INCHES * columns), rows * (INCHES * tallest + 0.45) + 0.4)
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

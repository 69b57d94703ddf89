"""A mammogram beside itself under its location map, with the regions and, where known, the true lesions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.reporting.figures.overlay_panels import LONGEST, OverlayItem, draw_pair, legend_marks
from lemlight.reporting.figures.style import bare, new_figure, save

__all__ = ["OverlayItem", "overlay_figure", "overlay_sheet"]

DPI = 200
SHORTEST_INCHES = 4.5
NARROWEST_INCHES = 1.5
PAIRS_PER_ROW = 3


def overlay_figure(item: OverlayItem, path: Path) -> Path:
    """Draw one image: as it is with a scale bar, and beside it under its location map with regions and true lesions.

    The colours mean the same in every figure: 0 to 1. A map of zeros is stated in words. Images of more than 1600 px
    are drawn smaller. The same item gives the same bytes.

    Raises:
        LemlightError: shapes that do not fit, or values outside of [0, 1].
    """
    _check([item])
    longest = max(item.image.shape)
    inches = max(SHORTEST_INCHES, min(LONGEST, longest) / DPI) / longest
    height, width = (max(NARROWEST_INCHES, side * inches) for side in item.image.shape)
    figure = new_figure(2 * width + 1.4, height + 1.1)
    figure.set_dpi(DPI)
    axes = figure.subplots(1, 2)
    colours = draw_pair(axes, item)
    figure.suptitle(f"called {item.call}, p = {item.probability:.3f}", fontsize=13, parse_math=False)
    _explain(figure, colours, axes, [item])
    return save(figure, path)


def overlay_sheet(items: Sequence[OverlayItem], path: Path, titles: Sequence[str]) -> Path:
    """Draw several images as pairs, three pairs a row, each under its title (`best, Dice 0.81`, ...).

    Raises:
        LemlightError: no items, not one title for each, or an item that cannot be drawn.
    """
    _check(items)
    if not items or len(items) != len(titles):
        raise LemlightError(f"cannot draw the overlays: {len(items)} images, {len(titles)} titles")
    pairs = min(PAIRS_PER_ROW, len(items))
    rows = -(-len(items) // pairs)
    tallest = min(3.0, max(item.image.shape[0] / item.image.shape[1] for item in items))
    figure = new_figure(4.8 * pairs + 1.0, max(3.0, rows * (2.2 * tallest + 0.45)) + 0.3)
    grid = figure.subplots(rows, 3 * pairs, squeeze=False, width_ratios=(1, 1, 0.06) * pairs)  # a gap parts the pairs
    for axes in grid.flat:
        bare(axes)
    for item, title, pair in zip(items, titles, grid.reshape(-1, 3), strict=False):
        colours = draw_pair(pair, item)
        bare(pair[0], f"{title}\n{item.image_id}".rstrip(), loc="left", fontsize=9)
        bare(pair[1], f"called {item.call}, p = {item.probability:.2f}", loc="left", fontsize=9)
    _explain(figure, colours, grid, items)
    return save(figure, path)


def _check(items: Sequence[OverlayItem]) -> None:
    if wrong := [f"image {item.image_id}: {text}" for item in items for text in item.problems()]:
        raise LemlightError("cannot draw the overlay: " + "; ".join(wrong))


def _explain(figure: Figure, colours: AxesImage, grid: NDArray[Any], items: Sequence[OverlayItem]) -> None:
    bar = figure.colorbar(colours, ax=grid, shrink=0.7, aspect=25, pad=0.02)
    bar.ax.set_facecolor("black")  # as over dark tissue
    bar.set_label("strength of the location map")
    if marks := legend_marks(items):
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)

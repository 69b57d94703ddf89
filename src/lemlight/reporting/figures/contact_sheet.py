"""A contact sheet: thumbnails of a data set with their lesions outlined."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.reporting.figures.style import GREEN, new_figure, save
from lemlight.reporting.names import CLASS_NAMES

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
        _draw(axes, item)
    if any(item.lesions is not None and item.lesions.any() for item in items):
        outline = Line2D([], [], color=GREEN, linewidth=1.6, label="annotated lesion")
        figure.legend(handles=[outline], loc="outside lower center", frameon=False)
    return save(figure, path)


def _draw(axes: Axes, item: Thumbnail) -> None:
    axes.imshow(item.image, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    axes.set_title(item.caption(), fontsize=8, parse_math=False)
    if item.lesions is not None and item.lesions.any():
        inside = np.pad(item.lesions.astype(float), 1)  # an outline along the border of the image is drawn, too
        across, down = np.arange(-1, item.lesions.shape[1] + 1), np.arange(-1, item.lesions.shape[0] + 1)
        axes.contour(across, down, inside, levels=[0.5], colors=[GREEN], linewidths=1.4)

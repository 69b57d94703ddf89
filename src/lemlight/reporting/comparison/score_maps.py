"""The score maps of every method on the same mammograms, as in figure 5 of Zhu et al. 2025."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from lemlight.reporting.comparison.curves_overlaid import Groups
from lemlight.reporting.comparison.examples import FOLDER, Examples, known_examples, read_grey
from lemlight.reporting.figures.sheet import SheetItem, draw_scores, draw_truth
from lemlight.reporting.figures.style import bare, new_figure, save

MOST = 10  # methods in a figure
MOST_BYTES = 2**24  # of score map and extrema, unpacked
Column = dict[str, SheetItem]
"""Method -> one image under its score map."""


def score_map_panels(groups: Groups, path: Path) -> Path | None:
    """Draw a column per image: its true lesions, and below them the score map of every method's first training.

    Every method has a colour scale of its own, symmetric about 0. Methods beyond the tenth are left out. None where no
    training left score maps.
    """
    known, labels = known_examples(groups)
    columns = [_column(image_id, label, known) for image_id, label in labels.items()]
    columns = [column for column in columns if column]
    methods = [method for method in known if any(method in column for column in columns)][:MOST]
    if not methods:
        return None
    tallest = max(item.image.shape[0] / item.image.shape[1] for column in columns for item in column.values())
    figure = new_figure(1.6 * len(columns) + 0.4, (len(methods) + 1) * (1.6 * tallest + 0.3))
    grid = figure.subplots(len(methods) + 1, len(columns), squeeze=False)
    for axes in grid.flat:
        bare(axes)
    for column, axes in zip(columns, grid[0], strict=True):
        draw_truth(axes, next(iter(column.values())))
    for method, panels in zip(methods, grid[1:], strict=True):
        _draw_row([column.get(method) for column in columns], panels)
        panels[0].text(
            -0.06, 0.5, method, transform=panels[0].transAxes, rotation=90, ha="right", va="center", parse_math=False
        )
    return save(figure, path)


def _draw_row(items: Sequence[SheetItem | None], panels: NDArray[np.object_]) -> None:
    largest = max(float(np.abs(item.score_map).max()) for item in items if item is not None)
    scale = Normalize(-largest or -1.0, largest or 1.0)
    for item, axes in zip(items, panels, strict=True):
        if item is not None:
            draw_scores(axes, item, scale)


def _column(image_id: str, label: int, known: Examples) -> Column:
    """What can be drawn of one image; what is missing or damaged is passed over."""
    column: Column = {}
    for method, (folder, listed) in known.items():
        line = dict(listed.loc[image_id])
        image = read_grey(folder / FOLDER / f"{line['number']}_image.png")
        lesions = read_grey(folder / FOLDER / f"{line['number']}_lesions.png")
        maps = _scores(folder / FOLDER / f"{line['number']}_scores.npz")
        if image is None or maps is None:
            continue
        mask = None if lesions is None or lesions.shape != image.shape else lesions > 127
        item = SheetItem(image / 255, *maps, mask, label, float(line["probability"]))
        if maps[0].size and not item.problems():
            column[method] = item
    return column


def _scores(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]] | None:
    try:
        with ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > MOST_BYTES:
                return None
        with np.load(path, allow_pickle=False) as arrays:
            score_map = np.asarray(arrays["score_map"], dtype=np.float32)
            return score_map, np.asarray(arrays["maxima"], dtype=bool), np.asarray(arrays["minima"], dtype=bool)
    except Exception:  # a damaged file makes zipfile, zlib and numpy raise whatever there is
        return None

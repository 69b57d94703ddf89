"""The lesions of an image as one label image of its prepared geometry."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lemlight.data.geometry import BreastGeometry
from lemlight.data.lesions import Lesion
from lemlight.errors import ImageError

HIGHEST = 255  # of uint8: lesions beyond share this number


def label_image(
    lesions: Sequence[Lesion] | None, geometry: BreastGeometry
) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """Draw lesions into the prepared image: labels (H, W), 0 none, k the k-th lesion; and what was odd about them.

    Each is drawn in the original and brought over on its own, so that none vanishes; where they overlap the smaller
    one is seen. None where nothing is known, and where a lesion cannot be drawn: a part would pass for all of them.
    """
    if lesions is None:
        return None, []
    labels = np.zeros(geometry.prepared_shape, dtype=np.uint8)
    sizes = np.zeros(HIGHEST + 1)
    notes = []
    for number, lesion in enumerate(lesions, start=1):
        try:
            rows, columns, note = _prepared(lesion, geometry)
        except ImageError as error:
            return None, [f"lesions left out: {error}"]
        notes += [note] if note else []
        label = min(number, HIGHEST)
        sizes[label] = rows.size
        there = labels[rows, columns]
        seen = (there == 0) | (sizes[there] > rows.size)
        labels[rows[seen], columns[seen]] = label
    if len(lesions) > HIGHEST:
        notes.append(f"{len(lesions)} lesions: those beyond {HIGHEST} share the last number")
    return labels, list(dict.fromkeys(notes))


def _prepared(lesion: Lesion, geometry: BreastGeometry) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
    """Rows and columns of one lesion in the prepared image, and what was odd about it."""
    if lesion.shape == "mask":
        mask, note = lesion.draw_with_note(geometry.original_shape)
        rows, columns = np.nonzero(geometry.mask_to_prepared(mask))
        if not mask.any():
            return rows, columns, note
    else:
        rows, columns, note = lesion.pixels(geometry.original_shape)
        move = _single_pixels if lesion.single_pixels else BreastGeometry.pixels_to_prepared
        rows, columns = move(geometry, rows, columns)
    return rows, columns, note if rows.size else "a lesion lies outside the breast that was cut out"


def _single_pixels(
    geometry: BreastGeometry, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Move each pixel on its own: two neighbours do not become the one px that they cover most."""
    moved = np.round(geometry.points_to_prepared(np.stack([columns, rows], axis=1))).astype(np.intp)
    inside = ((moved >= 0) & (moved < geometry.resized_shape[::-1])).all(axis=1)
    columns, rows = np.unique(moved[inside], axis=0).T
    return rows, columns

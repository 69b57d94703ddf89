"""One annotated lesion, in whatever form a data set gives it, and its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.draw import disk, polygon, polygon_perimeter

from lemlight.data.geometry import BreastGeometry
from lemlight.data.masks import read_mask
from lemlight.errors import ImageError

SHAPES = ("mask", "polygon", "box", "circle", "points")
TYPES = ("mass", "calcification", "distortion", "asymmetry", "other", "")
ASPECT_TOLERANCE = 0.02
HIGHEST = 255  # of uint8: lesions beyond have this number together
FAR = 4  # sides of the image: coordinates farther out than this are a mistake, and drawing them would take forever


@dataclass(frozen=True)
class Lesion:
    """One annotated lesion in px of the original image (x to the right, y down, pixel centres at integers).

    shape: mask (a file), polygon, box, circle, or points (single pixels).
    type: one of TYPES; "" unknown.
    path: of the mask file, absolute.
    points: (x, y) of the polygon's vertices, two opposite corners of the box, the circle's centre, or the pixels.
    radius: of the circle, px.
    """

    shape: str
    type: str = ""
    path: str = ""
    points: tuple[tuple[float, float], ...] = ()
    radius: float = 0.0

    def draw(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Draw the lesion into an image (H, W); raises ImageError as `draw_with_note` does."""
        return self.draw_with_note(shape)[0]

    def draw_with_note(self, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], str]:
        """Draw the lesion into an image (H, W), and say what was odd about it, "" as a rule.

        Raises:
            ImageError: the lesion lies outside the image or has no points; the mask file cannot be read or has another
                aspect than the image (2 % tolerance; one of another size is rescaled, and that is noted).
        """
        if self.shape == "mask":
            return self._from_file(shape)
        rows, columns, note = self.pixels(shape)
        drawn = np.zeros(shape, dtype=bool)
        drawn[rows, columns] = True
        return drawn, note

    def pixels(self, shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
        """Give rows and columns of a lesion that is no mask file, some maybe twice, and a note as `draw_with_note`.

        For hundreds of small lesions: no image is made. Raises ImageError as `draw_with_note` does.
        """
        rows, columns = self._pixels(shape)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        if not inside.any():
            raise ImageError(f"a lesion ({self.shape}) lies outside the image of {shape[0]} x {shape[1]} px")
        note = "" if inside.all() else f"a lesion ({self.shape}) reaches beyond the image"
        return rows[inside], columns[inside], note

    @property
    def single_pixels(self) -> bool:
        """Whether it is nothing but single pixels, as fine calcifications are annotated."""
        return self.shape == "points" or (self.shape == "polygon" and len(self.points) < 3)

    def to_dict(self) -> dict[str, Any]:
        """The lesion as plain JSON values, what is empty left out."""
        values = {"shape": self.shape, "type": self.type, "path": self.path, "radius": self.radius}
        return {name: value for name, value in values.items() if value} | (
            {"points": [list(point) for point in self.points]} if self.points else {}
        )

    def _pixels(self, shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the pixels, some of which may lie outside."""
        if not self.points:
            raise ImageError(f"a lesion ({self.shape}) has no points")
        xy = np.array(self.points, dtype=np.float64)
        if not (np.abs(xy) <= FAR * max(shape)).all() or not 0 <= self.radius <= FAR * max(shape):  # refuses NaN, too
            raise ImageError(f"a lesion ({self.shape}) reaches far outside the image of {shape[0]} x {shape[1]} px")
        x, y = xy[:, 0], xy[:, 1]
        if self.shape == "circle":
            inner = disk((y[0], x[0]), max(self.radius, 0.5))  # type: ignore[no-untyped-call]
            centre = np.round(y[:1]), np.round(x[:1])  # between the pixels a small circle would hold none
            rows, columns = (np.concatenate([a, b]) for a, b in zip(inner, centre, strict=True))
        elif self.shape == "box":
            corners = np.round([y.min(), y.max(), x.min(), x.max()]).astype(np.intp)
            top, bottom, left, right = np.clip(corners, -1, [shape[0], shape[0], shape[1], shape[1]])
            rows, columns = (part.ravel() for part in np.mgrid[top : bottom + 1, left : right + 1])
        elif self.single_pixels:
            rows, columns = np.round(y), np.round(x)
        else:
            filled = polygon(y, x)  # type: ignore[no-untyped-call]
            edge = polygon_perimeter(np.round(y), np.round(x))  # keeps a thin one from vanishing
            rows, columns = (np.concatenate([a, b]) for a, b in zip(filled, edge, strict=True))
        return np.asarray(rows, dtype=np.intp), np.asarray(columns, dtype=np.intp)

    def _from_file(self, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], str]:
        path = Path(self.path)
        mask = read_mask(path)
        if mask.shape == shape:
            return mask, ""
        height, width = shape
        if abs(mask.shape[0] * width / (mask.shape[1] * height) - 1) > ASPECT_TOLERANCE:
            raise ImageError(f"{path.name} has shape {mask.shape}, its image {shape}")
        rescaled = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(rescaled > 0), f"mask {path.name} rescaled from {mask.shape} to {shape}"


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

"""One annotated lesion, in whatever form a data set or an annotation tool gives it, and its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.draw import disk, polygon, polygon_perimeter

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.reading.dicom import read_stored_values
from lemlight.data.reading.io import is_dicom
from lemlight.data.reading.raster import read_labels
from lemlight.errors import ImageError

SHAPES = ("mask", "polygon", "box", "circle", "points")
TYPES = ("mass", "calcification", "distortion", "asymmetry", "other", "")
ASPECT_TOLERANCE = 0.02
HIGHEST = 255  # of uint8: lesions beyond have this number together
MOST_OF_BREAST = 0.5  # more is no lesion but the class of the breast
LEAST_BLANKED = 0.05  # of a lesion: less is its edge
CLASSES = 32  # so many values at most are numbers or colours of classes; more are grey edges
NEARLY_ALL = 0.9  # of the image: no lesion covers that, an inverted mask does
PICTURE = 0.05  # of the image: so much grey is more than the soft edges of lesions
OUTLINE = 1.5  # times the mask, with what it encloses
FAR = 4  # sides of the image: coordinates farther out than this are a mistake, and drawing them would take forever


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a lesion mask (H, W) from any format of `read_image`; True is lesion.

    What is not 0 (black, transparent) is lesion: a few values, or numbers without a gap, are classes. With more of
    them, or after lossy compression, the edges are grey, and lesion is from half of the greatest value on. A DICOM mask
    is taken as stored: a window or MONOCHROME1 would turn labels into brightness. Raises ImageError for a file
    that cannot be read, an empty mask, one that covers nearly everything, a picture, and classes that lossy compression
    has mixed.
    """
    values, lossy = (read_stored_values(path), False) if is_dicom(path) else read_labels(path)
    values = values.max(axis=2) if values.ndim == 3 else values
    present = np.unique(values[values > 0])
    numbered = present.size and present[-1] == present.size
    classes = present.size <= CLASSES or (numbered and values.dtype.kind in "ui" and present.size < 255)
    mask: NDArray[np.bool_] = values > 0
    if lossy or not classes:
        mask = _half(values / max(float(present[-1:].max(initial=0)), 1e-9), path, lossy)
    if not mask.any():
        raise ImageError(f"{path}: a mask without a lesion; write none where there is none")
    cover, border = mask.mean(), np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if cover > NEARLY_ALL or (cover > 0.5 and border.mean() > 0.5):
        raise ImageError(f"{path}: a mask that covers {cover:.0%}: inverted? Lesions are not 0; write none for none")
    return mask


def _half(values: NDArray[np.floating[Any]], path: Path, lossy: bool) -> NDArray[np.bool_]:
    """Where grey values (H, W) of at most 1 are at least half; ImageError where the grey is more than that of edges."""
    grey = [((values > low) & (values < 1 - low)).astype(np.uint8) for low in (0.1, 0.25)]
    areas = [cv2.erode(one, np.ones((7, 7), dtype=np.uint8)).mean() for one in grey]
    if areas[0] > PICTURE or (lossy and areas[1]):
        why = "a picture, or classes after lossy compression? Save the lesions alone as PNG"
        raise ImageError(f"{path}: a mask with grey areas: {why}")
    return np.asarray(values >= 0.5)


@dataclass(frozen=True)
class Lesion:
    """One annotated lesion in px of the original image (x to the right, y down, pixel centres at integers).

    shape: mask (a file), polygon, box, circle, or points (single pixels).
    type: one of TYPES; "" unknown.
    path: of the mask file, absolute.
    points: (x, y) of the polygon's vertices, two opposite corners of the box, the circle's centre, or the pixels.
    radius: of the circle, px.
    size: (H, W) px of the image that the points were taken on, where that is known; a mask file has its own.
    id: what the lesion is called in every view of its breast, "" where the data do not tell.
    """

    shape: str
    type: str = ""
    path: str = ""
    points: tuple[tuple[float, float], ...] = ()
    radius: float = 0.0
    size: tuple[int, int] | None = None
    id: str = ""

    def draw(self, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], str]:
        """Draw the lesion into an image (H, W), and say what was odd about it, "" as a rule.

        A lesion of an image of another size is scaled where the aspects agree within 2 %, and that is noted. Raises
        ImageError where they do not, where it lies outside the image or has no points, and for a mask file that
        cannot be read, is empty or covers nearly everything.
        """
        if self.shape == "mask":
            return self._from_file(shape)
        rows, columns, note = self.pixels(shape)
        drawn = np.zeros(shape, dtype=bool)
        drawn[rows, columns] = True
        return drawn, note

    def pixels(self, shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
        """Give rows and columns of a lesion that is no mask file, some maybe twice, and a note as `draw`.

        For hundreds of small lesions: no image is made. Raises ImageError as `draw` does.
        """
        fitted, note = self._fitted(shape)
        rows, columns = fitted._pixels(shape)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        if not inside.any():
            raise ImageError(f"a lesion ({self.shape}) lies outside the image of {shape[0]} x {shape[1]} px")
        notes = [note, "" if inside.all() else f"a lesion ({self.shape}) reaches beyond the image"]
        return rows[inside], columns[inside], "; ".join(filter(None, notes))

    @property
    def single_pixels(self) -> bool:
        """Whether it is nothing but single pixels, as fine calcifications are annotated."""
        return self.shape == "points" or (self.shape == "polygon" and len(self.points) < 3)

    def to_dict(self) -> dict[str, Any]:
        """The lesion as plain JSON values, what is empty left out."""
        values = {"shape": self.shape, "type": self.type, "path": self.path, "radius": self.radius}
        values |= {"points": [list(point) for point in self.points], "size": list(self.size or ()), "id": self.id}
        return {name: value for name, value in values.items() if value}

    def _fitted(self, shape: tuple[int, int]) -> tuple[Lesion, str]:
        """The lesion scaled to an image (H, W), by pixel edges; and that it was."""
        if self.size is None or self.size == shape:
            return self, ""
        down, across = _scale(self.size, shape, f"the image that a lesion ({self.shape}) was drawn on")
        points = tuple(((x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5) for x, y in self.points)
        note = f"lesions rescaled from an image of {self.size} to {shape}"
        return replace(self, points=points, radius=self.radius * (down + across) / 2, size=shape), note

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
        contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = cv2.drawContours(np.zeros(mask.shape, dtype=np.uint8), contours, -1, 1, thickness=cv2.FILLED)
        note = f"mask {path.name} is an outline, not filled?" if filled.sum() > OUTLINE * mask.sum() else ""
        notes = [self._size_note(mask.shape, shape), note]
        if mask.shape != shape:
            mask = cv2.resize(mask.view(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        return mask, "; ".join(filter(None, notes))

    def _size_note(self, size: tuple[int, ...], shape: tuple[int, int]) -> str:
        """Say that a mask file (H, W) is of another size than its image; ImageError where it is of another aspect."""
        name = Path(self.path).name
        if size == shape:
            return ""
        _scale(size, shape, name)
        return f"mask {name} rescaled from {size} to {shape}"


def same_aspect(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes (H, W) have the same aspect, within 2 %."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= ASPECT_TOLERANCE


def _scale(size: tuple[int, ...], shape: tuple[int, int], what: str) -> tuple[float, float]:
    """How many px of an image of `shape` are one of `size`, down and across; ImageError where the aspects differ."""
    if not same_aspect(size, shape):
        raise ImageError(f"{what} has shape {tuple(size)}, its image {shape}")
    return shape[0] / size[0], shape[1] / size[1]


def label_image(
    lesions: Sequence[Lesion] | None, geometry: BreastGeometry, breast: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """Draw lesions into the prepared image: labels (H, W), 0 none, k the k-th lesion; and what was odd about them.

    Each is drawn in the original and brought over on its own, so that none vanishes; where they overlap the smaller
    one is seen. Of one that does not lie wholly on the `breast` (H, W), what is not blanked, the fraction is noted.
    None where nothing is known, where a lesion cannot be drawn (a part would pass for all of them), and where none of
    them lies on the breast.
    """
    if lesions is None:
        return None, []
    labels = np.zeros(geometry.prepared_shape, dtype=np.uint8)
    sizes = np.zeros(HIGHEST + 1)
    notes, seen_at_all = [], not lesions
    for number, lesion in enumerate(lesions, start=1):
        try:
            rows, columns, note = _prepared(lesion, geometry)
        except ImageError as error:
            return None, [f"lesions left out: {error}"]
        blanked = 1 - breast[rows, columns].mean() if rows.size else 1.0
        notes += [note] if note else []
        if blanked >= LEAST_BLANKED:
            notes.append(f"a lesion lies to {blanked:.0%} outside the breast that was found")
        if rows.size > MOST_OF_BREAST * breast.sum():
            notes.append(f"a lesion covers {rows.size / breast.sum():.0%} of the breast: is the breast itself marked?")
        seen_at_all |= blanked < 1
        label = min(number, HIGHEST)
        sizes[label] = rows.size
        there = labels[rows, columns]
        seen = (there == 0) | (sizes[there] > rows.size)
        labels[rows[seen], columns[seen]] = label
    if len(lesions) > HIGHEST:
        notes.append(f"{len(lesions)} lesions: those beyond {HIGHEST} share the last number")
    notes += [] if seen_at_all else ["lesions left out: none of them lies on the breast that was found"]
    return labels if seen_at_all else None, list(dict.fromkeys(notes))


def size_notes(lesions: Sequence[Lesion], shape: tuple[int, int], masks: Mapping[str, tuple[int, int]]) -> list[str]:
    """Say what is odd about the lesions of an original (H, W) as `label_image` does, as far as sizes tell.

    `masks` are the sizes (H, W) of mask files by path, as far as they are known.
    """
    notes = []
    for lesion in lesions:
        size = masks.get(lesion.path)
        try:
            if lesion.shape != "mask":
                notes.append(lesion.pixels(shape)[2])
            elif size is not None:
                notes.append(lesion._size_note(size, shape))
        except ImageError as error:
            return [f"lesions left out: {error}"]
    return list(filter(None, dict.fromkeys(notes)))


def _prepared(lesion: Lesion, geometry: BreastGeometry) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
    """Rows and columns of one lesion in the prepared image, and what was odd about it."""
    if lesion.shape == "mask":
        mask, note = lesion.draw(geometry.original_shape)
        rows, columns = np.nonzero(geometry.mask_to_prepared(mask))
    else:
        rows, columns, note = lesion.pixels(geometry.original_shape)
        move = _single_pixels if lesion.single_pixels else BreastGeometry.pixels_to_prepared
        rows, columns = move(geometry, rows, columns)
    return rows, columns, note


def _single_pixels(
    geometry: BreastGeometry, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Move each pixel on its own: two neighbours do not become the one px that they cover most."""
    moved = np.round(geometry.points_to_prepared(np.stack([columns, rows], axis=1))).astype(np.intp)
    inside = ((moved >= 0) & (moved < geometry.resized_shape[::-1])).all(axis=1)
    columns, rows = np.unique(moved[inside], axis=0).T
    return rows, columns

"""The way between an original mammogram and its prepared image: turn, flip, crop, scale, pad; and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from lemlight.errors import LemlightError

SMALL = 2**19  # px of the original around a lesion: up to here its own part of the image is faster than the whole


@dataclass(frozen=True)
class BreastGeometry:
    """How one original (H, W) became its prepared image: turned, flipped left-right, cropped to `box`, scaled, padded.

    `turns`: by how many times 90 degrees counterclockwise; what follows is of the turned image. `box` is (y0, x0, y1,
    x1) px of the flipped original, half open. `scale` is (sy, sx) in prepared px per original px; it is snapped to
    whole prepared px, so that points and pixels agree. The padding is at the right and the bottom.
    Points are (x, y) px with pixel centres at integers. Raises LemlightError where the numbers contradict each other.
    """

    original_shape: tuple[int, int]
    flipped: bool
    box: tuple[int, int, int, int]
    scale: tuple[float, float]
    prepared_shape: tuple[int, int]
    turns: int = 0

    def __post_init__(self) -> None:
        y0, x0, y1, x1 = self.box
        height, width = self._upright
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise LemlightError(f"The box {self.box} is not inside an image of {height} x {width} px; prepare again.")
        rows, columns = max(1, round((y1 - y0) * self.scale[0])), max(1, round((x1 - x0) * self.scale[1]))
        if rows > self.prepared_shape[0] or columns > self.prepared_shape[1]:
            raise LemlightError(
                f"The box {self.box} at the scale {self.scale} makes {rows} x {columns} px, which exceeds the "
                f"prepared image of {self.prepared_shape[0]} x {self.prepared_shape[1]} px; prepare again."
            )
        object.__setattr__(self, "scale", (rows / (y1 - y0), columns / (x1 - x0)))

    @classmethod
    def fit(
        cls,
        original_shape: tuple[int, int],
        flipped: bool,
        box: tuple[int, int, int, int],
        prepared_shape: tuple[int, int],
    ) -> BreastGeometry:
        """The geometry that scales `box` as large as fits into `prepared_shape` (H, W), keeping its aspect."""
        y0, x0, y1, x1 = box
        scale = min(prepared_shape[0] / max(1, y1 - y0), prepared_shape[1] / max(1, x1 - x0))
        return cls(original_shape, flipped, box, (scale, scale), prepared_shape)

    def turned(self, turns: int) -> BreastGeometry:
        """The same way for the image that must first be turned to become the original of this one."""
        shape = self.original_shape[::-1] if turns % 2 else self.original_shape
        return replace(self, original_shape=shape, turns=turns)

    @property
    def _upright(self) -> tuple[int, int]:
        height, width = self.original_shape
        return (width, height) if self.turns % 2 else (height, width)

    @property
    def resized_shape(self) -> tuple[int, int]:
        """The (H, W) px that the crop fills in the prepared image; the rest is padding."""
        y0, x0, y1, x1 = self.box
        return round((y1 - y0) * self.scale[0]), round((x1 - x0) * self.scale[1])

    def image_to_prepared(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Flip, crop, scale and pad an original (H, W) to float32 `prepared_shape`."""
        return self._padded(_resize(self._crop(array).astype(np.float32, copy=False), self.resized_shape))

    def mask_to_prepared(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Flip, crop, scale and pad a lesion mask (H, W) to uint8 {0, 1} `prepared_shape`.

        A prepared px is lesion where the lesion covers at least half of it; a lesion (connected covered px) too small
        for that keeps the px that it covers most, so that none vanishes.
        """
        return self._padded(_resize_mask(self._crop(mask) != 0, self.resized_shape)).astype(np.uint8)

    def pixels_to_prepared(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Move a lesion given by its pixels of the original, as `mask_to_prepared` does; a small one costs little."""
        if self.turns:  # rare: not worth a shorter way
            return self._pixels_by_mask(rows, columns)
        y0, x0, y1, x1 = self.box
        first = self.original_shape[1] - x1 if self.flipped else x0  # as in _crop
        inside = (rows >= y0) & (rows < y1) & (columns >= first) & (columns < first + x1 - x0)
        if not inside.any():
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
        down, across = rows[inside] - y0, columns[inside] - first
        if max(self.scale) > 1 or (np.ptp(down) + 1) * (np.ptp(across) + 1) > SMALL:
            return self._pixels_by_mask(rows, columns)
        part = np.zeros((np.ptp(down) + 1, np.ptp(across) + 1))
        part[down - down.min(), across - across.min()] = 1
        top, vertical = _area_weights(down.min(), part.shape[0], self.scale[0])
        left, horizontal = _area_weights(across.min(), part.shape[1], self.scale[1])
        covered_rows, covered_columns = np.nonzero(_covered((vertical @ part @ horizontal.T).astype(np.float32)))
        covered_columns = covered_columns + left
        if self.flipped:
            covered_columns = self.resized_shape[1] - 1 - covered_columns
        return covered_rows + top, covered_columns

    def _pixels_by_mask(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        mask = np.zeros(self.original_shape, dtype=bool)
        mask[rows, columns] = True
        prepared_rows, prepared_columns = np.nonzero(self.mask_to_prepared(mask))
        return prepared_rows, prepared_columns

    def map_to_original(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Bring a map of `prepared_shape` back to float32 (H, W) of the original; 0 outside the crop."""
        return self._uncropped(_resize(self._unpadded(array).astype(np.float32), self._box_shape))

    def mask_to_original(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """Bring a mask of `prepared_shape` back to bool (H, W) of the original; False outside the crop."""
        return self._uncropped(_resize_mask(self._unpadded(mask) != 0, self._box_shape)) > 0

    def points_to_prepared(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Move points (K, 2) from px of the original to px of the prepared image."""
        points = np.array(xy, dtype=np.float64).reshape(-1, 2)
        width = self.original_shape[1]
        for turn in range(self.turns):
            points = np.stack([points[:, 1], width - 1 - points[:, 0]], axis=1)
            width = self.original_shape[turn % 2]
        if self.flipped:
            points[:, 0] = self._upright[1] - 1 - points[:, 0]
        return (points - self._corner + 0.5) * self._scale_xy - 0.5

    def points_to_original(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Move points (K, 2) from px of the prepared image to px of the original."""
        points = (np.array(xy, dtype=np.float64).reshape(-1, 2) + 0.5) / self._scale_xy - 0.5 + self._corner
        height, width = self._upright
        if self.flipped:
            points[:, 0] = width - 1 - points[:, 0]
        for _ in range(self.turns):
            points = np.stack([height - 1 - points[:, 1], points[:, 0]], axis=1)
            height, width = width, height
        return points

    def to_dict(self) -> dict[str, Any]:
        """The geometry as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BreastGeometry:
        """The geometry that `to_dict` wrote."""
        tuples: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**tuples)

    @property
    def _corner(self) -> NDArray[np.float64]:
        return np.array([self.box[1], self.box[0]], dtype=np.float64)

    @property
    def _scale_xy(self) -> NDArray[np.float64]:
        return np.array(self.scale[::-1], dtype=np.float64)

    @property
    def _box_shape(self) -> tuple[int, int]:
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    def _crop(self, array: NDArray[Any]) -> NDArray[Any]:
        _check_shape(array, self.original_shape, "original")
        array = np.rot90(array, self.turns) if self.turns else array
        y0, x0, y1, x1 = self.box
        width = self._upright[1]
        # the box is mirrored rather than the image; the turn itself comes last, on the few prepared px
        return array[y0:y1, width - x1 : width - x0] if self.flipped else array[y0:y1, x0:x1]

    def _uncropped(self, crop: NDArray[Any]) -> NDArray[np.float32]:
        y0, x0, y1, x1 = self.box
        original = np.zeros(self._upright, dtype=np.float32)
        original[y0:y1, x0:x1] = crop
        original = original[:, ::-1] if self.flipped else original
        return np.ascontiguousarray(np.rot90(original, -self.turns))

    def _padded(self, resized: NDArray[Any]) -> NDArray[np.float32]:
        prepared = np.zeros(self.prepared_shape, dtype=np.float32)
        prepared[: resized.shape[0], : resized.shape[1]] = resized[:, ::-1] if self.flipped else resized
        return prepared

    def _unpadded(self, array: NDArray[Any]) -> NDArray[Any]:
        _check_shape(array, self.prepared_shape, "prepared")
        rows, columns = self.resized_shape
        return array[:rows, :columns]


def _check_shape(array: NDArray[Any], shape: tuple[int, int], what: str) -> None:
    if array.shape != tuple(shape):
        raise LemlightError(
            f"An array of shape {array.shape} does not belong to this image: its {what} shape is {tuple(shape)}."
        )


def _resize(array: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    shrinks = shape[0] < array.shape[0] or shape[1] < array.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, shape[::-1], interpolation=method), dtype=np.float32)


def _resize_mask(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Half coverage, and never nothing of a connected part (8 neighbours)."""
    if shape[0] >= mask.shape[0] and shape[1] >= mask.shape[1]:
        enlarged = cv2.resize(
            np.ascontiguousarray(mask, dtype=np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT
        )
        return np.asarray(enlarged, dtype=np.uint8) > 0
    return _covered(_resize(mask.astype(np.float32), shape))


def _area_weights(first: int, count: int, scale: float) -> tuple[int, NDArray[np.float64]]:
    """How much of each of `count` original px from `first` on lies in each prepared px, (prepared, original) <= scale.

    The prepared px start at the number that comes first. As INTER_AREA: up to 0.001 original px count for nothing.
    """
    start, stop = math.floor(first * scale), math.ceil((first + count) * scale)
    edges, original = np.arange(start, stop + 1)[:, None] / scale, np.arange(first, first + count)
    overlap = np.minimum(edges[1:], original + 1) - np.maximum(edges[:-1], original)
    return start, np.where(overlap > 1e-3, overlap, 0) * scale


def _covered(coverage: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the coverage is at least a half, or the highest of a connected part that reaches no half."""
    count, labels = cv2.connectedComponents((coverage > 0).astype(np.uint8), connectivity=8)
    highest = np.asarray(ndimage.maximum(coverage, labels, index=np.arange(count)), dtype=np.float32)
    # 1e-5: the sums of INTER_AREA are float32
    return np.asarray((labels > 0) & (coverage >= np.minimum(0.5, highest[labels]) - 1e-5), dtype=np.bool_)

"""A square window around a point, in which lesions and distractors are drawn."""

from dataclasses import dataclass

import numpy as np

from lemlight.data.phantom.anatomy import Grid
from lemlight.data.phantom.texture import Array


@dataclass(frozen=True)
class Patch:
    """The part of a grid around a centre: where it lies, and polar coordinates (h, w) in mm and radians."""

    where: tuple[slice, slice]
    dx: Array
    dy: Array

    @property
    def radius(self) -> Array:
        """(h, w) distance from the centre in mm."""
        return np.hypot(self.dx, self.dy)

    @property
    def angle(self) -> Array:
        """(h, w) direction from the centre in radians."""
        return np.arctan2(self.dy, self.dx)


def cut_patch(grid: Grid, centre: tuple[float, float], half_side: float) -> Patch:
    """The window of `half_side` mm around `centre` (x, y) in mm, cut off at the edges of the image."""
    columns = np.flatnonzero(np.abs(grid.x[0] - centre[0]) <= half_side)
    rows = np.flatnonzero(np.abs(grid.y[:, 0] - centre[1]) <= half_side)
    where = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    dx, dy = np.broadcast_arrays(grid.x[:, where[1]] - centre[0], grid.y[where[0]] - centre[1])
    return Patch(where, np.asarray(dx, dtype=np.float32), np.asarray(dy, dtype=np.float32))


def contour(rng: np.random.Generator, angle: Array, harmonics: range, roughness: float) -> Array:
    """A closed curve r(angle) around 1: an ellipse-like body with `roughness` as the deviation of its harmonics."""
    wave = np.zeros_like(angle)
    for k in harmonics:
        wave += np.float32(rng.normal() / np.sqrt(len(harmonics))) * np.cos(k * angle + np.float32(rng.uniform(0, 7)))
    return np.asarray(1 + np.float32(roughness) * np.clip(wave, -2, 2), dtype=np.float32)

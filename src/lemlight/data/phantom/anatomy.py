"""The shape of one breast in one view: grid, outline, distance to the skin, nipple, pectoral muscle.

Everything is drawn with the chest wall on the left; `render.py` mirrors the right breast at the end.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lemlight.data.phantom.patient import Patient
from lemlight.data.phantom.texture import Array, enlarge

FIELD_MM = 246.0  # height of the imaged field
NO_MUSCLE = np.float32(-1000.0)  # mm from a muscle that is not in the image


@dataclass(frozen=True)
class Grid:
    """Pixel centres in mm: x (1, W) from the chest wall, y (H, 1) from the top."""

    shape: tuple[int, int]
    extent: tuple[float, float]  # height, width in mm

    @property
    def x(self) -> Array:
        """(1, W) mm."""
        return _centres(self.shape[1], self.extent[1])[None, :]

    @property
    def y(self) -> Array:
        """(H, 1) mm."""
        return _centres(self.shape[0], self.extent[0])[:, None]

    @property
    def spacing(self) -> float:
        """Row spacing in mm per px."""
        return self.extent[0] / self.shape[0]

    def coarse(self, factor: int) -> "Grid":
        """A grid of about 1 / factor of the rows and columns over the same extent."""
        return Grid((-(-self.shape[0] // factor), -(-self.shape[1] // factor)), self.extent)


def _centres(count: int, extent: float) -> Array:
    return np.asarray((np.arange(count) + 0.5) * (extent / count), dtype=np.float32)


@dataclass(frozen=True)
class Anatomy:
    """One breast in one view, on a grid that ends a little beyond the nipple: air costs no time.

    skin: (H, W) distance to the skin in mm, positive inside; muscle: (H, W) distance to the edge of the pectoral
    muscle in mm, positive inside it; nipple: (x, y) in mm.
    """

    grid: Grid
    skin: Array
    muscle: Array
    nipple: tuple[float, float]

    @property
    def interior(self) -> Array:
        """(H, W) distance in mm to the skin or the muscle, whichever is nearer; positive in the breast proper."""
        return np.minimum(self.skin, -self.muscle)


def draw_anatomy(rng: np.random.Generator, patient: Patient, view: str) -> Anatomy:
    """Draw the outline of a breast and, in MLO, the pectoral muscle."""
    rows, columns = patient.device.shape
    spacing = FIELD_MM / rows
    edge_y = np.linspace(-20, FIELD_MM + 20, 800)
    edge_x, nipple = _outline(rng, patient, view, edge_y)
    columns = min(columns, math.ceil((edge_x.max() + 5) / spacing))
    grid = Grid((rows, columns), (FIELD_MM, columns * spacing))
    skin = enlarge(_signed_distance(edge_x, edge_y, grid.coarse(max(rows // 128, 1))), grid.shape)
    muscle = _muscle(rng, patient, nipple, grid) if view == "MLO" else np.full(grid.shape, NO_MUSCLE)
    return Anatomy(grid, skin, muscle, nipple)


def _outline(
    rng: np.random.Generator, patient: Patient, view: str, y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The skin as x(y) in mm, negative where there is no breast, and the nipple."""
    depth, half = patient.depth * rng.uniform(0.95, 1.04), patient.half_height
    below = half * rng.uniform(0.92, 1.02)
    if view == "CC":
        nipple_y = FIELD_MM / 2 + rng.uniform(-10, 10)
        upper = _half_dome((nipple_y - y) / half, depth, rng.uniform(2.0, 2.5))
    else:
        nipple_y = FIELD_MM * rng.uniform(0.56, 0.62)
        shoulder = depth * rng.uniform(0.42, 0.62)  # the skin at the upper edge of the image, towards the armpit
        upper = shoulder + (depth - shoulder) * (1 - np.clip((nipple_y - y) / nipple_y, 0, 2) ** rng.uniform(1.5, 2.1))
        below *= 0.9
    lower = _half_dome((y - nipple_y) / below, depth, rng.uniform(2.0, 2.5))
    wobble = sum(rng.normal(0, 0.9 / k) * np.sin(2 * np.pi * (k * y / 130 + rng.random())) for k in (1, 2, 3))
    skin = np.where(y < nipple_y, upper, lower) + np.where(np.where(y < nipple_y, upper, lower) > 15, wobble, 0)
    height = rng.uniform(4, 8) * (rng.random() < 0.8)  # one nipple in five is not in profile
    skin = skin + height * np.exp(-(np.abs((y - nipple_y) / rng.uniform(4.5, 6)) ** 3))
    return skin, (float(depth), float(nipple_y))


def _half_dome(share: NDArray[np.float64], depth: float, power: float) -> NDArray[np.float64]:
    """Half of a superellipse: x from `depth` at share 0 to 0 at share 1, falling on below 0 beyond."""
    inside = np.clip(share, 0, 1)
    dome = depth * (1 - inside**power) ** (1 / 2.0)
    return np.asarray(dome - 200 * np.clip(share - 1, 0, None))


def _signed_distance(edge_x: NDArray[np.float64], edge_y: NDArray[np.float64], grid: Grid) -> Array:
    """Distance (H, W) in mm to the curve x(y), positive on the side of the chest wall."""
    t = np.linspace(0, 1, 6)[:-1, None]  # points between the points: the curve runs almost along x at its ends
    x = (edge_x[:-1] + t * np.diff(edge_x)).ravel()
    y = (edge_y[:-1] + t * np.diff(edge_y)).ravel()
    points = np.stack(np.broadcast_arrays(grid.x, grid.y), axis=-1).reshape(-1, 2)
    distance = cKDTree(np.stack([x, y], axis=1)).query(points)[0].reshape(grid.shape)
    inside = grid.x < np.interp(grid.y, edge_y, edge_x)
    return np.asarray(np.where(inside, distance, -distance), dtype=np.float32)


def _muscle(rng: np.random.Generator, patient: Patient, nipple: tuple[float, float], grid: Grid) -> Array:
    """Signed distance (H, W) in mm to the edge of a slightly curved triangle in the upper corner."""
    across = patient.depth * rng.uniform(0.38, 0.55)
    down = nipple[1] * rng.uniform(0.7, 1.05)
    length = across * down / np.hypot(across, down)
    along = np.clip(grid.y / np.float32(down), 0, 1)
    bulge = np.float32(rng.uniform(-3, 5)) * np.sin(np.pi * along)
    straight = (1 - grid.x / np.float32(across) - grid.y / np.float32(down)) * np.float32(length)
    return np.asarray(straight + bulge, dtype=np.float32)

"""The breast without findings: power-law noise, its outline and muscle in mm, and the tissue inside."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from lemlight.data.phantom.patients import Patient

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
FIELD_MM = 246.0  # height of the imaged field
WANDER = 0.05  # of ducts and vessels, radians per mm
NO_MUSCLE = np.float32(-1000.0)  # mm from a muscle that is not in the image


@lru_cache(maxsize=32)
def _power_law_filter(height: int, width: int, beta: float) -> Array:
    """Amplitudes of a 1/f^beta power spectrum, in the half plane of `rfft2`; no mean."""
    rows = fft.fftfreq(height)[:, None] * height
    columns = fft.rfftfreq(width)[None, :] * width
    frequency = np.hypot(rows / height, columns / width)
    frequency[0, 0] = np.inf
    return np.asarray(frequency ** (-beta / 2), dtype=np.float32)


def power_law_noise(rng: np.random.Generator, shape: tuple[int, int], beta: float) -> Array:
    """Gaussian noise (H, W) with power 1/f^beta, mean 0 and standard deviation 1; beta is about 3 in mammograms."""
    height, width = (fft.next_fast_len(side, real=True) for side in shape)
    spectrum = fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    noise = fft.irfft2(spectrum * _power_law_filter(height, width, beta), s=(height, width))[: shape[0], : shape[1]]
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def streaming_noise(rng: np.random.Generator, radius: Array, angle: Array, cell_mm: float, beta: float) -> Array:
    """Noise (H, W) of mean 0 and deviation 1 in streaks of `cell_mm` along the rays of a centre."""
    polar = power_law_noise(rng, (64, 512), beta)
    where = [radius / cell_mm, angle * (512 / (2 * np.pi))]
    noise = ndimage.map_coordinates(polar, where, order=1, mode="grid-wrap", output=np.float32)
    return np.asarray(noise, dtype=np.float32)


def ridges(noise: Array, sharpness: float) -> Array:
    """Thin bright lines in [0, 1] along the zero crossings of a noise: the look of fibrous tissue."""
    return np.asarray(np.exp(-np.abs(noise) * sharpness), dtype=np.float32)


def enlarge(field: Array, shape: tuple[int, int]) -> Array:
    """A smooth field brought to a finer grid (H, W) of the same extent, bicubic."""
    height, width = shape
    return np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def smoothstep(value: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


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


def _half_dome(way: NDArray[np.float64], depth: float, power: float) -> NDArray[np.float64]:
    """Half of a superellipse: x from `depth` at 0 of the way to 0 at 1, falling on below 0 beyond."""
    dome = depth * (1 - np.clip(way, 0, 1) ** power) ** (1 / 2.0)
    return np.asarray(dome - 200 * np.clip(way - 1, 0, None))


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


def draw_tissue(rng: np.random.Generator, anatomy: Anatomy, patient: Patient) -> Array:
    """Draw the tissue of one breast at full thickness, (H, W) in about [0, 1]; the air is not yet dark."""
    shape = anatomy.grid.shape
    dense_coarse, streaks_coarse = _parenchyma(rng, anatomy, patient)
    dense, streaks = enlarge(dense_coarse, shape), enlarge(streaks_coarse, shape)
    fine = power_law_noise(rng, shape, 2.8)
    fibres = ridges(power_law_noise(rng, shape, 3.0), 4.0)
    glandular = 0.25 * dense * (1 + 0.22 * fine + 0.35 * streaks)
    brightness = 0.235 + 0.032 * fine + glandular + 0.045 * fibres * (0.6 + 0.6 * dense)
    brightness += 0.09 * _lines(rng, anatomy)
    muscle = smoothstep(anatomy.muscle / 5.0 + 0.5 + 0.15 * streaks)
    striation = 0.025 * fine + 0.03 * fibres
    brightness += muscle * (np.float32(rng.uniform(0.44, 0.58)) + striation - brightness)
    return np.asarray(brightness, dtype=np.float32)


def _parenchyma(rng: np.random.Generator, anatomy: Anatomy, patient: Patient) -> tuple[Array, Array]:
    """Fraction of dense tissue in [0, 1] and fibrous streaks in [-1, 1], on a coarse grid: a fan behind the nipple."""
    grid = anatomy.grid.coarse(3)
    skin = anatomy.skin[::3, ::3][: grid.shape[0], : grid.shape[1]]
    dx, dy = anatomy.nipple[0] - grid.x, grid.y - anatomy.nipple[1]
    tilt = np.float32(rng.uniform(-0.15, 0.05) if anatomy.muscle.max() < 0 else rng.uniform(-0.5, -0.25))
    behind, beside = dx * np.cos(tilt) + dy * np.sin(tilt), dy * np.cos(tilt) - dx * np.sin(tilt)
    radius = np.hypot(dx, dy)
    bend = power_law_noise(rng, grid.shape, 3.4)  # fibres run towards the nipple, but not as straight as rays
    angle = np.arctan2(dy, dx) + 0.22 * bend * smoothstep(radius / 60)
    reach = patient.depth * (0.6 + 0.3 * patient.density)
    width = 12 + behind.clip(0) * (0.35 + 0.35 * patient.density)
    fan = 1.0 - (beside / width) ** 2 - (np.maximum(behind - 0.75 * reach, 0) / (0.35 * reach)) ** 2
    fan = np.maximum(fan, -2) - 1.5 * np.exp(-skin / 4.0)
    streaks = streaming_noise(rng, radius, angle, 6.0, 2.0)
    clouds = power_law_noise(rng, grid.shape, 3.0)
    level = fan + 0.85 * clouds + 0.3 * streaks + 1.8 * (patient.density - 0.5)
    dense = 1 / (1 + np.exp(-2.4 * level.clip(-10)))
    fibrous = (1.6 * ridges(streaming_noise(rng, radius, angle, 12.0, 2.4), 3.0) - 0.5) * smoothstep(radius / 40)
    return np.asarray(dense, dtype=np.float32), np.asarray(fibrous, dtype=np.float32)


def _lines(rng: np.random.Generator, anatomy: Anatomy) -> Array:
    """Ducts that fan out from the nipple and winding vessels, (H, W) in about [0, 1]."""
    canvas = np.zeros(anatomy.grid.shape, dtype=np.float32)
    thin, wide = canvas.copy(), canvas
    x, y = anatomy.nipple
    for _ in range(int(rng.integers(10, 18))):
        _walk(rng, thin, anatomy, (x - 4, y), np.pi + rng.uniform(-0.9, 0.9), rng.uniform(25, 70))
    for _ in range(int(rng.integers(3, 7))):
        start = (rng.uniform(0.1, 0.9) * x, y + rng.uniform(-0.7, 0.7) * 80)
        _walk(rng, wide, anatomy, start, rng.uniform(0, 2 * np.pi), rng.uniform(60, 150))
    pixel = anatomy.grid.spacing
    thin = ndimage.gaussian_filter(thin, 0.25 / pixel) * np.float32(0.25 / pixel * 2.5)
    wide = ndimage.gaussian_filter(wide, 0.7 / pixel) * np.float32(0.7 / pixel * 2.5)
    return np.asarray(0.6 * thin + wide, dtype=np.float32)


def _walk(
    rng: np.random.Generator,
    canvas: Array,
    anatomy: Anatomy,
    start: tuple[float, float],
    heading: float,
    length: float,
) -> None:
    """Add a winding line to the canvas: one unit per px of its length, less at its ends; mm and radians."""
    step = anatomy.grid.spacing
    count = int(length / step)
    smooth = ndimage.gaussian_filter1d(rng.normal(0, 1, count), 3 / step) * np.sqrt(3 / step)
    turn = heading + np.cumsum(smooth * WANDER * step)
    x, y = start[0] + np.cumsum(np.cos(turn)) * step, start[1] + np.cumsum(np.sin(turn)) * step
    fade = np.sqrt(np.sin(np.pi * (np.arange(count, dtype=np.float32) + 0.5) / count))
    column, row = np.floor(x / step).astype(int), np.floor(y / step).astype(int)
    kept = (column >= 0) & (row >= 0) & (column < canvas.shape[1]) & (row < canvas.shape[0])
    np.add.at(canvas, (row[kept], column[kept]), fade[kept])

"""Fat, dense tissue, ducts, vessels, ligaments and muscle of one breast as brightness in about [0, 1]."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lemlight.data.phantom.anatomy import Anatomy
from lemlight.data.phantom.patient import Patient
from lemlight.data.phantom.texture import Array, enlarge, power_law_noise, ridges, smoothstep, streaming_noise


@dataclass(frozen=True)
class Tissue:
    """brightness: (H, W) in about [0, 1] of the tissue at full thickness; dense: (H, W) share of dense tissue."""

    brightness: Array
    dense: Array


def draw_tissue(rng: np.random.Generator, anatomy: Anatomy, patient: Patient) -> Tissue:
    """Draw the tissue of one breast; the air is not yet dark."""
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
    return Tissue(np.asarray(brightness, dtype=np.float32), dense * (1 - muscle))


def _parenchyma(rng: np.random.Generator, anatomy: Anatomy, patient: Patient) -> tuple[Array, Array]:
    """Share of dense tissue in [0, 1] and fibrous streaks in [-1, 1], on a coarse grid: a fan behind the nipple."""
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
        _walk(rng, thin, anatomy, (x - 4, y), np.pi + rng.uniform(-0.9, 0.9), rng.uniform(25, 70), 0.05)
    for _ in range(int(rng.integers(3, 7))):
        start = (rng.uniform(0.1, 0.9) * x, y + rng.uniform(-0.7, 0.7) * 80)
        _walk(rng, wide, anatomy, start, rng.uniform(0, 2 * np.pi), rng.uniform(60, 150), 0.05)
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
    wander: float,
) -> None:
    """Add a winding line to the canvas: one unit per px of its length, less at its ends; mm and radians."""
    step = anatomy.grid.spacing
    count = int(length / step)
    smooth = ndimage.gaussian_filter1d(rng.normal(0, 1, count), 3 / step) * np.sqrt(3 / step)
    turn = heading + np.cumsum(smooth * wander * step)
    x, y = start[0] + np.cumsum(np.cos(turn)) * step, start[1] + np.cumsum(np.sin(turn)) * step
    fade = np.sqrt(np.sin(np.pi * (np.arange(count, dtype=np.float32) + 0.5) / count))
    column, row = np.floor(x / step).astype(int), np.floor(y / step).astype(int)
    kept = (column >= 0) & (row >= 0) & (column < canvas.shape[1]) & (row < canvas.shape[0])
    np.add.at(canvas, (row[kept], column[kept]), fade[kept])

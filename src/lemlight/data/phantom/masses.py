"""Masses: spiculated (malignant) and smooth (benign), alike in size and contrast, apart in margin and shape."""

import numpy as np

from lemlight.data.phantom.anatomy import Grid
from lemlight.data.phantom.patches import Patch, contour, cut_patch
from lemlight.data.phantom.texture import Array, Mask, smoothstep

REACH = 2.6  # half side of the window, in radii of the lesion


def _body(patch: Patch, edge: Array, softness: float) -> Array:
    """A dense body (h, w) in [0, 1] with its margin at `edge` mm from the centre, `softness` mm wide."""
    margin = smoothstep((edge - patch.radius) / np.float32(softness) + 0.5)
    thickness = np.sqrt(np.clip(1 - (patch.radius / (1.1 * edge)) ** 2, 0, 1))
    return np.asarray(margin * (0.25 + 0.75 * thickness), dtype=np.float32)


def spiculated_mass(
    rng: np.random.Generator, grid: Grid, centre: tuple[float, float], radius: float, subtlety: float
) -> tuple[Patch, Array, Mask]:
    """An irregular, indistinct body with fine lines radiating from it.

    radius: mm; subtlety: 0 (long, clear spicules) to 1 (short, faint). Returns the window, the added brightness
    (h, w) with a peak near 1 and the lesion mask (h, w).
    """
    patch = cut_patch(grid, centre, REACH * radius)
    edge = 1.1 * radius * contour(rng, patch.angle, range(2, 8), 0.22 - 0.06 * subtlety)
    value = _body(patch, edge, 0.4 * radius)
    spicules = np.zeros_like(value)
    count = int(rng.integers(13, 22))
    turns = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * (2 * np.pi / count)
    for turn in turns:
        length = radius * (2.6 - 0.6 * subtlety) * rng.uniform(0.6, 1.0)
        width = rng.uniform(0.36, 0.5) * (1.3 - 0.3 * subtlety)
        spicules = np.maximum(spicules, _spicule(rng, patch, turn, length, width) * rng.uniform(0.6, 1.0))
    fade = smoothstep(patch.radius / (0.6 * radius) - 0.5)
    value += (1.0 - 0.45 * subtlety) * spicules * fade
    return patch, value, patch.radius < 1.18 * edge


def _spicule(rng: np.random.Generator, patch: Patch, turn: float, length: float, width: float) -> Array:
    """One fine, slightly bent, tapering line (h, w) in [0, 1] from the centre outwards; length and width in mm."""
    along = np.float32(np.cos(turn)) * patch.dx + np.float32(np.sin(turn)) * patch.dy
    across = np.float32(np.cos(turn)) * patch.dy - np.float32(np.sin(turn)) * patch.dx
    share = np.clip(along / np.float32(length), 0, 1)
    bend = np.float32(rng.normal(0, 0.1) * length) * share**2
    taper = np.float32(width) * (1.15 - 0.6 * share)
    line = np.exp(-(((across - bend) / taper) ** 2)) * (1 - share) ** np.float32(0.6)
    return np.asarray(np.where(along > 0, line, 0), dtype=np.float32)


def smooth_mass(
    rng: np.random.Generator, grid: Grid, centre: tuple[float, float], radius: float, subtlety: float
) -> tuple[Patch, Array, Mask]:
    """A round, oval or gently lobulated body with a sharp margin and a thin dark halo; as `spiculated_mass`."""
    patch = cut_patch(grid, centre, REACH * radius)
    stretch, turn = np.float32(rng.uniform(0, 0.2)), np.float32(rng.uniform(0, np.pi))
    oval = 1 + stretch * np.cos(2 * (patch.angle - turn))
    edge = 1.05 * radius * oval * contour(rng, patch.angle, range(3, 5), 0.02 + 0.06 * subtlety)
    value = _body(patch, edge, 0.9 + 0.2 * radius * subtlety)
    halo = np.exp(-(((patch.radius - 1.08 * edge - 0.4) / 0.9) ** 2))
    value -= (0.22 - 0.12 * subtlety) * halo * (patch.radius > edge)
    return patch, np.asarray(value, dtype=np.float32), patch.radius < 1.15 * edge

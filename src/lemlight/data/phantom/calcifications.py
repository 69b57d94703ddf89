"""Calcifications: clusters of fine irregular specks (malignant) and coarse smooth ones (benign), and single ones."""

import numpy as np

from lemlight.data.phantom.anatomy import Grid
from lemlight.data.phantom.patches import Patch, contour, cut_patch
from lemlight.data.phantom.texture import Array, Mask, smoothstep


def _place(rng: np.random.Generator, count: int, radius: float, apart: float) -> list[tuple[float, float]]:
    """Up to `count` random places (x, y) in mm in an ellipse-like region of this radius, at least `apart` mm apart."""
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    places: list[tuple[float, float]] = []
    for _ in range(count * 8):
        r, phi = radius * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        along, across = r * np.cos(phi), flat * r * np.sin(phi)
        x = float(along * np.cos(turn) - across * np.sin(turn))
        y = float(along * np.sin(turn) + across * np.cos(turn))
        if len(places) < count and all(np.hypot(x - a, y - b) >= apart for a, b in places):
            places.append((x, y))
    return places


def _hull(patch: Patch, places: list[tuple[float, float]], margin: float) -> Mask:
    """The region (h, w) within `margin` mm of a calcification or between neighbours."""
    covered = np.zeros(patch.dx.shape, dtype=bool)
    for x, y in places:
        covered |= np.hypot(patch.dx - x, patch.dy - y) < margin
    return covered


def speck(rng: np.random.Generator, patch: Patch, x: float, y: float, size: float) -> Array:
    """One fine calcification (h, w) in [0, 1]: an elongated spot of `size` mm (its deviation) in any direction."""
    turn, stretch = np.float32(rng.uniform(0, np.pi)), np.float32(rng.uniform(1.0, 1.9))
    dx, dy = patch.dx - np.float32(x), patch.dy - np.float32(y)
    along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    return np.asarray(np.exp(-0.5 * ((along / (size * stretch)) ** 2 + (across / size) ** 2)), dtype=np.float32)


def calcification_cluster(
    rng: np.random.Generator, grid: Grid, centre: tuple[float, float], radius: float, subtlety: float
) -> tuple[Patch, Array, Mask]:
    """A cluster of fine irregular specks of varied brightness; arguments and results as `masses.spiculated_mass`."""
    patch = cut_patch(grid, centre, 2 * radius)
    places = _place(rng, int(rng.integers(16, 28) - 6 * subtlety), 1.05 * radius, 0.9)
    value = 0.10 * np.exp(-0.5 * (patch.radius / (0.8 * radius)) ** 2)
    for x, y in places:
        size = rng.uniform(0.22, 0.40) + 0.04 - 0.08 * subtlety
        value += rng.uniform(1.0, 2.6) * speck(rng, patch, x, y, size)
    return patch, np.asarray(value, dtype=np.float32), _hull(patch, places, 0.55 * radius)


def coarse_calcifications(
    rng: np.random.Generator, grid: Grid, centre: tuple[float, float], radius: float, subtlety: float
) -> tuple[Patch, Array, Mask]:
    """A few large, round, smooth, dense bodies, some with a lucent centre; as `calcification_cluster`."""
    patch = cut_patch(grid, centre, 2 * radius)
    large = 1.0 - 0.35 * subtlety
    places = _place(rng, int(rng.integers(2, 5) + 3 * subtlety), 0.8 * radius, 3.0 * large)
    value = 0.10 * np.exp(-0.5 * (patch.radius / (0.8 * radius)) ** 2)
    for x, y in places:
        distance = np.hypot(patch.dx - np.float32(x), patch.dy - np.float32(y))
        angle = np.arctan2(patch.dy - y, patch.dx - x)
        edge = rng.uniform(0.9, 1.6) * large * contour(rng, angle, range(2, 4), 0.08)
        ring = rng.uniform(0.3, 0.6) * (rng.random() < 0.3) * smoothstep(1.2 - 1.6 * distance / edge)
        value += rng.uniform(1.3, 2.0) * smoothstep((edge - distance) / 0.45 + 0.5) * (1 - ring)
    return patch, np.asarray(value, dtype=np.float32), _hull(patch, places, 0.75 * radius)

"""Lesions and what looks like one: each drawn in a square window around a point, in mm."""

from dataclasses import dataclass

import numpy as np

from lemlight.data.phantom.tissue import Anatomy, Array, Grid, Mask, smoothstep

REACH = 2.6  # half side of the window of a mass, in its radii


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
    way = np.clip(along / np.float32(length), 0, 1)
    bend = np.float32(rng.normal(0, 0.1) * length) * way**2
    taper = np.float32(width) * (1.15 - 0.6 * way)
    line = np.exp(-(((across - bend) / taper) ** 2)) * (1 - way) ** np.float32(0.6)
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
    """A cluster of fine irregular specks of varied brightness; arguments and results as `spiculated_mass`."""
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


def pick_place(anatomy: Anatomy, depth: float, lateral: float, margin: float) -> tuple[float, float]:
    """A point (x, y) in mm, `margin` mm from skin and muscle.

    depth: fraction of the way from nipple to chest wall; lateral: in [0, 1], from the upper to the lower end there.
    """
    grid = anatomy.grid
    x = anatomy.nipple[0] * (1 - depth)
    column = min(int(x / grid.spacing), grid.shape[1] - 1)
    room = anatomy.interior[:, column]
    rows = np.flatnonzero(room >= min(margin, float(room.max())))
    return x, float(grid.y[rows[int(lateral * (len(rows) - 1))], 0])


def add_distractors(rng: np.random.Generator, anatomy: Anatomy, brightness: Array) -> None:
    """Add a random choice of distractors to the brightness (H, W), in place."""
    if rng.random() < 0.5:
        _lymph_node(rng, anatomy, brightness)
    for _ in range(int(rng.integers(0, 3))):
        _overlap(rng, anatomy, brightness)
    for _ in range(int(rng.integers(0, 5))):
        _single_speck(rng, anatomy, brightness)
    if rng.random() < 0.25:
        _skin_fold(rng, anatomy, brightness)


def _lymph_node(rng: np.random.Generator, anatomy: Anatomy, brightness: Array) -> None:
    """A small bean with a dark fatty notch, high up and far back."""
    centre = pick_place(anatomy, rng.uniform(0.55, 0.85), rng.uniform(0.0, 0.25), 8)
    radius = rng.uniform(2.5, 4.5)
    patch = cut_patch(anatomy.grid, centre, 3 * radius)
    turn = np.float32(rng.uniform(0, 2 * np.pi))
    edge = radius * (1 + 0.25 * np.cos(2 * (patch.angle - turn)))
    hilum = np.hypot(patch.dx - 0.6 * radius * np.cos(turn + 1.5), patch.dy - 0.6 * radius * np.sin(turn + 1.5))
    bean = smoothstep((edge - patch.radius) / 0.9 + 0.5) * (1 - 0.8 * smoothstep(1.6 - 2 * hilum / radius))
    brightness[patch.where] += np.float32(rng.uniform(0.08, 0.16)) * bean


def _overlap(rng: np.random.Generator, anatomy: Anatomy, brightness: Array) -> None:
    """Dense tissue that overlaps by chance: a soft cloud with a few lines that cross it without a common centre."""
    centre = pick_place(anatomy, rng.uniform(0.2, 0.9), rng.uniform(0.05, 0.95), 8)
    radius = rng.uniform(4, 9)
    patch = cut_patch(anatomy.grid, centre, 3 * radius)
    cloud = 0.6 * np.exp(-((patch.radius / (radius * contour(rng, patch.angle, range(2, 6), 0.25))) ** 2))
    for _ in range(int(rng.integers(3, 8))):
        turn, offset = rng.uniform(0, np.pi), rng.uniform(-0.9, 0.9) * radius
        across = np.float32(np.cos(turn)) * patch.dy - np.float32(np.sin(turn)) * patch.dx - np.float32(offset)
        fade = np.exp(-((patch.radius / (1.5 * radius)) ** 2))
        cloud += np.float32(rng.uniform(0.2, 0.5)) * fade * np.exp(-((across / np.float32(0.5)) ** 2))
    brightness[patch.where] += np.float32(rng.uniform(0.06, 0.14)) * cloud


def _single_speck(rng: np.random.Generator, anatomy: Anatomy, brightness: Array) -> None:
    """One calcification on its own, fine or round."""
    centre = pick_place(anatomy, rng.uniform(0.1, 0.9), rng.random(), 5)
    patch = cut_patch(anatomy.grid, centre, 4)
    brightness[patch.where] += np.float32(rng.uniform(0.2, 0.45)) * speck(rng, patch, 0, 0, rng.uniform(0.2, 0.45))


def _skin_fold(rng: np.random.Generator, anatomy: Anatomy, brightness: Array) -> None:
    """A bright, slightly bent line with a sharp edge across a corner of the breast near the chest wall."""
    grid = anatomy.grid
    x, y = pick_place(anatomy, rng.uniform(0.75, 0.95), float(rng.integers(2)), 4)
    turn = np.float32(rng.uniform(-0.5, 0.5))
    along = np.cos(turn) * (grid.x - x) + np.sin(turn) * (grid.y - y)
    across = np.cos(turn) * (grid.y - y) - np.sin(turn) * (grid.x - x)
    across = across + np.float32(rng.uniform(-0.006, 0.006)) * along**2
    line = np.where(across > 0, np.exp(-np.abs(across) / 1.6), np.exp(-((across / 0.4) ** 2)))
    brightness += np.float32(rng.uniform(0.06, 0.12)) * line * np.exp(-((along / rng.uniform(15, 30)) ** 2))

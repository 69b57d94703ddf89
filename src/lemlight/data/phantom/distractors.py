"""What is found in both classes and means nothing: lymph nodes, skin folds, overlapping tissue, single specks."""

import numpy as np

from lemlight.data.phantom.anatomy import Anatomy
from lemlight.data.phantom.calcifications import speck
from lemlight.data.phantom.patches import contour, cut_patch
from lemlight.data.phantom.texture import Array, smoothstep


def pick_place(anatomy: Anatomy, depth: float, lateral: float, margin: float) -> tuple[float, float]:
    """A point (x, y) in mm at a share of the way from nipple to chest wall, `margin` mm from skin and muscle.

    lateral: in [0, 1], from the upper to the lower end of what lies within the margin at this depth.
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
    along, across = (
        np.cos(turn) * (grid.x - x) + np.sin(turn) * (grid.y - y),
        np.cos(turn) * (grid.y - y) - np.sin(turn) * (grid.x - x),
    )
    across = across + np.float32(rng.uniform(-0.006, 0.006)) * along**2
    line = np.where(across > 0, np.exp(-np.abs(across) / 1.6), np.exp(-((across / 0.4) ** 2)))
    brightness += np.float32(rng.uniform(0.06, 0.12)) * line * np.exp(-((along / rng.uniform(15, 30)) ** 2))

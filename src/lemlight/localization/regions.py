"""From a location map to regions: smoothed, cut off, outlined, in pixels of the original mammogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.measure import find_contours

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.localization.choice import RegionSettings
from lemlight.metrics.overlap import cutoffs_by_mass

Point = tuple[float, float]


def smoothed(location_map: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """Smooth a map (H, W) >= 0 with a Gaussian and scale it so that its highest value is 1.

    The image is mirrored at its border (d c b a | a b c d | d c b a), so that what lies at the chest wall loses
    nothing to the outside. The Gaussian ends at 4 sigma. A map of zeros stays one.

    Args:
        location_map: finite, any floating or integer type.
        sigma: standard deviation in px, at least 0; 0 leaves the map as sharp as it is.

    Returns:
        (H, W) float32 in [0, 1].
    """
    sharp = _scaled(np.asarray(location_map))
    if sigma == 0:
        return sharp
    down = _smoothed_down(sharp, sigma)
    return _scaled(np.ascontiguousarray(_smoothed_down(down.T, sigma).T))


BLOCK = 128  # rows at a time: as many again are read around them, but not all


def _smoothed_down(array: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth along the columns; what is 0 further than the Gaussian reaches is left out, which most of a map is."""
    out, reach, filled = np.zeros_like(array), int(4 * sigma + 0.5), np.flatnonzero(array.any(axis=1))
    if not filled.size:
        return out
    first, last, matrix = filled[0], filled[-1] + 1, _gaussian(len(array), sigma)
    columns = np.flatnonzero(array[first:last].any(axis=0))
    part = array[:, columns[0] : columns[-1] + 1]
    for start in range(max(0, first - reach), min(len(array), last + reach), BLOCK):
        here = slice(start, start + BLOCK)
        there = slice(max(first, start - reach), min(last, start + BLOCK + reach))
        out[here, columns[0] : columns[-1] + 1] = matrix[here, there] @ part[there]
    return out


@lru_cache(maxsize=32)
def _gaussian(size: int, sigma: float) -> NDArray[np.float32]:
    """The smoothing of a line of `size` px as a matrix: two products take less time than the filter itself."""
    return np.asarray(ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0), dtype=np.float32)


def _scaled(array: NDArray[Any]) -> NDArray[np.float32]:
    """Divided by its maximum, which thereby is exactly 1; dividing first keeps tiny values from vanishing."""
    highest = array.max(initial=0)
    return (array / highest if highest > 0 else np.zeros_like(array)).astype(np.float32)


def cutoff_in(strength: NDArray[np.float32], settings: RegionSettings) -> float:
    """The cutoff of one map, strength (H, W), as a fraction of its maximum, whatever it is said by."""
    if settings.cutoff_by == "maximum":
        return settings.cutoff
    return float(cutoffs_by_mass(strength, np.array([settings.cutoff]))[0])


@dataclass(frozen=True, eq=False)
class Region:
    """One region of a location map, in px of the original image: x to the right, y down, pixel centres at integers.

    Attributes:
        box: (y0, x0, y1, x1), half open, whole px; it holds at least one px.
        contour: (P, 2) points (x, y), the outer border, closed: the last point repeats the first.
        area_px: px of the original; a fraction where the prepared image was larger than the original.
        area_mm2: None where the spacing is unknown.
        strength: in [0, 1], the highest inside.
        evidence: "malignant" or "benign", what the region speaks for.
        score: in [0, 1], the suspicion of malignancy: the image's probability times the strength. None
            where the region speaks for benign.
        peak: (x, y) of that highest strength.
        extremum: (x, y) of the extremum nearest to the peak; None where there are none.
        mask: (H, W) of the prepared image.
    """

    box: tuple[int, int, int, int]
    contour: NDArray[np.float64]
    area_px: float
    area_mm2: float | None
    strength: float
    evidence: str
    score: float | None
    peak: Point
    extremum: Point | None
    mask: NDArray[np.bool_]


def find_regions(
    strength: NDArray[Any],
    cutoff: float,
    geometry: BreastGeometry,
    *,
    spacing: tuple[float, float] | None,
    probability: float,
    extrema: ArrayLike,
    malignant: ArrayLike,
) -> list[Region]:
    """Find the connected regions (8 neighbours) whose strength reaches `cutoff`.

    Args:
        strength: (H, W) in [0, 1] in the prepared image, as `smoothed` makes it. Its padding is disregarded.
        cutoff: in [0, 1], fraction of the map's highest strength [open]; 0 takes everything above 0.
        geometry: of the prepared image.
        spacing: (row, column) mm per px of the original; None where unknown.
        probability: of malignancy, in [0, 1].
        extrema: (K, 2) points (x, y) px in the prepared image.
        malignant: (K,) bool, whether each of them is a maximum; one value for a map without extrema. A region speaks
            for what the extremum nearest to its peak does.

    Returns:
        The regions by falling strength.
    """
    height, width = geometry.resized_shape
    inside = strength[:height, :width]
    labels, _ = ndimage.label((inside > 0) & (inside >= cutoff), structure=np.ones((3, 3)))
    points = geometry.points_to_original(extrema)
    kinds = np.broadcast_to(np.asarray(malignant, dtype=np.bool_), max(1, len(points)))

    padding = [(0, full - length) for full, length in zip(geometry.prepared_shape, inside.shape, strict=True)]

    def region(number: int, window: tuple[slice, slice]) -> Region:
        whole, (rows, columns) = labels == number, window
        highest = np.where(whole[window], inside[window], -1)
        y, x = np.unravel_index(highest.argmax(), highest.shape)
        peak = geometry.points_to_original([columns.start + x, rows.start + y])[0]
        area = float(whole.sum()) / (geometry.scale[0] * geometry.scale[1])
        nearest = np.linalg.norm(points - peak, axis=1).argmin() if len(points) else 0
        return Region(
            box=_box(geometry, (rows.start, columns.start, rows.stop, columns.stop)),
            contour=geometry.points_to_original(_outline(whole[window]) + np.array([columns.start, rows.start])),
            area_px=area,
            area_mm2=None if spacing is None else area * spacing[0] * spacing[1],
            strength=float(highest.max()),
            evidence="malignant" if kinds[nearest] else "benign",
            score=float(probability) * float(highest.max()) if kinds[nearest] else None,
            peak=tuple(peak.tolist()),
            extremum=tuple(points[nearest].tolist()) if len(points) else None,
            mask=np.pad(whole, padding),
        )

    found = [region(number, window) for number, window in enumerate(ndimage.find_objects(labels), start=1)]
    return sorted(found, key=lambda one: -one.strength)


def regions_to_rows(regions: Sequence[Region]) -> list[dict[str, Any]]:
    """The regions as plain JSON values, one dict each: columns of a CSV file, None where there is no value.

    Coordinates are px of the original, rounded to 0.01; the contour is a list of [x, y].
    """
    return [
        {
            "region": number,
            "evidence": region.evidence,
            "score": region.score,
            **dict(zip(("y0", "x0", "y1", "x1"), region.box, strict=True)),
            "area_px": round(region.area_px, 2),
            "area_mm2": None if region.area_mm2 is None else round(region.area_mm2, 4),
            "peak_x": round(region.peak[0], 2),
            "peak_y": round(region.peak[1], 2),
            "extremum_x": None if region.extremum is None else round(region.extremum[0], 2),
            "extremum_y": None if region.extremum is None else round(region.extremum[1], 2),
            "contour": region.contour.round(2).tolist(),
        }
        for number, region in enumerate(regions, start=1)
    ]


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The outer border (P, 2) xy of a connected mask, closed; it runs half way between the px inside and outside."""
    filled = np.pad(ndimage.binary_fill_holes(mask), 1)
    # "high" joins diagonal neighbours, as the regions do: one border
    (outline,) = find_contours(filled, 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
    return np.asarray(outline[:, ::-1] - 1, dtype=np.float64)


def _box(geometry: BreastGeometry, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A box (y0, x0, y1, x1) of the prepared image as the px of the original whose centres it holds."""
    y0, x0, y1, x1 = box
    corners = geometry.points_to_original([[x0 - 0.5, y0 - 0.5], [x1 - 0.5, y1 - 0.5]])
    (left, right), (top, bottom) = np.sort(corners.T, axis=1)
    height, width = geometry.original_shape
    rows, columns = _whole(top, bottom, height), _whole(left, right, width)
    return rows[0], columns[0], rows[1], columns[1]


def _whole(low: float, high: float, length: int) -> tuple[int, int]:
    """The px [first, last) with their centres between two edges; the one in the middle if there are none."""
    # 1e-6: an edge that runs through a centre comes with a rounding error
    first, last = int(np.ceil(low - 1e-6)), int(np.ceil(high - 1e-6))
    if last <= first:
        first = int(np.clip(round((low + high) / 2), 0, length - 1))
        last = first + 1
    return max(first, 0), min(last, length)

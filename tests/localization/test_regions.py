"""Maps smoothed, and regions drawn by hand and drawn back: flipped, cropped, padded, anisotropic, enlarged, shrunk."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.draw import polygon2mask

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.localization.regions import find_regions, regions_to_rows, smoothed


def as_it_is(height, width):
    return BreastGeometry((height, width), False, (0, 0, height, width), (1.0, 1.0), (height, width))


def regions(strength, cutoff=0.5, geometry=None, spacing=None, probability=1.0, extrema=(), malignant=True):
    strength = np.asarray(strength, dtype=np.float32)
    geometry = geometry or as_it_is(*strength.shape)
    given = {"spacing": spacing, "probability": probability, "extrema": extrema, "malignant": malignant}
    return find_regions(strength, cutoff, geometry, **given)


def drawn(region, shape):
    """The px whose centres the contour holds."""
    return polygon2mask(shape, region.contour[:, ::-1])


@pytest.mark.parametrize("sigma", [0.6, 2.0, 5.0])
def test_smoothing_agrees_with_the_filter_of_scipy(sigma):
    location_map = np.random.default_rng(0).random((9, 13)) ** 4
    given = location_map.copy()
    found = smoothed(location_map, sigma)
    assert found.dtype == np.float32
    assert found.max() == 1.0
    expected = ndimage.gaussian_filter(location_map, sigma)
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-5)
    np.testing.assert_array_equal(location_map, given)


@pytest.mark.parametrize("sigma", [0, 2.5])
def test_zeros_stay_zeros_and_tiny_values_do_not_vanish(sigma):
    np.testing.assert_array_equal(smoothed(np.zeros((4, 6)), sigma), np.zeros((4, 6)))
    location_map = np.random.default_rng(1).random((6, 5))
    np.testing.assert_allclose(smoothed(location_map * 1e-40, sigma), smoothed(location_map, sigma), atol=1e-6)
    np.testing.assert_allclose(smoothed(location_map, 0), location_map / location_map.max(), rtol=1e-6)


def test_a_map_drawn_by_hand():
    strength = np.zeros((6, 8))
    strength[1, 1], strength[2, 2], strength[1, 2] = 0.5, 0.8, 0.6  # diagonal neighbours are one region
    strength[4:6, 5:8] = 0.9
    strength[5, 6] = 1.0
    strength[4, 1] = 0.49
    first, second = regions(strength, spacing=(0.1, 0.2), probability=0.5, extrema=[[0, 0], [7, 5], [3, 1]])
    assert first.box == (4, 5, 6, 8)
    assert first.area_mm2 == pytest.approx(6 * 0.02)
    assert first.score == pytest.approx(0.5)
    assert first.peak == (6.0, 5.0)
    assert first.extremum == (7.0, 5.0)
    assert second.box == (1, 1, 3, 3)
    assert second.area_px == 3
    assert second.score == pytest.approx(0.4)
    assert second.peak == (2.0, 2.0)
    assert second.extremum == (3.0, 1.0)
    np.testing.assert_array_equal(drawn(second, (6, 8)), (strength >= 0.5) & (strength < 0.85))


def test_a_ring_has_its_outer_contour_and_its_own_area():
    strength = np.zeros((9, 10))
    strength[1:8, 1:9] = 1
    strength[3:5, 3:6] = 0
    (region,) = regions(strength)
    assert region.area_px == 7 * 8 - 2 * 3
    assert drawn(region, strength.shape).sum() == 7 * 8


@st.composite
def geometries(draw, factor):
    """Prepared images with `factor` times the px of their crop, another factor along each axis."""
    height, width = draw(st.integers(10, 90)), draw(st.integers(10, 90))
    y0, x0 = draw(st.integers(0, height - 10)), draw(st.integers(0, width - 10))
    box = (y0, x0, draw(st.integers(y0 + 10, height)), draw(st.integers(x0 + 10, width)))
    scale = (draw(factor), draw(factor))
    rows, columns = round((box[2] - y0) * scale[0]), round((box[3] - x0) * scale[1])
    padded = (rows + draw(st.integers(0, 4)), columns + draw(st.integers(0, 4)))
    return BreastGeometry((height, width), draw(st.booleans()), box, scale, padded)


SHRUNK, ENLARGED = geometries(st.floats(0.2, 1.0)), geometries(st.floats(1.0, 2.5))


@settings(deadline=None, max_examples=200)
@given(SHRUNK | ENLARGED, st.data())
def test_a_rectangle_lies_where_its_mask_is_drawn_back(geometry, data):
    rows, columns = geometry.resized_shape
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, rows)), data.draw(st.integers(x0 + 1, columns))
    strength = np.zeros(geometry.prepared_shape)
    strength[y0:y1, x0:x1] = 1
    (region,) = regions(strength, geometry=geometry, spacing=(0.5, 0.25))
    np.testing.assert_allclose(region.peak, geometry.points_to_original([[x0, y0]])[0])
    mask = geometry.mask_to_original(strength)
    where = np.argwhere(mask)
    expected = np.array([*where.min(axis=0), *(where.max(axis=0) + 1)])
    assert np.abs(region.box - expected).max() <= 1  # OpenCV's nearest px is exact to 2^-16 of the image
    assert geometry.original_shape[0] >= region.box[2] > region.box[0] >= 0
    assert geometry.original_shape[1] >= region.box[3] > region.box[1] >= 0
    # the area is that of the rectangle before it is rounded to px: less than a px more or less at each side
    height, width = (y1 - y0) / geometry.scale[0], (x1 - x0) / geometry.scale[1]
    assert region.area_px == pytest.approx(height * width)
    assert region.area_mm2 == pytest.approx(height * width / 8)
    assert abs(mask.sum() - region.area_px) <= 2 * (height + width) + 4
    # the contour reaches to the border of the box and holds the peak
    assert np.abs(region.contour.max(axis=0) - region.contour.min(axis=0) - [width, height]).max() < 1e-6
    assert np.abs(region.contour.min(axis=0) + 0.5 - expected[[1, 0]]).max() <= 1


MASKS = st.tuples(st.integers(1, 7), st.integers(1, 8)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
)


@settings(deadline=None, max_examples=200)
@given(MASKS, st.sampled_from([0.0, 0.2, 0.5, 0.75, 1.0]), st.floats(0, 1))
def test_regions_of_any_map_are_complete_and_in_order(strength, cutoff, probability):
    found = regions(strength, cutoff=cutoff, probability=probability)
    reached = (strength >= cutoff) & (strength > 0)
    assert sum(region.area_px for region in found) == reached.sum()
    scores = [region.score for region in found]
    assert scores == sorted(scores, reverse=True)
    assert not found or scores[0] == pytest.approx(probability * strength.max())
    union = np.zeros(strength.shape, bool)
    for region in found:
        inside = drawn(region, strength.shape)
        np.testing.assert_array_equal(region.contour[0], region.contour[-1])
        y0, x0, y1, x1 = region.box
        assert not inside[:y0].any()
        assert not inside[y1:].any()
        x, y = (int(value) for value in region.peak)
        assert inside[y, x]
        assert probability * strength[y, x] == pytest.approx(region.score)
        assert region.area_px <= inside.sum() <= (y1 - y0) * (x1 - x0)
        union |= inside
    assert (union | ~reached).all()


def test_a_region_speaks_for_what_its_nearest_extremum_does():
    strength = np.zeros((4, 9))
    strength[1, 1], strength[2, 7], strength[3, 3] = 0.6, 1.0, 0.8
    found = regions(strength, probability=0.01, extrema=[[1, 0], [8, 3], [3, 3]], malignant=[True, False, True])
    assert [(region.strength, region.evidence) for region in found] == [
        (1.0, "benign"),
        (pytest.approx(0.8), "malignant"),
        (pytest.approx(0.6), "malignant"),
    ]
    assert [region.score for region in found] == [None, pytest.approx(0.008), pytest.approx(0.006)]


def test_padding_is_no_part_of_a_region():
    geometry = BreastGeometry((10, 8), True, (0, 0, 10, 8), (0.5, 0.5), (7, 6))
    strength = np.zeros((7, 6))
    strength[3:7, 2:6] = 0.8
    strength[6, 0] = 1.0  # in the padding alone
    (region,) = regions(strength, geometry=geometry)
    assert region.box == (6, 0, 10, 4)
    assert region.area_px == 16
    assert region.score == pytest.approx(0.8)


def test_rows_are_plain_json():
    geometry = BreastGeometry((30, 20), True, (3, 0, 27, 17), (0.3, 0.3), (9, 9))
    found = regions(np.pad([[0.8]], 4), geometry=geometry, spacing=(0.07, 0.05), probability=0.9, extrema=[[1, 1]])
    found += regions(np.pad([[0.8]], 4), geometry=geometry, malignant=False)
    rows = regions_to_rows(found)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["region"] for row in rows] == [1, 2]
    assert (rows[0]["y0"], rows[0]["x0"], rows[0]["y1"], rows[0]["x1"]) == found[0].box
    np.testing.assert_allclose(rows[0]["contour"], found[0].contour, atol=0.005)
    for point in ("peak", "extremum"):
        assert (rows[0][f"{point}_x"], rows[0][f"{point}_y"]) == pytest.approx(getattr(found[0], point), abs=0.005)
    assert rows[0]["score"] == found[0].score == pytest.approx(0.72)
    assert [row["evidence"] for row in rows] == ["malignant", "benign"]
    assert rows[0]["area_mm2"] == pytest.approx(found[0].area_mm2, abs=1e-4)
    assert {rows[1][name] for name in ("score", "area_mm2", "extremum_x")} == {None}
    assert regions_to_rows([]) == []

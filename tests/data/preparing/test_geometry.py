import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.errors import LemlightError


@st.composite
def geometries(draw, least=1, longest=90):
    side = st.integers(least, longest)
    height, width = draw(side), draw(side)
    y0, x0 = draw(st.integers(0, height - least)), draw(st.integers(0, width - least))
    box = (y0, x0, draw(st.integers(y0 + least, height)), draw(st.integers(x0 + least, width)))
    geometry = BreastGeometry.fit((height, width), draw(st.booleans()), box, (draw(side), draw(side)))
    return geometry.turned(draw(st.integers(0, 3)))


def blob(shape, x, y, sigma):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)


def centre_of_mass(array):
    rows, columns = np.mgrid[: array.shape[0], : array.shape[1]]
    return np.array([(columns * array).sum(), (rows * array).sum()]) / array.sum()


@settings(deadline=None, max_examples=50)
@given(geometries(), st.lists(st.tuples(st.floats(-5, 100), st.floats(-5, 100)), max_size=5))
def test_points_go_there_and_back(geometry, points):
    points = np.array(points).reshape(-1, 2)
    np.testing.assert_allclose(geometry.points_to_original(geometry.points_to_prepared(points)), points, atol=1e-6)
    np.testing.assert_allclose(geometry.points_to_prepared(geometry.points_to_original(points)), points, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(geometries(least=30, longest=120), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_a_blob_lands_where_its_point_lands(geometry, across, down):
    rows, columns = geometry.resized_shape
    x, y = geometry.points_to_original([[across * columns, down * rows]])[0]
    prepared = geometry.image_to_prepared(blob(geometry.original_shape, x, y, 1.7))
    expected = geometry.points_to_prepared([[x, y]])[0]
    assert np.abs(centre_of_mass(prepared) - expected).max() < 0.5
    back = centre_of_mass(geometry.map_to_original(prepared))
    assert np.abs(back - [x, y]).max() < 0.5 + 0.5 / min(geometry.scale)


@settings(deadline=None, max_examples=50)
@given(geometries(), st.randoms(use_true_random=False))
def test_no_single_px_lesion_in_the_crop_vanishes_and_it_stays_in_place(geometry, random):
    y0, x0, y1, x1 = geometry.box
    y, x = random.randrange(y0, y1), random.randrange(x0, x1)
    x, y = np.rint(geometry.points_to_original((np.array([[x - x0, y - y0]]) + 0.5) * geometry.scale[::-1] - 0.5))[
        0
    ].astype(int)
    mask = np.zeros(geometry.original_shape, dtype=bool)
    mask[y, x] = True
    prepared = geometry.mask_to_prepared(mask)
    assert prepared.dtype == np.uint8
    assert prepared.any()
    reach = 0.51 * max(1, *geometry.scale) + 0.5
    assert np.abs(np.argwhere(prepared)[:, ::-1] - geometry.points_to_prepared([[x, y]])).max() <= reach
    back = np.argwhere(geometry.mask_to_original(prepared))[:, ::-1]
    assert back.size
    assert np.abs(back - [x, y]).max() <= 1 + 1 / min(geometry.scale)


def test_flip_crop_and_padding_drawn_by_hand():
    original = np.arange(20, dtype=np.float32).reshape(4, 5)
    geometry = BreastGeometry((4, 5), True, (1, 0, 3, 2), (1.0, 1.0), (3, 4))
    expected = np.array([[9, 8, 0, 0], [14, 13, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(geometry.image_to_prepared(original), expected)
    inside = np.zeros((4, 5), dtype=np.float32)
    inside[1:3, 3:] = original[1:3, 3:]
    np.testing.assert_array_equal(geometry.map_to_original(expected), inside)
    np.testing.assert_array_equal(geometry.points_to_prepared([[4, 1], [3, 2]]), [[0, 0], [1, 1]])


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_image_is_prepared_as_the_upright_one_and_comes_back_turned(turns):
    upright = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    geometry = BreastGeometry.fit((40, 30), True, (3, 2, 33, 28), (20, 25))
    turned = geometry.turned(turns)
    original = np.rot90(upright, -turns)
    np.testing.assert_array_equal(turned.image_to_prepared(original), geometry.image_to_prepared(upright))
    prepared = geometry.image_to_prepared(upright)
    np.testing.assert_array_equal(
        turned.map_to_original(prepared), np.rot90(geometry.map_to_original(prepared), -turns)
    )


def test_shrinking_averages_whole_pixels_and_points_follow_their_centres():
    geometry = BreastGeometry.fit((4, 8), False, (0, 0, 4, 8), (2, 4))
    original = np.arange(32, dtype=np.float32).reshape(4, 8)
    np.testing.assert_allclose(geometry.image_to_prepared(original), original.reshape(2, 2, 4, 2).mean(axis=(1, 3)))
    np.testing.assert_allclose(geometry.points_to_prepared([[0.5, 0.5], [7, 3]]), [[0, 0], [3.25, 1.25]])


def test_a_prepared_px_is_lesion_from_half_coverage_on():
    geometry = BreastGeometry.fit((4, 16), False, (0, 0, 4, 16), (2, 8))
    mask = np.zeros((4, 16), dtype=bool)
    mask[:, 4:7] = True  # fills column 2 and half of column 3
    np.testing.assert_array_equal(np.flatnonzero(geometry.mask_to_prepared(mask)[0]), [2, 3])
    mask[0, 6] = False  # a quarter of (0, 3) is left
    np.testing.assert_array_equal(np.flatnonzero(geometry.mask_to_prepared(mask)[0]), [2])
    mask[3, 15] = True  # a lesion of its own, a quarter of its px
    assert geometry.mask_to_prepared(mask)[1, 7] == 1


@settings(deadline=None, max_examples=300)
@given(geometries(), st.data())
def test_pixels_go_where_their_mask_goes(geometry, data):
    height, width = geometry.original_shape
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top, min(top + 25, height - 1))), data.draw(st.integers(left, width - 1))
    mask = np.zeros((height, width), dtype=bool)
    mask[top : bottom + 1, left : right + 1] = True
    holes = np.random.default_rng(data.draw(st.integers(0, 9))).random(mask.shape) < data.draw(st.floats(0, 0.9))
    mask &= ~holes
    back = np.zeros(geometry.prepared_shape, dtype=np.uint8)
    back[geometry.pixels_to_prepared(*np.nonzero(mask))] = 1
    np.testing.assert_array_equal(back, geometry.mask_to_prepared(mask))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("radius", [1, 2.5, 40, 500])
def test_pixels_of_a_small_and_of_a_large_lesion_go_the_same_way(flipped, radius):
    geometry = BreastGeometry.fit((1300, 1111), flipped, (17, 5, 1290, 1003), (333, 256))
    rows, columns = np.mgrid[:1300, :1111]
    mask = (rows - 610) ** 2 + (columns - 555) ** 2 < radius**2
    back = np.zeros(geometry.prepared_shape, dtype=np.uint8)
    back[geometry.pixels_to_prepared(*np.nonzero(mask))] = 1
    np.testing.assert_array_equal(back, geometry.mask_to_prepared(mask))


def test_a_mask_of_a_large_lesion_comes_back_almost_whole():
    rows, columns = np.mgrid[:211, :160]
    mask = (columns - 120) ** 2 + (rows - 90) ** 2 < 30**2
    for flipped in (False, True):
        box = (10, 0, 200, 70) if flipped else (10, 85, 200, 155)
        for prepared_shape in ((64, 48), (400, 333)):
            geometry = BreastGeometry.fit((211, 160), flipped, box, prepared_shape)
            back = geometry.mask_to_original(geometry.mask_to_prepared(mask))
            assert back.dtype == bool
            assert (back & mask).sum() / (back | mask).sum() > 0.9


@settings(deadline=None, max_examples=50)
@given(geometries())
def test_a_geometry_survives_json_and_keeps_its_exact_scale(geometry):
    assert BreastGeometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry
    y0, x0, y1, x1 = geometry.box
    rows, columns = geometry.resized_shape
    assert geometry.scale == (rows / (y1 - y0), columns / (x1 - x0))
    assert rows <= geometry.prepared_shape[0]
    assert columns <= geometry.prepared_shape[1]
    assert rows == geometry.prepared_shape[0] or columns == geometry.prepared_shape[1]


def test_arrays_of_another_image_are_refused():
    geometry = BreastGeometry.fit((40, 30), False, (0, 0, 40, 30), (20, 20))
    for way in (geometry.image_to_prepared, geometry.mask_to_prepared):
        with pytest.raises(LemlightError, match=r"\(30, 40\).*\(40, 30\)"):
            way(np.zeros((30, 40), dtype=np.float32))
    for way in (geometry.map_to_original, geometry.mask_to_original):
        with pytest.raises(LemlightError, match=r"\(40, 30\).*\(20, 20\)"):
            way(np.zeros((40, 30), dtype=np.float32))


@pytest.mark.parametrize(
    "change",
    [{"box": [0, 0, 50, 30]}, {"box": [5, 5, 5, 9]}, {"scale": [1.0, 1.0]}],
)
def test_contradicting_geometries_are_refused(change):
    values = BreastGeometry.fit((40, 30), False, (0, 0, 40, 30), (20, 20)).to_dict()
    with pytest.raises(LemlightError, match="prepare"):
        BreastGeometry.from_dict({**values, **change})

"""Lesions in every form against pixels drawn by hand, and many of them in one label image."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.preparing.lesions import SHAPES, Lesion, label_image
from lemlight.errors import ImageError

SHAPE = (6, 9)  # rows, columns
SAME = BreastGeometry(SHAPE, False, (0, 0, *SHAPE), (1.0, 1.0), SHAPE)


def everywhere(geometry):
    return np.ones(geometry.prepared_shape, dtype=bool)


def picture(text):
    return np.array([[cell == "#" for cell in line] for line in text.split()])


DRAWN = {
    "box": (
        Lesion("box", points=((5.0, 1.0), (7.0, 2.0))),
        "......... .....###. .....###. ......... ......... .........",
    ),
    "box that reaches out": (
        Lesion("box", points=((7.0, 4.0), (30.0, 30.0))),
        "......... ......... ......... ......... .......## .......##",
    ),
    "circle": (
        Lesion("circle", points=((3.0, 2.0),), radius=1.5),
        "......... ..###.... ..###.... ..###.... ......... .........",
    ),
    "circle without a radius": (
        Lesion("circle", points=((8.0, 5.0),)),
        "......... ......... ......... ......... ......... ........#",
    ),
    "small circle between the pixels": (
        Lesion("circle", points=((2.5, 3.5),), radius=0.5),
        "......... ......... ......... ......... ..#...... .........",
    ),
    "points": (
        Lesion("points", points=((0.0, 0.0), (8.2, 4.9))),
        "#........ ......... ......... ......... ......... ........#",
    ),
    "triangle": (
        Lesion("polygon", points=((1.0, 1.0), (5.0, 1.0), (1.0, 5.0))),
        "......... .#####... .####.... .###..... .##...... .#.......",
    ),
    "thin polygon": (
        Lesion("polygon", points=((2.0, 3.2), (6.0, 3.2), (6.0, 3.3))),
        "......... ......... ......... ..#####.. ......... .........",
    ),
    "polygon of one point": (
        Lesion("polygon", points=((4.0, 0.0),)),
        "....#.... ......... ......... ......... ......... .........",
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_lesion_is_drawn_pixel_for_pixel(name):
    lesion, expected = DRAWN[name]
    np.testing.assert_array_equal(lesion.draw(SHAPE)[0], picture(expected))


def test_a_lesion_that_reaches_out_is_noted_and_one_inside_is_not():
    assert "beyond the image" in DRAWN["box that reaches out"][0].draw(SHAPE)[1]
    assert DRAWN["box"][0].draw(SHAPE)[1] == ""


@pytest.mark.parametrize(
    "lesion",
    [
        *(Lesion(shape, points=((1.0, 2.0), (float("nan"), 3.0), (4.0, 2.0))) for shape in SHAPES if shape != "mask"),
        Lesion("polygon", points=((1.0, 1.0), (1e12, 1.0), (1.0, 1e12))),
        Lesion("points", points=((1.0, float("inf")),)),
        Lesion("circle", points=((3.0, 3.0),), radius=1e9),
        Lesion("circle", points=((3.0, 3.0),), radius=-1.0),
        Lesion("circle", points=((3.0, 3.0),), radius=float("nan")),
    ],
)
def test_impossible_numbers_are_an_error_and_not_a_drawing_of_a_terabyte(lesion):
    with pytest.raises(ImageError, match="far outside the image of 6 x 9 px"):
        lesion.draw(SHAPE)[0]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "mask"])
def test_a_lesion_outside_the_image_or_without_points_is_an_error(shape):
    with pytest.raises(ImageError, match="outside the image of 6 x 9 px"):
        Lesion(shape, points=((-50.0, 2.0), (-40.0, 3.0), (-40.0, 2.0)), radius=2.0).draw(SHAPE)[0]
    with pytest.raises(ImageError, match="no points"):
        Lesion(shape).draw(SHAPE)[0]


def test_a_mask_file_is_read_rescaled_or_refused(tmp_path):
    drawn = picture(DRAWN["triangle"][1])
    for name, mask in {"same": drawn, "twice": drawn.repeat(2, 0).repeat(2, 1), "foreign": drawn[:, :4]}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), 255 * mask.astype(np.uint8))
    for name in ("same", "twice"):
        found, note = Lesion("mask", path=str(tmp_path / f"{name}.png")).draw(SHAPE)
        np.testing.assert_array_equal(found, drawn)
        assert ("rescaled" in note) == (name == "twice")
    with pytest.raises(ImageError, match=r"foreign.png has shape \(6, 4\)"):
        Lesion("mask", path=str(tmp_path / "foreign.png")).draw(SHAPE)[0]


coordinate = st.floats(-5, 15, allow_nan=False)
lesions = st.builds(
    Lesion,
    shape=st.sampled_from(SHAPES),
    type=st.sampled_from(["", "mass"]),
    path=st.text(max_size=5),
    points=st.lists(st.tuples(coordinate, coordinate), max_size=4).map(tuple),
    radius=st.floats(0, 5),
)


@given(lesions.filter(lambda lesion: lesion.shape != "mask"))
def test_any_drawing_has_pixels_or_is_an_error(lesion):
    try:
        drawn = lesion.draw(SHAPE)[0]
    except ImageError:
        return
    assert drawn.shape == SHAPE
    assert drawn.any()


def test_a_mask_file_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"half a download")
    for name in ("mask.png", "absent.png"):
        with pytest.raises(ImageError, match=name):
            Lesion("mask", path=str(tmp_path / name)).draw(SHAPE)[0]
        labels, notes = label_image(
            [DRAWN["box"][0], Lesion("mask", path=str(tmp_path / name))], SAME, everywhere(SAME)
        )
        assert labels is None
        assert notes[0].startswith("lesions left out: ")
        assert name in notes[0]


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("name", DRAWN)
def test_a_lesion_alone_lies_in_the_label_image_where_its_drawing_goes(name, flipped):
    geometry = BreastGeometry(SHAPE, flipped, (0, 0, *SHAPE), (1.0, 1.0), (7, 11))
    labels, _ = label_image([DRAWN[name][0]], geometry, everywhere(geometry))
    np.testing.assert_array_equal(labels, geometry.mask_to_prepared(picture(DRAWN[name][1])))


def test_of_overlapping_lesions_the_smaller_is_seen_whatever_their_order():
    large, small = Lesion("box", points=((0.0, 0.0), (8.0, 5.0))), Lesion("box", points=((3.0, 3.0), (4.0, 3.0)))
    for order, numbers in (([large, small], (1, 2)), ([small, large], (2, 1))):
        labels, notes = label_image(order, SAME, everywhere(SAME))
        assert labels[0, 0] == numbers[0]
        assert labels[3, 3:5].tolist() == [numbers[1]] * 2
        assert np.count_nonzero(labels == numbers[1]) == 2
        assert notes == ["a lesion covers 100% of the breast: is the breast itself marked?"]  # and not of the small one


def test_three_lesions_inside_each_other_all_stay_and_of_twins_the_first():
    boxes = [Lesion("box", points=((0.0, 0.0), (x, y))) for x, y in ((3.0, 2.0), (8.0, 5.0), (1.0, 1.0), (8.0, 5.0))]
    labels, _ = label_image(boxes, SAME, everywhere(SAME))
    expected = np.full(SHAPE, 2)
    expected[:3, :4] = 1
    expected[:2, :2] = 3
    np.testing.assert_array_equal(labels, expected)


def test_lesions_that_reach_out_or_lie_outside_the_crop_or_the_breast_are_noted_with_the_fraction_of_them():
    cropped = BreastGeometry(SHAPE, False, (0, 0, 6, 5), (1.0, 1.0), SHAPE)
    reaching, inside = Lesion("box", points=((-2.0, 0.0), (1.0, 1.0))), Lesion("box", points=((0.0, 2.0), (2.0, 5.0)))
    breast = np.broadcast_to(np.arange(6)[:, None] < 5, SHAPE)  # the last row of `inside` is blanked
    for outside in (Lesion("box", points=((7.0, 2.0), (8.0, 3.0))), Lesion("points", points=((8.0, 2.0),))):
        labels, notes = label_image([reaching, outside, inside], cropped, breast)
        assert set(np.unique(labels)) == {0, 1, 3}
        assert notes == [
            "a lesion (box) reaches beyond the image",
            "a lesion lies to 100% outside the breast that was found",
            "a lesion lies to 25% outside the breast that was found",
        ]


def test_an_image_whose_lesions_all_lie_outside_the_breast_has_no_known_lesions():
    geometry, box = SAME, DRAWN["box"][0]
    labels, notes = label_image([box, box], geometry, ~picture(DRAWN["box"][1]))
    assert labels is None
    assert notes[-1] == "lesions left out: none of them lies on the breast that was found"
    assert label_image([], geometry, np.zeros(SHAPE, bool))[0] is not None


@pytest.mark.parametrize(
    "lesion",
    [
        Lesion("box", points=((10.0, 2.0), (15.0, 5.0)), size=(12, 18)),
        Lesion("polygon", points=((2.0, 0.5), (3.0, 0.5), (3.0, 1.0), (2.0, 1.0)), size=(3, 4)),
    ],
)
def test_a_lesion_of_an_image_of_another_size_is_scaled_or_refused_and_noted(lesion):
    if lesion.size == (3, 4):
        with pytest.raises(ImageError, match=r"the image that a lesion \(polygon\) .* \(3, 4\), its image \(6, 9\)"):
            lesion.draw(SHAPE)[0]
        return
    drawn, note = lesion.draw(SHAPE)
    np.testing.assert_array_equal(drawn, picture(DRAWN["box"][1]))
    assert note == "lesions rescaled from an image of (12, 18) to (6, 9)"
    assert Lesion("box", points=((5.0, 1.0), (7.0, 2.0)), size=SHAPE).draw(SHAPE)[1] == ""
    circle = Lesion("circle", points=((6.5, 4.5),), radius=3.0, size=(12, 18)).draw(SHAPE)[0]
    np.testing.assert_array_equal(circle, Lesion("circle", points=((3.0, 2.0),), radius=1.5).draw(SHAPE)[0])


def test_hundreds_of_single_pixels_all_stay_in_a_small_flipped_and_cropped_image():
    geometry = BreastGeometry.fit((400, 300), True, (20, 0, 380, 260), (90, 64))
    points = [(300 - 1 - 10.0 * (n % 25) - 4, 30 + 10.0 * (n // 25)) for n in range(300)]
    labels, notes = label_image(
        [Lesion("points", "calcification", points=(point,)) for point in points], geometry, everywhere(geometry)
    )
    assert set(np.unique(labels)) == set(range(256))
    assert "300 lesions" in notes[-1]
    x, y = np.round(geometry.points_to_prepared([points[7]])[0]).astype(int)
    assert labels[y, x] == 8

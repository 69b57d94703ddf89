import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lemlight.errors import LemlightError
from lemlight.metrics.overlap import CutoffChooser

STRENGTH = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.5, 0.0, 0.0],
        [0.0, 0.5, 0.25, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.25],
    ]
)
LESIONS = np.zeros((5, 5), np.uint8)
LESIONS[1, 1:3] = 1
LESIONS[3, 0] = 2


def naive_dice(lesions, strength, cutoff):
    predicted = (strength.astype(np.float32) >= np.float32(cutoff)) & (strength > 0)
    return 2 * np.sum(predicted & (lesions > 0)) / (np.sum(predicted) + np.sum(lesions > 0))


def maps():
    return arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7).flatmap(
        lambda size: st.tuples(
            arrays.arrays(np.uint8, size, elements=st.integers(0, 2)),
            arrays.arrays(np.float32, size, elements=st.integers(0, 16).map(lambda level: level / 16)),
        )
    )


@settings(deadline=None, max_examples=30)
@given(st.lists(maps(), min_size=1, max_size=4))
def test_the_chooser_has_the_mean_dice_of_the_images_with_a_lesion_at_every_cutoff(images):
    chooser = CutoffChooser()
    for lesions, strength in images:
        chooser.add(lesions, strength)
    curves = [[naive_dice(*image, cutoff) for cutoff in chooser.cutoffs] for image in images if image[0].any()]
    if not curves:
        with pytest.raises(LemlightError, match="no image with a known lesion"):
            chooser.best()
        return
    expected = np.mean(curves, axis=0)
    np.testing.assert_allclose(chooser.curve(), expected, atol=1e-12)
    cutoff, dice = chooser.best()
    assert dice == pytest.approx(expected.max())
    assert expected[chooser.cutoffs == cutoff][0] == pytest.approx(dice)


def test_the_best_cutoff_is_the_middle_of_equal_ones():
    chooser = CutoffChooser()
    chooser.add(LESIONS, STRENGTH)
    cutoff, dice = chooser.best()  # 4 / 6 for every cutoff in (0.25, 0.5]
    assert dice == pytest.approx(4 / 6)
    assert cutoff == pytest.approx(0.375, abs=1 / 1024)
    assert naive_dice(LESIONS, STRENGTH, cutoff) == pytest.approx(dice)


def test_a_map_of_zeros_has_a_dice_of_0_at_every_cutoff():
    chooser = CutoffChooser()
    chooser.add(LESIONS, np.zeros((5, 5)))
    assert chooser.best()[1] == 0


def test_the_chooser_keeps_no_pixels():
    chooser = CutoffChooser()
    for _ in range(3):
        chooser.add(LESIONS, STRENGTH)
    kept = sum(value.nbytes for value in vars(chooser).values() if isinstance(value, np.ndarray))
    assert kept == 2 * 1024 * 8


@pytest.mark.parametrize(
    ("lesions", "strength", "message"),
    [
        (LESIONS[:4], STRENGTH, r"shape \(H, W\), got \(4, 5\) and \(5, 5\)"),
        (LESIONS[None], STRENGTH[None], r"shape \(H, W\)"),
        (LESIONS.astype(float), STRENGTH, "integer type"),
        (LESIONS.astype(int) - 1, STRENGTH, "labels from 0 to 255"),
        (LESIONS, 2 * STRENGTH, r"lie in \[0, 1\]"),
        (LESIONS, np.where(STRENGTH > 0, np.nan, 0), "without NaN"),
        (LESIONS, np.full((5, 5), "a"), "must be numbers"),
        (np.zeros((0, 3), np.uint8), np.zeros((0, 3)), r"shape \(H, W\)"),
    ],
)
def test_maps_that_do_not_fit_are_refused(lesions, strength, message):
    with pytest.raises(LemlightError, match=message):
        CutoffChooser().add(lesions, strength)

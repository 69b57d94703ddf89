import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lemlight.errors import LemlightError
from lemlight.metrics.overlap import CutoffChooser, dice_per_cutoff

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
    """Pixel by pixel, in float32 as the maps are."""
    shared = sizes = 0
    for label, value in zip(lesions.ravel(), strength.astype(np.float32).ravel(), strict=True):
        predicted = value >= np.float32(cutoff) and value > 0
        shared += int(predicted and label > 0)
        sizes += int(predicted) + int(label > 0)
    return 2 * shared / sizes


def test_the_drawn_case():
    # lesion 3 px; at 1: 1 of 1 px; at 0.5: 2 of 3 px; at 0.25 and at 0: 2 of 5 px, for a strength of 0 is no prediction
    dice = dice_per_cutoff(LESIONS, STRENGTH, [1, 0.5, 0.25, 0, 0.75])
    np.testing.assert_allclose(dice, [2 / 4, 4 / 6, 4 / 8, 4 / 8, 2 / 4])


def maps():
    return arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7).flatmap(
        lambda size: st.tuples(
            arrays.arrays(np.uint8, size, elements=st.integers(0, 2)),
            arrays.arrays(np.float32, size, elements=st.integers(0, 16).map(lambda level: level / 16)),
        )
    )


@settings(deadline=None, max_examples=80)
@given(maps(), st.lists(st.one_of(st.integers(0, 16).map(lambda level: level / 16), st.floats(0, 1)), max_size=6))
def test_dice_agrees_with_a_loop_over_pixels_for_any_cutoffs_in_any_order(drawn, cutoffs):
    lesions, strength = drawn
    dice = dice_per_cutoff(lesions, strength, cutoffs)
    expected = [naive_dice(lesions, strength, cutoff) if lesions.any() else np.nan for cutoff in cutoffs]
    np.testing.assert_allclose(dice, np.array(expected, float))


def test_a_cutoff_that_float32_rounds_up_still_keeps_the_pixels_of_that_strength():
    strength = np.full((2, 3), 0.7, np.float32)  # below 0.7 in float64
    np.testing.assert_allclose(dice_per_cutoff(np.ones((2, 3), np.uint8), strength, [0.7]), [1])


@settings(deadline=None, max_examples=30)
@given(st.lists(maps(), min_size=1, max_size=4))
def test_the_chooser_has_the_mean_dice_of_the_images_with_a_lesion_at_every_cutoff(images):
    chooser = CutoffChooser()
    for lesions, strength in images:
        chooser.add(lesions, strength)
    curves = [dice_per_cutoff(*image, chooser.cutoffs) for image in images if image[0].any()]
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
    assert dice_per_cutoff(LESIONS, STRENGTH, [cutoff])[0] == pytest.approx(dice)


def test_a_map_of_zeros_has_a_dice_of_0_at_every_cutoff():
    chooser = CutoffChooser()
    chooser.add(LESIONS, np.zeros((5, 5)))
    assert chooser.best()[1] == 0
    np.testing.assert_array_equal(dice_per_cutoff(LESIONS, np.zeros((5, 5)), [0, 0.5]), [0, 0])


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
        dice_per_cutoff(lesions, strength, [0.5])
    with pytest.raises(LemlightError, match=message):
        CutoffChooser().add(lesions, strength)

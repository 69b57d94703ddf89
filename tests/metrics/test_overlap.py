"""One map against the lesions of its image: cutoffs, tolerance, the highest point, boxes, pixel average precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import measure
from sklearn.metrics import average_precision_score

from lemlight.metrics.overlap import (
    BINS,
    BOX_CUTOFFS,
    LEVELS,
    OVERLAPS,
    best_cutoff,
    box_matches,
    contour_boxes,
    cutoffs_by_mass,
    dice_curve,
    dice_curve_by_mass,
    lesion_boxes,
    near_lesions,
    overlaps,
    pointing,
    strength_histogram,
    weighted_max_box_acc,
    weighted_pxap,
)

STRENGTH = np.zeros((5, 5), np.float32)
STRENGTH[1:3, 1:3] = [[1.0, 0.5], [0.5, 0.25]]
STRENGTH[4, 4] = 0.25
LESIONS = np.zeros((5, 5), np.uint8)
LESIONS[1, 1:3] = 1
LESIONS[3, 0] = 2


def images(labels=(0, 0, 0, 0, 1, 2, 4), levels=(0, 0, 0, 0.25, 0.5, 0.75, 1)):
    """Lesions and strength of one shape, with ties."""
    sizes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
    return sizes.flatmap(
        lambda size: st.tuples(
            arrays.arrays(np.uint8, size, elements=st.sampled_from(labels)),
            arrays.arrays(np.float32, size, elements=st.sampled_from(levels)),
        )
    )


def naive_dice(lesions, strength, cutoff):
    predicted = (strength.astype(np.float32) >= np.float32(cutoff)) & (strength > 0)
    return 2 * np.sum(predicted & (lesions > 0)) / (np.sum(predicted) + np.sum(lesions > 0))


@settings(deadline=None, max_examples=50)
@given(images())
def test_the_dice_at_every_cutoff_is_that_of_the_pixels_and_the_best_is_found(image):
    curve = dice_curve(*image)
    assert (curve is not None) == image[0].any()
    if curve is None:
        return
    np.testing.assert_allclose(curve, [naive_dice(*image, cutoff) for cutoff in np.arange(1, 1025) / 1024], atol=1e-12)
    cutoff, dice = best_cutoff(curve)
    assert dice == curve.max() == pytest.approx(naive_dice(*image, cutoff))


@settings(deadline=None, max_examples=50)
@given(images(labels=(0, 0, 1)))
def test_by_mass_the_strongest_pixels_that_hold_the_fraction_are_predicted_and_no_further_level(image):
    lesions, strength = image
    fractions = np.array([0.1, 0.25, 0.5, 0.8, 1.0])
    total = strength.sum(dtype=np.float64)
    for fraction, cutoff in zip(fractions, cutoffs_by_mass(strength, fractions), strict=True):
        kept = strength[(strength >= cutoff) & (strength > 0)].astype(np.float64)
        assert kept.sum() >= fraction * total - 1e-9
        if kept.size:  # without its weakest level it would not hold the fraction
            assert kept[kept > kept.min()].sum() < fraction * total
    curve = dice_curve(lesions, strength)
    if curve is not None:
        by_mass = dice_curve_by_mass(curve, strength)
        for fraction in (0.25, 0.5, 1.0):
            cutoff = cutoffs_by_mass(strength, np.array([fraction]))[0]
            assert by_mass[round(fraction * LEVELS) - 1] == pytest.approx(naive_dice(lesions, strength, cutoff))


def test_a_fraction_of_the_mass_that_is_reached_exactly_needs_no_further_pixel():
    # the values 1, 0.5, 0.5, 0.25, 0.25 sum to 2.5
    np.testing.assert_allclose(cutoffs_by_mass(STRENGTH, np.array([0.4, 0.41, 0.8, 0.81])), [1, 0.5, 0.5, 0.25])
    assert cutoffs_by_mass(np.zeros((2, 2), np.float32), np.array([0.5])) == 1 / LEVELS


def test_the_best_cutoff_is_the_middle_of_equal_ones_and_a_map_of_zeros_has_a_dice_of_0():
    cutoff, dice = best_cutoff(dice_curve(LESIONS, STRENGTH))  # 4 / 6 for every cutoff in (0.25, 0.5]
    assert dice == pytest.approx(4 / 6)
    assert cutoff == pytest.approx(0.375, abs=1 / 1024)
    assert best_cutoff(dice_curve(LESIONS, np.zeros((5, 5), np.float32)))[1] == 0


def naive_near(lesions, label, tolerance):
    """Every pixel against every pixel of the lesion."""
    points = np.argwhere(lesions == label)
    grid = np.stack(np.indices(lesions.shape), axis=-1)
    squared = ((grid[:, :, None] - points) ** 2).sum(axis=-1)
    return (squared <= tolerance**2).any(axis=-1)


tolerances = st.sampled_from([0, 0.5, 1, 1.5, 2, 3.7, 20])


@settings(deadline=None, max_examples=80)
@given(images(), tolerances)
def test_what_is_near_a_lesion_and_the_highest_point_agree_with_comparing_pixel_by_pixel(image, tolerance):
    lesions, strength = image
    near = near_lesions(lesions, tolerance)
    labels = sorted(set(lesions.ravel().tolist()) - {0})
    assert [lesion.label for lesion in near] == labels
    for lesion in near:
        whole = np.zeros(lesions.shape, bool)
        whole[lesion.window] = lesion.near
        np.testing.assert_array_equal(whole, naive_near(lesions, lesion.label, tolerance))
    top = [tuple(point) for point in np.argwhere(strength == strength.max()).tolist()]
    inside = [any(naive_near(lesions, label, tolerance)[point] for label in labels) for point in top]
    assert pointing(strength, near) == pytest.approx(np.mean(inside) if strength.max() > 0 else 0)


POINTS = np.zeros((5, 7), np.uint8)
POINTS[2, 2] = 1  # single pixels, as calcifications are
POINTS[2, 4] = 2


def strengths(**points):
    """A map with these strengths, named by row and column: r1c2=0.5."""
    strength = np.zeros((5, 7), np.float32)
    for name, value in points.items():
        strength[int(name[1]), int(name[3])] = value
    return strength


def test_equally_high_points_count_by_their_fraction_and_a_map_of_zeros_misses():
    near = near_lesions(POINTS, 0)
    assert pointing(strengths(r2c2=1, r0c0=0.5), near) == 1
    assert pointing(strengths(r2c2=1, r2c4=1, r0c0=1), near) == pytest.approx(2 / 3)
    assert pointing(strengths(r2c3=1), near) == 0
    assert pointing(strengths(r2c3=1), near_lesions(POINTS, 1)) == 1  # near both, counted once
    assert pointing(strengths(), near_lesions(POINTS, 50)) == 0


def naive_boxes(mask):
    """8-connected regions, and holes (4-connected background off the border) with the ring of pixels around them."""
    boxes = [
        (x0, y0, x1, y1)
        for y0, x0, y1, x1 in (region.bbox for region in measure.regionprops(measure.label(mask, connectivity=2)))
    ]
    for hole in measure.regionprops(measure.label(np.pad(~mask, 1, constant_values=True), connectivity=1)):
        y0, x0, y1, x1 = (side - 1 for side in hole.bbox)
        if y0 >= 0:  # the background around everything starts in the padding
            boxes.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    return boxes


def naive_overlap(box, other):
    """Intersection over union by counting pixels."""
    pixels = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (box, other)]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@settings(deadline=None, max_examples=80)
@given(masks, masks)
def test_boxes_of_contours_and_their_overlaps_agree_with_counting_pixels(mask, other):
    boxes, others = contour_boxes(mask), contour_boxes(other)
    assert sorted(map(tuple, boxes.tolist())) == sorted(naive_boxes(mask))
    expected = [[naive_overlap(a, b) for b in others.tolist()] for a in boxes.tolist()]
    np.testing.assert_allclose(overlaps(boxes, others), np.array(expected).reshape(len(boxes), len(others)))


def test_boxes_drawn_by_hand():
    pieces = np.zeros((5, 8), np.uint8)
    pieces[1, 1] = pieces[3, 4] = 1  # several pieces have one box
    pieces[0, 7] = 3  # labels may be missing
    assert lesion_boxes(pieces).tolist() == [[1, 1, 5, 4], [7, 0, 8, 1]]
    lesions = np.zeros((5, 6), np.uint8)
    lesions[1:3, 1:5] = 1  # 2 x 4 px
    strength = np.zeros((5, 6), np.float32)
    strength[1:3, 1:5] = [[0.3, 0.6, 0.6, 0.3], [0.3, 0.6, 0.9, 0.3]]
    strength[4, 0] = 0.1
    # up to 0.3 the box is the lesion (1); up to 0.6 it is 2 x 2 of 8 px (0.5); up to 0.9 one px (1 / 8)
    expected = [[cutoff <= (0.3 if overlap > 0.5 else 0.6) for cutoff in BOX_CUTOFFS] for overlap in OVERLAPS]
    np.testing.assert_array_equal(box_matches(lesions, strength), expected)
    assert not box_matches(lesions, np.zeros((5, 6), np.float32)).any()
    assert not box_matches(np.zeros((5, 6), np.uint8), strength).any()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_the_weighted_accuracy_is_the_best_cutoff_per_overlap_over_repeated_images(count, seed):
    generator = np.random.default_rng(seed)
    with_lesion = generator.random(count) < 0.7
    hits = (generator.random((count, 3, 20)) < 0.4) & with_lesion[:, None, None]
    weights = generator.integers(0, 3, (7, count)).astype(float)
    for row, value in zip(weights, weighted_max_box_acc(hits, with_lesion, weights), strict=True):
        drawn = [index for index in range(count) for _ in range(int(row[index])) if with_lesion[index]]
        if drawn:
            best = [max(hits[drawn, overlap, cutoff].mean() for cutoff in range(20)) for overlap in range(3)]
            assert value == pytest.approx(np.mean(best))
        else:
            assert np.isnan(value)


def random_images(count, seed, levels=LEVELS):
    """Images of different, non-square sizes, strengths of few levels, so that there are ties."""
    generator = np.random.default_rng(seed)
    drawn = []
    for index in range(count):
        shape = (3 + index % 4, 6 + index % 3)
        strength = (generator.integers(0, levels + 1, shape) / levels).astype(np.float32)
        lesions = (generator.random(shape) < 0.3).astype(np.uint8)
        lesions[0, 0] = 1
        drawn.append((lesions, strength))
    return drawn


def pooled_average_precision(drawn):
    truth = np.concatenate([lesions.ravel() > 0 for lesions, _ in drawn])
    return average_precision_score(truth, np.concatenate([strength.ravel() for _, strength in drawn]))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 10_000), st.sampled_from([4, 64, LEVELS]))
def test_pxap_is_the_average_precision_of_scikit_learn_and_a_weight_repeats_an_image(count, seed, levels):
    drawn = random_images(count, seed, levels)
    histograms = np.stack([strength_histogram(*image) for image in drawn])
    assert histograms.shape == (count, 2, BINS)
    weights = np.random.default_rng(seed).integers(0, 4, (4, count)).astype(float)
    weights[:, 0] += 1
    weights[0] = 1
    expected = [
        pooled_average_precision([image for image, times in zip(drawn, row, strict=True) for _ in range(int(times))])
        for row in weights
    ]
    np.testing.assert_allclose(weighted_pxap(histograms, weights), expected, rtol=1e-12)


def test_pxap_drawn_by_hand_between_levels_without_a_lesion_and_of_zeros():
    strength = np.array([[1.0, 0.5, 0.5], [0.25, 0.0, 0.0]], np.float32)
    lesions = np.array([[1, 0, 1], [0, 2, 0]], np.uint8)
    # at 1: 1 of 1 px right, recall 1/3; at 0.5: 2 of 3, recall 2/3; at 0.25: nothing new; at 0: 3 of 6, recall 1
    value = weighted_pxap(strength_histogram(lesions, strength)[None], np.ones((1, 1)))
    np.testing.assert_allclose(value, [(1 + 2 / 3 + 3 / 6) / 3])
    histogram = strength_histogram(lesions, np.zeros((2, 3), np.float32))
    np.testing.assert_allclose(weighted_pxap(histogram[None], np.ones((1, 1))), [3 / 6])
    nothing = strength_histogram(np.zeros((2, 3), np.uint8), strength)
    assert np.isnan(weighted_pxap(nothing[None], np.ones((2, 1)))).all()
    assert np.isnan(weighted_pxap(np.zeros((0, 2, BINS), np.int64), np.ones((2, 0)))).all()
    generator, lesions = np.random.default_rng(1), np.zeros((60, 80), np.uint8)
    lesions[20:40, 30:60] = 1
    strength = np.clip(generator.random((60, 80)) * 0.7 + 0.3 * lesions, 0, 1).astype(np.float32)
    value = weighted_pxap(strength_histogram(lesions, strength)[None], np.ones((1, 1)))[0]
    assert value == pytest.approx(pooled_average_precision([(lesions, strength)]), abs=2e-3)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lemlight.metrics.overlap import find_candidates, near_lesions, pointing


def naive_near(lesions, label, tolerance):
    """Every pixel against every pixel of the lesion."""
    points = np.argwhere(lesions == label)
    grid = np.stack(np.indices(lesions.shape), axis=-1)
    squared = ((grid[:, :, None] - points) ** 2).sum(axis=-1)
    return (squared <= tolerance**2).any(axis=-1)


def naive_regions(mask):
    """Regions of 8-connected pixels as sets, by flooding."""
    left = {tuple(point) for point in np.argwhere(mask).tolist()}
    regions = []
    while left:
        region, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            region.add((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            border += around
        regions.append(region)
    return regions


def naive_candidates(strength, cutoff, confidence, lesions, tolerance):
    labels = [label for label in range(1, lesions.max() + 1) if (lesions == label).any()]
    near = {label: naive_near(lesions, label, tolerance) for label in labels}
    best, false = dict.fromkeys(labels, np.nan), []
    for region in naive_regions((strength >= np.float32(cutoff)) & (strength > 0)):
        score = confidence * max(float(strength[point]) for point in region)
        hit = [label for label in labels if any(near[label][point] for point in region)]
        for label in hit:
            best[label] = np.fmax(best[label], score)
        false += [] if hit else [score]
    return np.array(list(best.values()), float), np.array(sorted(false), float)


def images():
    sizes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
    levels = st.sampled_from([0, 0, 0, 0.25, 0.5, 0.75, 1])
    return sizes.flatmap(
        lambda size: st.tuples(
            arrays.arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 0, 1, 2, 4])),
            arrays.arrays(np.float32, size, elements=levels),
        )
    )


tolerances = st.sampled_from([0, 0.5, 1, 1.5, 2, 3.7, 20])


@settings(deadline=None, max_examples=80)
@given(images(), tolerances)
def test_near_is_every_pixel_within_the_distance_also_at_the_border(image, tolerance):
    lesions, _ = image
    found = near_lesions(lesions, tolerance)
    assert [lesion.label for lesion in found] == sorted(set(lesions.ravel().tolist()) - {0})
    for lesion in found:
        whole = np.zeros(lesions.shape, bool)
        whole[lesion.window] = lesion.near
        np.testing.assert_array_equal(whole, naive_near(lesions, lesion.label, tolerance))


@settings(deadline=None, max_examples=80)
@given(images(), tolerances, st.sampled_from([0, 0.3, 0.5, 1]), st.sampled_from([0, 0.3, 1]))
def test_candidates_agree_with_flooding_and_comparing_pixel_by_pixel(image, tolerance, cutoff, confidence):
    lesions, strength = image
    found = find_candidates(strength, cutoff, confidence, near_lesions(lesions, tolerance))
    scores, false = naive_candidates(strength, cutoff, confidence, lesions, tolerance)
    np.testing.assert_allclose(found.lesion_scores, scores)
    np.testing.assert_allclose(np.sort(found.false_positive_scores), false)


@settings(deadline=None, max_examples=80)
@given(images(), tolerances)
def test_pointing_is_the_share_of_highest_points_near_a_lesion(image, tolerance):
    lesions, strength = image
    top = [tuple(point) for point in np.argwhere(strength == strength.max()).tolist()]
    labels = set(lesions.ravel().tolist()) - {0}
    inside = [any(naive_near(lesions, label, tolerance)[point] for label in labels) for point in top]
    expected = np.mean(inside) if strength.max() > 0 else 0
    assert pointing(strength, near_lesions(lesions, tolerance)) == pytest.approx(expected)


LESIONS = np.zeros((5, 7), np.uint8)
LESIONS[2, 2] = 1  # single pixels, as calcifications are
LESIONS[2, 4] = 2


def strengths(**points):
    """A map with these strengths, named by row and column: r1c2=0.5."""
    strength = np.zeros((5, 7), np.float32)
    for name, value in points.items():
        strength[int(name[1]), int(name[3])] = value
    return strength


def test_one_region_between_two_lesions_hits_both_and_is_no_false_positive():
    between = strengths(r2c3=0.5)
    assert np.isnan(find_candidates(between, 0.5, 1, near_lesions(LESIONS, 0)).lesion_scores).all()
    found = find_candidates(between, 0.5, 0.8, near_lesions(LESIONS, 1))
    np.testing.assert_allclose(found.lesion_scores, [0.4, 0.4])
    assert found.false_positive_scores.size == 0


def test_several_regions_on_one_lesion_count_once_by_the_best_and_none_is_false():
    around = strengths(r2c1=0.5, r0c2=1, r4c2=0.75)
    found = find_candidates(around, 0.5, 1, near_lesions(LESIONS, 2))
    np.testing.assert_allclose(found.lesion_scores[0], 1)
    assert found.false_positive_scores.size == 0


def test_pixels_that_touch_at_a_corner_are_one_region():
    corner = strengths(r0c5=0.5, r1c6=1)
    np.testing.assert_allclose(find_candidates(corner, 0.5, 0.5, near_lesions(LESIONS, 1)).false_positive_scores, [0.5])


def test_a_cutoff_of_0_predicts_what_is_above_0_only():
    found = find_candidates(strengths(r0c0=0.1), 0, 1, near_lesions(LESIONS, 0))
    np.testing.assert_allclose(found.false_positive_scores, [0.1])


def test_equally_high_points_count_by_their_share_and_a_map_of_zeros_misses():
    near = near_lesions(LESIONS, 0)
    assert pointing(strengths(r2c2=1, r0c0=0.5), near) == 1
    assert pointing(strengths(r2c2=1, r2c4=1, r0c0=1), near) == pytest.approx(2 / 3)
    assert pointing(strengths(r2c3=1), near) == 0
    assert pointing(strengths(r2c3=1), near_lesions(LESIONS, 1)) == 1  # near both, counted once
    assert pointing(strengths(), near_lesions(LESIONS, 50)) == 0

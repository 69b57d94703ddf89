import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import label, regionprops

from lemlight.metrics.overlap import (
    BOX_CUTOFFS,
    OVERLAPS,
    box_hits,
    contour_boxes,
    lesion_boxes,
    overlaps,
    weighted_max_box_acc,
)


def naive_boxes(mask):
    """8-connected regions, and holes (4-connected background off the border) with the ring of pixels around them."""
    boxes = [
        (x0, y0, x1, y1) for y0, x0, y1, x1 in (region.bbox for region in regionprops(label(mask, connectivity=2)))
    ]
    for hole in regionprops(label(np.pad(~mask, 1, constant_values=True), connectivity=1)):
        y0, x0, y1, x1 = (side - 1 for side in hole.bbox)
        if y0 >= 0:  # the background around everything starts in the padding
            boxes.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    return boxes


def naive_overlap(box, other):
    """Intersection over union by counting pixels."""
    pixels = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (box, other)]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@settings(deadline=None, max_examples=100)
@given(masks)
def test_every_contour_has_a_box_also_at_the_border_and_around_holes(mask):
    assert sorted(map(tuple, contour_boxes(mask).tolist())) == sorted(naive_boxes(mask))


@settings(deadline=None, max_examples=50)
@given(masks, masks)
def test_overlaps_agree_with_counting_pixels(mask, other):
    boxes, others = contour_boxes(mask), contour_boxes(other)
    expected = [[naive_overlap(a, b) for b in others.tolist()] for a in boxes.tolist()]
    np.testing.assert_allclose(overlaps(boxes, others), np.array(expected).reshape(len(boxes), len(others)))


def test_a_lesion_of_several_pieces_has_one_box_and_labels_may_be_missing():
    lesions = np.zeros((5, 8), np.uint8)
    lesions[1, 1] = lesions[3, 4] = 1
    lesions[0, 7] = 3
    assert lesion_boxes(lesions).tolist() == [[1, 1, 5, 4], [7, 0, 8, 1]]


def test_the_drawn_case():
    lesions = np.zeros((5, 6), np.uint8)
    lesions[1:3, 1:5] = 1  # 2 x 4 px
    strength = np.zeros((5, 6), np.float32)
    strength[1:3, 1:5] = [[0.3, 0.6, 0.6, 0.3], [0.3, 0.6, 0.9, 0.3]]
    strength[4, 0] = 0.1
    # up to 0.3 the box is the lesion (1); up to 0.6 it is 2 x 2 of 8 px (0.5); up to 0.9 one px (1 / 8)
    expected = [[cutoff <= (0.3 if overlap > 0.5 else 0.6) for cutoff in BOX_CUTOFFS] for overlap in OVERLAPS]
    np.testing.assert_array_equal(box_hits(lesions, strength), expected)


def test_any_box_may_match_any_lesion():
    lesions = np.zeros((4, 9), np.uint8)
    lesions[0, 0], lesions[2, 5:7] = 1, 2
    strength = np.zeros((4, 9), np.float32)
    strength[0:4, 2:4] = 1
    assert not box_hits(lesions, strength).any()
    strength[2, 5:7] = 1
    assert box_hits(lesions, strength).all()


def test_without_a_prediction_or_a_lesion_nothing_matches():
    lesions = np.ones((3, 4), np.uint8)
    assert not box_hits(lesions, np.zeros((3, 4), np.float32)).any()
    assert not box_hits(np.zeros((3, 4), np.uint8), np.ones((3, 4), np.float32)).any()


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

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from lemlight.metrics.overlap import BINS, LEVELS, strength_histogram, weighted_pxap


def random_images(count, seed, levels=LEVELS):
    """Images of different, non-square sizes, strengths of few levels, so that there are ties."""
    generator = np.random.default_rng(seed)
    images = []
    for index in range(count):
        shape = (3 + index % 4, 6 + index % 3)
        strength = (generator.integers(0, levels + 1, shape) / levels).astype(np.float32)
        lesions = (generator.random(shape) < 0.3).astype(np.uint8)
        lesions[0, 0] = 1
        images.append((lesions, strength))
    return images


def pooled_average_precision(images):
    truth = np.concatenate([lesions.ravel() > 0 for lesions, _ in images])
    return average_precision_score(truth, np.concatenate([strength.ravel() for _, strength in images]))


def test_the_drawn_case():
    strength = np.array([[1.0, 0.5, 0.5], [0.25, 0.0, 0.0]], np.float32)
    lesions = np.array([[1, 0, 1], [0, 2, 0]], np.uint8)
    # at 1: 1 of 1 px right, recall 1/3; at 0.5: 2 of 3, recall 2/3; at 0.25: nothing new; at 0: 3 of 6, recall 1
    value = weighted_pxap(strength_histogram(lesions, strength)[None], np.ones((1, 1)))
    np.testing.assert_allclose(value, [(1 + 2 / 3 + 3 / 6) / 3])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 10_000), st.sampled_from([4, 64, LEVELS]))
def test_it_is_the_average_precision_of_scikit_learn_for_strengths_of_its_levels(count, seed, levels):
    images = random_images(count, seed, levels)
    histograms = np.stack([strength_histogram(*image) for image in images])
    value = weighted_pxap(histograms, np.ones((1, count)))
    np.testing.assert_allclose(value, [pooled_average_precision(images)], rtol=1e-12)


def test_a_weight_repeats_an_image():
    images = random_images(4, seed=3)
    histograms = np.stack([strength_histogram(*image) for image in images])
    weights = np.random.default_rng(0).integers(0, 4, (50, 4)).astype(float)
    weights[:, 1] += 1
    expected = [
        pooled_average_precision([image for image, times in zip(images, row, strict=True) for _ in range(int(times))])
        for row in weights
    ]
    np.testing.assert_allclose(weighted_pxap(histograms, weights), expected, rtol=1e-12)


def test_strengths_between_two_levels_cost_little():
    generator = np.random.default_rng(1)
    lesions = np.zeros((60, 80), np.uint8)
    lesions[20:40, 30:60] = 1
    strength = np.clip(generator.random((60, 80)) * 0.7 + 0.3 * lesions, 0, 1).astype(np.float32)
    value = weighted_pxap(strength_histogram(lesions, strength)[None], np.ones((1, 1)))[0]
    assert value == pytest.approx(pooled_average_precision([(lesions, strength)]), abs=2e-3)


def test_a_histogram_counts_every_pixel_once_on_its_side():
    lesions, strength = random_images(1, seed=5)[0]
    histogram = strength_histogram(lesions, strength)
    assert histogram.shape == (2, BINS)
    assert histogram[1].sum() == np.count_nonzero(lesions)
    assert histogram.sum() == lesions.size


def test_without_a_lesion_it_is_undefined_and_a_map_of_zeros_has_the_share_of_lesion_pixels():
    lesions = np.zeros((4, 6), np.uint8)
    histogram = strength_histogram(lesions, np.ones((4, 6), np.float32))
    assert np.isnan(weighted_pxap(histogram[None], np.ones((2, 1)))).all()
    assert np.isnan(weighted_pxap(np.zeros((0, 2, BINS), np.int64), np.ones((2, 0)))).all()
    lesions[1, :3] = 1
    histogram = strength_histogram(lesions, np.zeros((4, 6), np.float32))
    np.testing.assert_allclose(weighted_pxap(histogram[None], np.ones((1, 1))), [3 / 24])

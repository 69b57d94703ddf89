import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lemlight.building import build
from lemlight.data.augment import gaussian, uniform
from lemlight.errors import LemlightError
from tests.parts import part_of

OFF = {"flip": 0.0, "vertical_flip": 0.0, "rotate": 0.0, "brightness_contrast": 0.0, "noise": 0.0}
ALL = {"flip": 1, "vertical_flip": 1, "rotate": 1, "brightness_contrast": 1, "noise": 1}
ALL |= {"brightness": 0.5, "contrast": 0.5, "noise_std": 0.3}


def standard(**arguments):
    return build(part_of("augmentation", "standard", **arguments), "augmentation")


def only(**steps):
    return standard(**(OFF | steps))


def augmented(augment, image, seed):
    """Both stages for one image: uint16 as stored, then float32."""
    return augment.on_device(torch.from_numpy(augment(image, seed))[None, None], torch.tensor([seed]))[0, 0].numpy()


@pytest.fixture
def image():
    """A breast on the left, 61x43, with air on the right and below."""
    pixels = np.zeros((61, 43), np.uint16)
    pixels[:50, :30] = np.random.default_rng(0).integers(13000, 52000, (50, 30))
    return pixels


def test_none_is_the_identity(image):
    assert build(part_of("augmentation", "none"), "augmentation")(image, 3) is image


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(9, 40), st.integers(9, 40))
def test_types_ranges_and_air_hold_for_any_seed(seed, height, width):
    image = np.zeros((height, width), np.uint16)
    image[: height // 2, : width // 2] = 1  # as dark as a breast can be
    augment = standard(**ALL)
    moved = augment(image, seed)
    out = augmented(augment, image, seed)
    assert (moved.shape, moved.dtype, out.dtype) == (image.shape, np.uint16, np.float32)
    assert out.max() <= 1
    np.testing.assert_array_equal(out > 0, moved > 0)  # air and nothing but air is 0, whatever shift and noise
    assert (out > 0).sum() <= 1.5 * (image > 0).sum() + height + width  # no more breast than moved


def test_brightness_and_contrast_are_a_shift_and_a_factor():
    image = np.repeat(np.array([[20000, 30000, 40000]], np.uint16), 40, axis=0)
    augment, found = only(brightness_contrast=1, brightness=0.1, contrast=0.2), []
    for seed in range(100):
        low, middle, high = augmented(augment, image, seed)[0].astype(float)
        assert middle == pytest.approx((low + high) / 2, abs=1e-6)
        gain = (high - low) * 65535 / 20000
        found.append((gain, middle - gain * 30000 / 65535))
    gains, shifts = np.array(found).T
    assert stats.kstest((gains - 0.8) / 0.4, "uniform").pvalue > 1e-3
    assert stats.kstest((shifts + 0.1) / 0.2, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(gains, shifts)[0, 1]) < 0.3


def test_a_batch_at_once_as_on_a_gpu_is_the_same_as_image_by_image(image):
    augment, images = standard(**(ALL | {"noise": 0.5})), torch.from_numpy(np.stack([image] * 6))[:, None]
    seeds = torch.arange(6)
    one_by_one = augment.on_device(images, seeds)
    at_once = augment.shade(images, seeds, at_once=True)
    torch.testing.assert_close(one_by_one, at_once, rtol=0, atol=2e-7)
    assert len({float(one.sum()) for one in one_by_one}) == 6


def test_the_noise_is_normal_and_its_seeds_and_pixels_have_nothing_in_common():
    noise = gaussian(torch.tensor([0, 1, 2**31 - 1, -5]), 200_001)
    assert noise.shape == (4, 200_001)
    for one in noise:
        assert stats.kstest(one.numpy(), "norm").pvalue > 1e-3
        assert all(abs(float((one[:-lag] * one[lag:]).mean())) < 0.01 for lag in (1, 2, 3, 4, 8, 256))
    assert np.abs(np.corrcoef(noise.numpy()) - np.eye(4)).max() < 0.01
    drawn = uniform(torch.arange(20_000), 3).numpy()
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in drawn.T)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03


def test_the_generator_is_splitmix64():
    """Against Python's integers, which do not overflow."""
    mask = 2**64 - 1

    def mixed(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    for seed in (0, 7, 2**31 - 1):
        state = mixed(seed * 0x9E3779B97F4A7C15 & mask)
        words = [mixed(state + step * 0x9E3779B97F4A7C15 & mask) for step in range(1, 9)]
        expected = [(word >> 40) / 2**24 for word in words]
        assert uniform(torch.tensor([seed]), 8)[0].tolist() == expected


def test_the_seed_decides_alone(image):
    augment = standard(**ALL)
    first = augmented(augment, image, 7)
    np.random.default_rng(1).normal(size=9)
    other, again = augmented(augment, image, 8), augmented(augment, image, 7)
    fresh = augmented(pickle.loads(pickle.dumps(standard(**ALL))), image, 7)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    assert not np.array_equal(first, other)


def test_the_input_is_left_as_it_was(image):
    before = image.copy()
    for seed in range(5):
        standard(**ALL)(image, seed)
    np.testing.assert_array_equal(image, before)


def test_flips_are_exact(image):
    for step, axis in {"flip": 1, "vertical_flip": 0}.items():
        np.testing.assert_array_equal(only(**{step: 1})(image, 0), np.flip(image, axis))


def test_probabilities_are_kept(image):
    augment = only(flip=0.3)
    flipped = sum(not np.array_equal(augment(image, seed), image) for seed in range(300))
    assert 60 <= flipped <= 120


def test_rotation_stays_within_its_range():
    centre = np.array([40.0, 30.0])
    image = np.zeros((81, 61), np.uint16)
    image[10:15, 28:33] = 65535  # a dot above the centre
    angles = []
    for seed in range(60):
        y, x = np.argwhere(only(rotate=1, degrees=30)(image, seed) > 32767).mean(axis=0) - centre
        angles.append(np.degrees(np.arctan2(x, -y)))
    assert max(np.abs(angles)) <= 31.5
    assert min(angles) < -20
    assert max(angles) > 20


def test_noise_has_the_spread_asked_for():
    image = np.full((200, 150), 32768, np.uint16)
    spreads = [augmented(only(noise=1, noise_std=0.1), image, seed).std() for seed in range(30)]
    assert max(spreads) <= 0.105
    assert max(spreads) > 0.07
    assert min(spreads) < 0.03


def test_impossible_settings_are_listed_together():
    with pytest.raises(LemlightError) as error:
        standard(flip=1.5, degrees=200, noise_std=-1)
    for part in ("flip=1.5", "degrees=200", "noise_std=-1"):
        assert part in str(error.value)

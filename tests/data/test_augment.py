import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.building import build
from lemlight.errors import LemlightError
from tests.parts import part_of

OFF = {"flip": 0.0, "vertical_flip": 0.0, "rotate": 0.0, "brightness_contrast": 0.0, "noise": 0.0}
ALL = {"flip": 1, "vertical_flip": 1, "rotate": 1, "brightness_contrast": 1, "noise": 1}
ALL |= {"brightness": 0.5, "contrast": 0.5, "noise_std": 0.3}


def standard(**arguments):
    return build(part_of("augmentation", "standard", **arguments), "augmentation")


def only(**steps):
    return standard(**(OFF | steps))


@pytest.fixture
def image():
    """A breast on the left, 61x43, with air on the right and below."""
    pixels = np.zeros((61, 43), np.float32)
    pixels[:50, :30] = np.random.default_rng(0).uniform(0.2, 0.8, (50, 30))
    return pixels


def test_none_is_the_identity(image):
    assert build(part_of("augmentation", "none"), "augmentation")(image, 3) is image


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(9, 40), st.integers(9, 40))
def test_types_ranges_and_air_hold_for_any_seed(seed, height, width):
    image = np.zeros((height, width), np.float32)
    image[: height // 2, : width // 2] = 0.5
    out = standard(**ALL)(image, seed)
    assert (out.shape, out.dtype) == (image.shape, np.float32)
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out > 0).sum() <= 1.5 * (image > 0).sum() + height + width  # air stays air: no more breast than moved


def test_brightness_and_noise_leave_the_air_at_zero(image):
    for seed in range(20):
        out = only(brightness_contrast=1, brightness=0.5, noise=1, noise_std=0.2)(image, seed)
        assert (out[image == 0] == 0).all()
        assert not np.array_equal(out, image)


def test_the_seed_decides_alone(image):
    augment = standard(**ALL)
    first = augment(image, 7)
    np.random.default_rng(1).normal(size=9)
    other, again = augment(image, 8), augment(image, 7)
    fresh = pickle.loads(pickle.dumps(standard(**ALL)))(image, 7)
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
    image = np.zeros((81, 61), np.float32)
    image[10:15, 28:33] = 1.0  # a dot above the centre
    angles = []
    for seed in range(60):
        y, x = np.argwhere(only(rotate=1, degrees=30)(image, seed) > 0.5).mean(axis=0) - centre
        angles.append(np.degrees(np.arctan2(x, -y)))
    assert max(np.abs(angles)) <= 31.5
    assert min(angles) < -20
    assert max(angles) > 20


def test_noise_has_the_spread_asked_for():
    image = np.full((200, 150), 0.5, np.float32)
    spreads = [only(noise=1, noise_std=0.1)(image, seed).std() for seed in range(30)]
    assert max(spreads) <= 0.105
    assert max(spreads) > 0.07
    assert min(spreads) < 0.03


def test_impossible_settings_are_listed_together():
    with pytest.raises(LemlightError) as error:
        standard(flip=1.5, degrees=200, noise_std=-1)
    for part in ("flip=1.5", "degrees=200", "noise_std=-1"):
        assert part in str(error.value)

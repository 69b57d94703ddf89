import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.data.augment import AugmentSettings, build_augmentation
from lemlight.errors import LemlightError

OFF = {"flip": 0.0, "rotate": 0.0, "brightness_contrast": 0.0, "noise": 0.0}
ALL = AugmentSettings(
    flip=1, vertical_flip=1, rotate=1, brightness_contrast=1, brightness=0.5, contrast=0.5, noise=1, noise_std=0.3
)


def only(**steps):
    return build_augmentation(AugmentSettings(**(OFF | steps)))


@pytest.fixture
def image():
    """A breast on the left, 61x43, with air on the right and below."""
    pixels = np.zeros((61, 43), np.float32)
    pixels[:50, :30] = np.random.default_rng(0).uniform(0.2, 0.8, (50, 30))
    return pixels


@pytest.fixture
def mask():
    lesion = np.zeros((61, 43), np.uint8)
    lesion[20:29, 8:19] = 1
    return lesion


def test_none_is_the_identity(image, mask):
    out, moved = build_augmentation(None)(image, mask, 3)
    assert out is image
    assert moved is mask


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(9, 40), st.integers(9, 40))
def test_types_ranges_and_air_hold_for_any_seed(seed, height, width):
    image = np.zeros((height, width), np.float32)
    image[: height // 2, : width // 2] = 0.5
    mask = (image > 0).astype(np.uint8)
    out, moved = build_augmentation(ALL)(image, mask, seed)
    assert out.shape == moved.shape == image.shape
    assert (out.dtype, moved.dtype) == (np.float32, np.uint8)
    assert out.min() >= 0
    assert out.max() <= 1
    assert set(np.unique(moved)) <= {0, 1}
    # the mask is the breast here: where it does not lie after the move there is air
    assert (out[moved == 0] == 0).all()


def test_brightness_and_noise_leave_the_air_at_zero(image, mask):
    for seed in range(20):
        out, _ = only(brightness_contrast=1, brightness=0.5, noise=1, noise_std=0.2)(image, mask, seed)
        assert (out[image == 0] == 0).all()
        assert not np.array_equal(out, image)


def test_the_seed_decides_alone(image, mask):
    augment = build_augmentation(ALL)
    first, first_mask = augment(image, mask, 7)
    np.random.default_rng(1).normal(size=9)
    other, _ = augment(image, mask, 8)
    again, again_mask = augment(image, mask, 7)
    fresh, _ = pickle.loads(pickle.dumps(build_augmentation(ALL)))(image, mask, 7)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first_mask, again_mask)
    np.testing.assert_array_equal(first, fresh)
    assert not np.array_equal(first, other)


def test_the_input_is_left_as_it_was(image, mask):
    before, mask_before = image.copy(), mask.copy()
    for seed in range(5):
        build_augmentation(ALL)(image, mask, seed)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(mask, mask_before)


def test_flips_are_exact(image, mask):
    for step, axis in {"flip": 1, "vertical_flip": 0}.items():
        out, moved = only(**{step: 1})(image, mask, 0)
        np.testing.assert_array_equal(out, np.flip(image, axis))
        np.testing.assert_array_equal(moved, np.flip(mask, axis))


def test_probabilities_are_kept(image, mask):
    augment = only(flip=0.3)
    flipped = sum(not np.array_equal(augment(image, mask, seed)[0], image) for seed in range(300))
    assert 60 <= flipped <= 120


def test_rotation_moves_image_and_mask_alike_and_stays_within_its_range():
    centre = np.array([40.0, 30.0])
    image = np.zeros((81, 61), np.float32)
    image[10:15, 28:33] = 1.0  # a dot above the centre
    mask = (image > 0).astype(np.uint8)
    angles = []
    for seed in range(60):
        out, moved = only(rotate=1, degrees=30)(image, mask, seed)
        dot = np.argwhere(moved).mean(axis=0)
        np.testing.assert_allclose(np.argwhere(out > 0.5).mean(axis=0), dot, atol=0.7)
        y, x = dot - centre
        angles.append(np.degrees(np.arctan2(x, -y)))
    assert max(np.abs(angles)) <= 31.5
    assert min(angles) < -20
    assert max(angles) > 20


def test_noise_has_the_spread_asked_for():
    image, mask = np.full((200, 150), 0.5, np.float32), np.zeros((200, 150), np.uint8)
    spreads = [only(noise=1, noise_std=0.1)(image, mask, seed)[0].std() for seed in range(30)]
    assert max(spreads) <= 0.105
    assert max(spreads) > 0.07
    assert min(spreads) < 0.03


def test_impossible_settings_are_listed_together():
    with pytest.raises(LemlightError) as error:
        AugmentSettings(flip=1.5, degrees=200, noise_std=-1)
    message = str(error.value)
    assert "augmentation.flip must lie in [0, 1], got 1.5" in message
    assert "augmentation.degrees must lie in [0, 180], got 200" in message
    assert "augmentation.noise_std must lie in [0, 1], got -1" in message

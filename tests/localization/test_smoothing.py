"""Smoothing a location map: against a naive loop, at the border, zeros and tiny values."""

import numpy as np
import pytest

from lemlight.errors import LemlightError
from lemlight.localization.regions import smoothed


def naive_smoothed(location_map, sigma):
    """Every px weighs every px within 4 sigma of it, the image mirrored at its border."""
    reach = int(4 * sigma + 0.5)
    mirrored = np.pad(location_map, reach, mode="symmetric")
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    out = np.zeros_like(location_map)
    for y, x in np.ndindex(location_map.shape):
        out[y, x] = weights @ mirrored[y : y + 2 * reach + 1, x : x + 2 * reach + 1] @ weights
    return out / out.max()


@pytest.mark.parametrize("sigma", [0.6, 2.0, 5.0])
def test_smoothing_against_a_naive_loop(sigma):
    location_map = np.random.default_rng(0).random((9, 13)) ** 4
    found = smoothed(location_map, sigma)
    assert found.dtype == np.float32
    assert found.max() == 1.0
    np.testing.assert_allclose(found, naive_smoothed(location_map, sigma), atol=1e-5)


def test_without_smoothing_the_map_is_scaled_only():
    location_map = np.array([[0.0, 3.0], [1.5, 6.0]])
    np.testing.assert_array_equal(smoothed(location_map, 0), location_map / 6)


@pytest.mark.parametrize("sigma", [0, 2.5])
def test_zeros_stay_zeros_and_tiny_values_do_not_vanish(sigma):
    np.testing.assert_array_equal(smoothed(np.zeros((4, 6)), sigma), np.zeros((4, 6)))
    location_map = np.random.default_rng(1).random((6, 5))
    np.testing.assert_allclose(smoothed(location_map * 1e-40, sigma), smoothed(location_map, sigma), atol=1e-6)


def test_a_given_map_is_not_changed():
    location_map = np.full((3, 4), 2.0, dtype=np.float32)
    smoothed(location_map, 1)
    np.testing.assert_array_equal(location_map, np.full((3, 4), 2.0))


@pytest.mark.parametrize("sigma", [-1.0, float("nan")])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(LemlightError, match=f"sigma .* got {sigma}"):
        smoothed(np.ones((2, 2)), sigma)

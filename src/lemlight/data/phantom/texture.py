"""Random textures: power-law noise, and noise that streams towards a point."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@lru_cache(maxsize=32)
def _power_law_filter(height: int, width: int, beta: float) -> Array:
    """Amplitudes of a 1/f^beta power spectrum, in the half plane of `rfft2`; no mean."""
    rows = fft.fftfreq(height)[:, None] * height
    columns = fft.rfftfreq(width)[None, :] * width
    frequency = np.hypot(rows / height, columns / width)
    frequency[0, 0] = np.inf
    return np.asarray(frequency ** (-beta / 2), dtype=np.float32)


def power_law_noise(rng: np.random.Generator, shape: tuple[int, int], beta: float) -> Array:
    """Gaussian noise (H, W) with power 1/f^beta, mean 0 and standard deviation 1; beta is about 3 in mammograms."""
    height, width = (fft.next_fast_len(side, real=True) for side in shape)
    spectrum = fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    noise = fft.irfft2(spectrum * _power_law_filter(height, width, beta), s=(height, width))[: shape[0], : shape[1]]
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def streaming_noise(rng: np.random.Generator, radius: Array, angle: Array, cell_mm: float, beta: float) -> Array:
    """Noise (H, W) of mean 0 and deviation 1 stretched along the rays of a centre.

    radius: distance from the centre in mm, (H, W); angle: in radians, (H, W); cell_mm: length of a streak.
    """
    polar = power_law_noise(rng, (64, 512), beta)
    where = [radius / cell_mm, angle * (512 / (2 * np.pi))]
    noise = ndimage.map_coordinates(polar, where, order=1, mode="grid-wrap", output=np.float32)
    return np.asarray(noise, dtype=np.float32)


def ridges(noise: Array, sharpness: float) -> Array:
    """Thin bright lines in [0, 1] along the zero crossings of a noise: the look of fibrous tissue."""
    return np.asarray(np.exp(-np.abs(noise) * sharpness), dtype=np.float32)


def enlarge(field: Array, shape: tuple[int, int]) -> Array:
    """A smooth field brought to a finer grid (H, W) of the same extent, bicubic."""
    height, width = shape
    return np.asarray(Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def smoothstep(value: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)

"""The pictures of the phantom: where things lie, how large they are, and that simple statistics tell no class."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage
from sklearn.metrics import roc_auc_score

from lemlight.data.phantom.patients import BENIGN, MALIGNANT, PhantomSettings, draw_lesion, draw_patient, generator
from lemlight.data.phantom.render import DRAWINGS, render
from lemlight.data.phantom.tissue import draw_anatomy, power_law_noise

SMALL = PhantomSettings(seed=8, scale=0.25, malignant_share=0.5, benign_share=1.0)
BREASTS = [(side, view) for side in "LR" for view in ("CC", "MLO")]


@pytest.fixture(scope="module")
def renderings():
    return {(number, *breast): render(SMALL, number, *breast) for number in range(10) for breast in BREASTS}


def test_pixels_are_finite_and_within_0_and_1(renderings):
    for rendering in renderings.values():
        assert rendering.pixels.dtype == np.float32
        assert np.isfinite(rendering.pixels).all()
        assert 0 <= rendering.pixels.min() < 0.02
        assert 0.5 < rendering.pixels.max() <= 1


def test_breast_is_brighter_than_air_and_one_piece(renderings):
    for rendering in renderings.values():
        assert ndimage.label(rendering.breast)[1] == 1
        air = rendering.pixels[~ndimage.binary_dilation(rendering.breast, iterations=3)]
        assert np.median(air) < 0.02
        assert rendering.pixels[rendering.breast].mean() > 0.15


def test_left_breasts_lie_on_the_left_and_right_ones_on_the_right(renderings):
    for (_, side, _), rendering in renderings.items():
        half = rendering.breast.shape[1] // 2
        left, right = rendering.breast[:, :half].sum(), rendering.breast[:, -half:].sum()
        assert (left > 2 * right) if side == "L" else (right > 2 * left)


def test_muscle_is_in_the_oblique_view_only(renderings):
    for (_, side, view), rendering in renderings.items():
        rows, columns = rendering.pixels.shape
        corner = np.s_[: rows // 20, : columns // 16] if side == "L" else np.s_[: rows // 20, -columns // 16 :]
        assert (rendering.pixels[corner].mean() > 0.25) == (view == "MLO")


def test_lesions_lie_in_the_breast_and_have_their_size(renderings):
    for rendering in renderings.values():
        assert not (rendering.mask & ~rendering.breast).any()
        assert 0.001 <= rendering.mask.sum() / rendering.breast.sum() <= 0.02


def test_every_kind_of_lesion_occurs(renderings):
    assert {rendering.lesion.finding for rendering in renderings.values()} == {*MALIGNANT, *BENIGN}


def test_lesion_is_as_far_behind_the_nipple_in_both_views(renderings):
    for (number, side, view), rendering in renderings.items():
        if view == "CC":
            other = renderings[number, side, "MLO"]
            assert other.lesion == rendering.lesion
            depths = []
            for image in (rendering, other):
                columns = np.nonzero(image.mask.any(axis=0))[0]
                wall = columns if side == "L" else image.mask.shape[1] - 1 - columns
                depths.append(image.patient.depth - wall.mean() * image.spacing)
            assert depths[0] == pytest.approx(depths[1], abs=10)


def test_lesion_changes_nothing_far_from_it():
    healthy = PhantomSettings(seed=8, scale=0.25, malignant_share=0.0, benign_share=0.0)
    for number in range(3):
        with_lesion, without = (render(settings, number, "R", "MLO") for settings in (SMALL, healthy))
        assert without.lesion is None
        assert not without.mask.any()
        changed = with_lesion.pixels != without.pixels
        near = ndimage.distance_transform_edt(~with_lesion.mask) * with_lesion.spacing < 25
        assert changed.any()
        assert not (changed & ~near).any()


def test_same_arguments_same_bits_and_another_seed_another_image():
    first, second = (render(SMALL, 2, "L", "CC") for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    more = PhantomSettings(patients=7, seed=8, scale=0.25, malignant_share=0.5, benign_share=1.0)
    assert np.array_equal(first.pixels, render(more, 2, "L", "CC").pixels)
    other = render(PhantomSettings(seed=9, scale=0.25), 2, "L", "CC")
    assert other.pixels.shape != first.pixels.shape or not np.array_equal(other.pixels, first.pixels)


def test_simple_statistics_of_an_image_tell_no_class():
    settings = PhantomSettings(seed=0, scale=0.25)
    patients = 80
    labels, statistics = [], []
    for number in range(patients):
        for side in "LR":
            image = render(settings, number, side, "CC")
            inside = image.pixels[image.breast]
            labels.append(side == image.patient.malignant_side)
            statistics.append([image.pixels.mean(), inside.mean(), inside.std(), image.breast.sum(), image.pixels.size])
    ill, healthy = sum(labels), len(labels) - sum(labels)
    deviation = math.sqrt((ill + healthy + 1) / (12 * ill * healthy))  # of the AUC of pure chance (Mann-Whitney)
    assert ill == pytest.approx(0.45 * patients, abs=2)
    for statistic in zip(*statistics, strict=True):
        assert abs(roc_auc_score(labels, statistic) - 0.5) < 3 * deviation


@pytest.mark.parametrize("finding", [*MALIGNANT, *BENIGN])
def test_contrast_falls_with_difficulty(finding):
    healthy = PhantomSettings(seed=8, scale=0.25, malignant_share=0.0, benign_share=0.0)
    images = [(n, side) for n in range(10) for side in "LR" if finding_of(n, side) == finding][:2]
    assert images
    for number, side in images:
        base = render(healthy, number, side, "CC").pixels
        added = []
        for difficulty in (0.0, 0.5, 1.0):
            phantom = PhantomSettings(seed=8, scale=0.25, malignant_share=0.5, benign_share=1.0, difficulty=difficulty)
            image = render(phantom, number, side, "CC")
            added.append(np.abs(image.pixels - base)[image.mask].mean())
        assert added[0] > 1.2 * added[1] > 1.44 * added[2] > 0


def finding_of(number, side):
    return draw_lesion(SMALL, draw_patient(SMALL, number), side).finding


def test_malignant_and_benign_masses_are_alike_in_size_and_brightness_and_apart_in_shape():
    values = {}
    for finding in ("spiculated_mass", "smooth_mass"):
        draw = DRAWINGS[finding][0]
        grid = draw_anatomy(generator(0, 0), draw_patient(PhantomSettings(), 0), "CC").grid
        bodies = [draw(generator(5, k), grid, (40.0, 120.0), 6.0, 0.5) for k in range(12)]
        values[finding] = [
            np.mean([mask.sum() for _, _, mask in bodies]),
            np.mean([value[mask].mean() for _, value, mask in bodies]),
            np.mean([np.ptp(value[np.abs(patch.radius - 8.5) < 0.3]) for patch, value, _ in bodies]),
        ]
    size, brightness, spikes = (a / b for a, b in zip(values["spiculated_mass"], values["smooth_mass"], strict=True))
    assert 0.7 < size < 1.4
    assert 0.7 < brightness < 1.4
    assert spikes > 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([2.0, 3.0]), st.integers(150, 300), st.integers(150, 300))
def test_noise_has_its_power_law(seed, beta, height, width):
    noise = power_law_noise(np.random.default_rng(seed), (height, width), beta)
    assert noise.shape == (height, width)
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(fft.fft2((noise - noise.mean()) * window)) ** 2
    frequency = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width)[None, :])
    bands = [(0.04, 0.06), (0.2, 0.3)]
    low, high = (power[(frequency > a) & (frequency < b)].mean() for a, b in bands)
    assert math.log(low / high) / math.log(5) == pytest.approx(beta, abs=0.35)

"""Which file of a CBIS-DDSM series is the mammogram and which the mask."""

import cv2
import numpy as np
import pytest

from lemlight.data.datasets import cbis
from lemlight.data.datasets.cbis import choose_mammogram, choose_mask, is_two_valued
from lemlight.data.reading.headers import Header
from tests.layouts.cbis import save_dicom


def of(name, shape, bits=8):
    return Header(shape=shape, bits=bits, path=name)


FULL = of("full", (5041, 2056), 16)


@pytest.fixture
def two_valued(monkeypatch):
    """Those files have two values; each one that is asked for is noted."""

    def set_them(*names):
        asked = []
        monkeypatch.setattr(cbis, "is_two_valued", lambda path: asked.append(path) or path in names)
        return asked

    return set_them


@pytest.mark.parametrize("swapped", [False, True])
def test_the_file_of_the_mammograms_shape_is_the_mask_and_no_pixel_is_read(two_valued, swapped):
    asked = two_valued()
    files = [of("crop", (300, 280)), of("mask", (5041, 2056))]
    chosen, how = choose_mask(files[::-1] if swapped else files, FULL)
    assert (chosen.path, how, asked) == ("mask", "", [])


def test_two_files_of_the_mammograms_shape_are_told_apart_by_their_pixels(two_valued):
    two_valued("mask")
    assert choose_mask([of("crop", (5041, 2056)), of("mask", (5041, 2056))], FULL)[0].path == "mask"


def test_a_mammogram_among_the_masks_is_none(two_valued):
    two_valued()
    assert choose_mask([of("full", (5041, 2056), bits=16)], FULL) == (None, "crop")
    two_valued("deep")
    assert choose_mask([of("deep", (5041, 2056), bits=16)], FULL)[0].path == "deep"


@pytest.mark.parametrize(
    ("mammogram", "mask", "how"),
    [
        ((5041, 2056), (4386, 1789), "rescaled"),  # Mass-Test_P_00145_LEFT_CC
        ((4624, 3056), (4688, 3088), "rescaled"),  # Calc-Test_P_00353_LEFT_CC
        ((4000, 2000), (4000, 2039), "rescaled"),
        ((4000, 2000), (4000, 2082), "aspect"),
        ((4000, 2000), (2000, 4000), "aspect"),
        ((4000, 2000), (2000, 1000), "rescaled"),
        ((4000, 2000), (1998, 999), "crop"),
    ],
)
def test_a_mask_of_another_size_needs_the_aspect(two_valued, mammogram, mask, how):
    two_valued("mask")
    files = [of("crop", (300, 280)), of("mask", mask)]
    chosen, found = choose_mask(files, of("full", mammogram, 16))
    assert found == how
    assert (chosen.path if chosen else None) == ("mask" if how == "rescaled" else None)


def test_a_large_crop_is_no_mask(two_valued):
    two_valued("mask")
    assert choose_mask([of("crop", (2521, 1028))], FULL) == (None, "crop")
    assert choose_mask([of("crop", (4800, 1957)), of("mask", (4386, 1789))], FULL)[0].path == "mask"
    assert choose_mask([], FULL) == (None, "crop")


def test_the_mammogram_is_the_largest_file_that_is_no_mask(two_valued):
    two_valued("mask")
    assert choose_mammogram([of("crop", (30, 20)), of("full", (300, 200), 16)]).path == "full"
    assert choose_mammogram([of("mask", (300, 200), 8), of("full", (300, 200), 16)]).path == "full"
    assert choose_mammogram([of("mask", (300, 200), 8), of("full", (300, 200), 8)]).path == "full"
    assert choose_mammogram([of("mask", (300, 200), 8)]).path == "mask"
    assert choose_mammogram([]) is None


@pytest.mark.parametrize("suffix", ["dcm", "jpg", "png"])
def test_two_values_are_seen_in_any_format(tmp_path, suffix):
    def save(name, pixels):
        path = tmp_path / f"{name}.{suffix}"
        save_dicom(path, pixels, "", "") if suffix == "dcm" else cv2.imwrite(str(path), pixels)
        return str(path)

    mask = np.zeros((100, 75), np.uint8)
    mask[33:58, 20:41] = 255
    assert is_two_valued(save("mask", mask))
    assert is_two_valued(save("negative", 255 - mask))
    assert not is_two_valued(save("empty", np.zeros((50, 40), np.uint8)))
    crop = np.random.default_rng(0).normal(120, 30, (50, 40)).clip(0, 255).astype(np.uint8)
    assert not is_two_valued(save("crop", crop))
    broken = tmp_path / f"broken.{suffix}"
    broken.write_bytes(b"no")
    assert not is_two_valued(str(broken))

"""Stored values become the brightness that the standard asks for, to the last step of the table."""

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RLELossless,
)

from lemlight.data.dicom import read_dicom

SHAPE = (37, 52)


def stored(bits=12, shape=SHAPE, seed=0):
    """Random values of the whole range, both its ends among them."""
    values = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=np.uint16)
    values.flat[:2] = 0, 2**bits - 1
    return values


def lookup_table(entries, first, bits, values, vr="US"):
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = values.astype("<u2").tobytes() if vr == "OW" else values.tolist()
    item["LUTData"].VR = vr
    return [item]


@pytest.mark.parametrize("shape_tag", [None, "INVERSE", "IDENTITY"])
def test_monochrome1_is_inverted_exactly_once(tmp_path, write_dicom, shape_tag):
    tags = {"WindowCenter": 1500, "WindowWidth": 2000, "BitsStored": 12}
    plain = read_dicom(write_dicom(tmp_path / "a.dcm", stored(), **tags)).pixels
    inverted = write_dicom(
        tmp_path / "b.dcm", stored(), **tags, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape=shape_tag
    )
    np.testing.assert_allclose(read_dicom(inverted).pixels, 1 - plain, atol=1e-7)
    assert plain.min() == 0
    assert plain.max() == 1


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", None]),
    centre=st.floats(-100, 5000),
    width=st.floats(1, 6000),
    rescale=st.sampled_from([None, (1, 0), (2.5, -1024), (-1, 4095)]),
    signed=st.booleans(),
)
def test_windows_agree_with_pydicom_on_the_whole_array(tmp_path, write_dicom, function, centre, width, rescale, signed):
    values = stored().astype(np.int16) - 2048 if signed else stored()
    centre, width = round(centre, 3), round(width, 3)
    slope, intercept = rescale or (None, None)
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "VOILUTFunction": function, "BitsStored": 12}
    path = write_dicom(tmp_path / "a.dcm", values, WindowCenter=centre, WindowWidth=width, **tags)
    dataset = pydicom.dcmread(path)
    with np.errstate(over="ignore"):  # a narrow SIGMOID
        expected = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low, high = (-2048, 2047) if signed else (0, 4095)
    bottom, top = ((slope or 1) * value + (intercept or 0) for value in (low, high))
    np.testing.assert_allclose(read_dicom(path).pixels, (expected - bottom) / (top - bottom), atol=1e-6)


def test_linear_window_by_hand(tmp_path, write_dicom):
    values = np.array([[0, 99, 100, 150, 200, 300]], dtype=np.uint16)
    tags = {"WindowCenter": 150, "WindowWidth": 101, "BitsStored": 12}
    linear = read_dicom(write_dicom(tmp_path / "a.dcm", values, **tags)).pixels
    np.testing.assert_allclose(linear, [[0, 0, 0.005, 0.505, 1, 1]], atol=1e-6)
    exact = read_dicom(write_dicom(tmp_path / "b.dcm", values, VOILUTFunction="LINEAR_EXACT", **tags)).pixels
    np.testing.assert_allclose(exact, [[0, 0, 0.5 / 101, 0.5, 50 / 101 + 0.5, 1]], atol=1e-6)
    sigmoid = read_dicom(write_dicom(tmp_path / "c.dcm", values, VOILUTFunction="SIGMOID", **tags)).pixels
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-4 * (values.astype(float) - 150) / 101)), atol=1e-6)


def test_the_first_of_several_windows_counts(tmp_path, write_dicom):
    one = write_dicom(tmp_path / "a.dcm", stored(), BitsStored=12, WindowCenter=900, WindowWidth=700)
    two = write_dicom(tmp_path / "b.dcm", stored(), BitsStored=12, WindowCenter=[900, 2000], WindowWidth=[700, 4000])
    np.testing.assert_array_equal(read_dicom(one).pixels, read_dicom(two).pixels)


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_voi_lut_goes_before_a_window(tmp_path, write_dicom, bits):
    table = np.linspace(2**bits - 1, 0, 3000).round().astype(int)
    path = write_dicom(tmp_path / "a.dcm", stored(), BitsStored=12, WindowCenter=50, WindowWidth=10)
    dataset = pydicom.dcmread(path)
    dataset.VOILUTSequence = lookup_table(3000, 500, bits, table)
    dataset.save_as(path)
    expected = table[np.clip(stored().astype(int) - 500, 0, 2999)] / (2**bits - 1)
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=1e-6)


def test_voi_lut_of_65536_entries(tmp_path, write_dicom):
    table = (np.arange(65536) ** 2 / 65535).round().astype(int)
    path = write_dicom(tmp_path / "a.dcm", stored(16), VOILUTSequence=lookup_table(0, 0, 16, table, vr="OW"))
    np.testing.assert_allclose(read_dicom(path).pixels, table[stored(16)] / 65535, atol=1e-6)


def test_modality_lut_sequence(tmp_path, write_dicom):
    table = np.linspace(100, 60000, 4096).round().astype(int)
    path = write_dicom(
        tmp_path / "a.dcm", stored(), BitsStored=12, ModalityLUTSequence=lookup_table(4096, 0, 16, table)
    )
    np.testing.assert_allclose(read_dicom(path).pixels, table[stored()] / 65535, atol=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1024), (0.01, 3)])
def test_rescale_without_window_keeps_the_whole_range(tmp_path, write_dicom, slope, intercept):
    path = write_dicom(tmp_path / "a.dcm", stored(), BitsStored=12, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_allclose(read_dicom(path).pixels, stored() / 4095, atol=1e-6)


def test_negative_slope_turns_the_brightness_round(tmp_path, write_dicom):
    tags = {"BitsStored": 12, "RescaleSlope": -1, "RescaleIntercept": 4095}
    path = write_dicom(tmp_path / "a.dcm", stored(), **tags)
    np.testing.assert_allclose(read_dicom(path).pixels, 1 - stored() / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda syntax: syntax.keyword)
def test_signed_values(tmp_path, write_dicom, syntax):
    values = stored().astype(np.int16) - 2048
    pixels = read_dicom(write_dicom(tmp_path / "a.dcm", values, syntax, BitsStored=12)).pixels
    np.testing.assert_allclose(pixels, stored() / 4095, atol=1e-6)


def test_values_above_bits_stored_are_clipped(tmp_path, write_dicom):
    values = np.array([[0, 4095, 4096, 40000]], dtype=np.uint16)
    pixels = read_dicom(write_dicom(tmp_path / "a.dcm", values, BitsStored=12)).pixels
    np.testing.assert_array_equal(pixels, [[0, 1, 1, 1]])


@pytest.mark.parametrize("empty", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
def test_half_of_a_pair_counts_as_nothing(tmp_path, write_dicom, empty):
    pair = ["RescaleSlope", "RescaleIntercept"] if "Rescale" in empty else ["WindowCenter", "WindowWidth"]
    tags = {keyword: "" if keyword == empty else 7 for keyword in pair}
    path = write_dicom(tmp_path / "a.dcm", stored(), BitsStored=12, **tags)
    np.testing.assert_allclose(read_dicom(path).pixels, stored() / 4095, atol=1e-6)


def test_an_empty_window_function_is_linear(tmp_path, write_dicom):
    tags = {"BitsStored": 12, "WindowCenter": 1500, "WindowWidth": 900}
    empty = write_dicom(tmp_path / "a.dcm", stored(), VOILUTFunction="", **tags)
    linear = write_dicom(tmp_path / "b.dcm", stored(), VOILUTFunction="LINEAR", **tags)
    np.testing.assert_array_equal(read_dicom(empty).pixels, read_dicom(linear).pixels)


def test_voi_lut_after_a_rescale_beyond_16_bits(tmp_path, write_dicom):
    table = np.arange(0, 4096, 4)
    path = write_dicom(
        tmp_path / "a.dcm",
        stored(),
        BitsStored=12,
        RescaleSlope=32,
        RescaleIntercept=0,
        VOILUTSequence=lookup_table(len(table), 60000, 12, table),
    )
    expected = table[np.clip(stored().astype(int) * 32 - 60000, 0, len(table) - 1)] / 4095
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=1e-6)

"""Stored values -> brightness by tables and windows: the standard by hand and as pydicom has it, odd tags included."""

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from lemlight.data.reading.dicom import read_dicom


def stored(bits=12, seed=0):
    """Random values of the whole range, both its ends among them."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (37, 52), dtype=np.uint16)
    values.flat[:2] = 0, 2**bits - 1
    return values


@pytest.fixture
def read(tmp_path, write_dicom):
    """Write values as DICOM of 12 bits with these tags, and read the pixels back."""

    def run(values, *options, **tags):
        tags = {"BitsStored": 12} | tags
        return read_dicom(write_dicom(tmp_path / "written.dcm", values, *options, **tags)).pixels

    return run


def lookup_table(entries, first, bits, values, vr="US"):
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = values.astype("<u2").tobytes() if vr == "OW" else values.tolist()
    item["LUTData"].VR = vr
    return [item]


@pytest.mark.parametrize("shape_tag", [None, "INVERSE", "IDENTITY"])
def test_monochrome1_is_inverted_exactly_once(read, shape_tag):
    tags = {"WindowCenter": 1500, "WindowWidth": 2000}
    plain = read(stored(), **tags)
    inverted = read(stored(), **tags, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape=shape_tag)
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-7)
    assert (plain.min(), plain.max()) == (0, 1)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", None]),
    centre=st.floats(-100, 5000),
    width=st.floats(20, 6000),  # with greys between black and white
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
    expected = ((expected - bottom) / (top - bottom)).clip(0, 1)
    if np.ptp(expected) < 0.01:  # the window shows nothing of the image
        expected = (values - low) / (high - low) if (slope or 1) > 0 else (high - values) / (high - low)
    np.testing.assert_allclose(read_dicom(path).pixels, expected, atol=1e-6)


def test_linear_window_by_hand(read):
    values = np.array([[0, 99, 100, 150, 200, 300]], dtype=np.uint16)
    tags = {"WindowCenter": 150, "WindowWidth": 101}
    linear = read(values, **tags)
    np.testing.assert_allclose(linear, [[0, 0, 0.005, 0.505, 1, 1]], atol=1e-6)
    exact = read(values, VOILUTFunction="LINEAR_EXACT", **tags)
    np.testing.assert_allclose(exact, [[0, 0, 0.5 / 101, 0.5, 50 / 101 + 0.5, 1]], atol=1e-6)
    sigmoid = read(values, VOILUTFunction="SIGMOID", **tags)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-4 * (values.astype(float) - 150) / 101)), atol=1e-6)


@pytest.mark.parametrize(
    ("centres", "widths"),
    [
        ([900, 2000], [700, 4000]),
        ([900, 900], [0, 700]),
        ([900, 900], [-5, 700]),
        (["", 900], ["", 700]),
        ([60000, 900], [10, 700]),  # shows nothing of the image
        ([900], [700, 4000]),
        ([2000, 900], [1, 700]),  # nothing but black and white
    ],
)
def test_the_first_window_that_can_be_used_counts(tmp_path, write_dicom, centres, widths):
    tags = {"BitsStored": 12, "WindowCenter": 900, "WindowWidth": 700}
    one = read_dicom(write_dicom(tmp_path / "a.dcm", stored(), **tags))
    several = read_dicom(
        write_dicom(tmp_path / "b.dcm", stored(), **tags | {"WindowCenter": centres, "WindowWidth": widths})
    )
    np.testing.assert_array_equal(several.pixels, one.pixels)
    assert ("not used" in " ".join(several.notes)) == (centres[0] != 900 or widths[0] <= 1)


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": "", "WindowWidth": 10},
        {"WindowCenter": "123456", "WindowWidth": "10"},  # becomes SECRET
        {"RescaleSlope": 0, "RescaleIntercept": 1},
        {"RescaleSlope": "123456", "RescaleIntercept": 1},
        {"VOILUTSequence": [Dataset()]},
        {"ModalityLUTSequence": [Dataset()]},
        {"VOILUTSequence": lookup_table(4096, 0, 16, np.arange(2000) * 32)},  # cut short
        {"NumberOfFrames": "123456"},
        {"NumberOfFrames": 0},
        {"PlanarConfiguration": 5},
        {"HighBit": 77},
        {"PixelPaddingValue": [1, 2]},
        {"PixelPaddingValue": "", "HighBit": None, "EstimatedRadiographicMagnificationFactor": ""},
        {"ImageType": "", "PatientOrientation": "", "ViewPosition": "", "PixelAspectRatio": ""},
    ],
)
def test_an_optional_tag_that_cannot_be_used_is_noted_without_its_value_and_the_image_is_read(
    tmp_path, write_dicom, tags
):
    path = write_dicom(tmp_path / "a.dcm", stored(), BitsStored=12, **tags)
    path.write_bytes(path.read_bytes().replace(b"123456", b"SECRET"))
    image = read_dicom(path)
    np.testing.assert_allclose(image.pixels, stored() / 4095, atol=1e-6)
    assert any("not used" in note for note in image.notes) == ("" not in tags.values())  # what is empty is not there
    assert "SECRET" not in str(image.notes)


def test_an_unknown_window_function_is_linear_and_noted(tmp_path, write_dicom):
    tags = {"BitsStored": 12, "WindowCenter": 1500, "WindowWidth": 900}
    odd = read_dicom(write_dicom(tmp_path / "a.dcm", stored(), VOILUTFunction="CUBIC", **tags))
    linear = read_dicom(write_dicom(tmp_path / "b.dcm", stored(), VOILUTFunction="LINEAR", **tags))
    np.testing.assert_array_equal(odd.pixels, linear.pixels)
    assert odd.notes == ("a window function that is invalid: LINEAR taken",)
    assert linear.notes == ()


LINE = np.linspace(0, 65535, 4096).round().astype(int)
TABLES = {  # values of the table, descriptor, other tags, and where in the table 12 bits end up
    "8 bits, before a window": (
        np.linspace(255, 0, 3000).round().astype(int),
        (3000, 500, 8),
        {"WindowCenter": 50, "WindowWidth": 10},
        lambda values: values - 500,
    ),
    "10 bits": (np.linspace(1023, 0, 3000).round().astype(int), (3000, 500, 10), {}, lambda values: values - 500),
    "65536 entries": (np.sqrt(np.arange(65536) * 65535).round().astype(int), (0, 0, 16), {}, lambda values: values),
    "after a rescale beyond 16 bits": (
        np.arange(0, 4096, 4),
        (1024, 60000, 12),
        {"RescaleSlope": 32, "RescaleIntercept": 0},
        lambda values: values * 32 - 60000,
    ),
    "longer than it says": (np.append(LINE, [7, 7]), (4096, 0, 16), {}, lambda values: values),
    "shorter than it says": (LINE, (8192, 0, 16), {}, lambda values: values),
    "more bits than it says": (LINE, (4096, 0, 12), {}, lambda values: values),
    "a negative start written as a positive one": (
        LINE,
        (4096, 65536 - 1024, 16),
        {"RescaleSlope": 1, "RescaleIntercept": -1024},
        lambda values: values,
    ),
}


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("kind", TABLES)
def test_voi_look_up_tables(read, kind, vr):
    table, (entries, first, bits), tags, places = TABLES[kind]
    found = read(stored(), VOILUTSequence=lookup_table(entries, first, bits, table, vr), **tags)
    last = min(len(table), entries or 65536) - 1
    expected = table[np.clip(places(stored().astype(int)), 0, last)] / (2 ** (16 if "more bits" in kind else bits) - 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_look_up_table_of_signed_values_is_unsigned_and_a_modality_table_gives_the_range(read):
    item = lookup_table(4096, 0, 16, LINE)
    item[0].LUTData, item[0]["LUTData"].VR = LINE.astype(np.int16).tolist(), "SS"
    np.testing.assert_allclose(read(stored(), VOILUTSequence=item), LINE[stored()] / 65535, atol=1e-6)
    table = np.linspace(100, 60000, 4096).round().astype(int)
    found = read(stored(), ModalityLUTSequence=lookup_table(4096, 0, 16, table))
    np.testing.assert_allclose(found, table[stored()] / 65535, atol=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1024), (0.01, 3), (-1, 4095)])
def test_rescale_without_window_keeps_the_whole_range_and_a_negative_slope_turns_it_round(read, slope, intercept):
    pixels = read(stored(), RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_allclose(pixels, stored() / 4095 if slope > 0 else 1 - stored() / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda syntax: syntax.keyword)
def test_signed_values(read, syntax):
    np.testing.assert_allclose(read(stored().astype(np.int16) - 2048, syntax), stored() / 4095, atol=1e-6)

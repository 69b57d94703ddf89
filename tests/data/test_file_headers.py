import cv2
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lemlight.data.io import read_file_headers, read_image
from lemlight.errors import ImageError

JPEG_2000_PART_2 = "1.2.840.10008.1.2.4.92"  # multi-component: there is no decoder


def header(path):
    (found,) = read_file_headers([str(path)], progress=False)
    return found


@pytest.fixture
def pixels(draw):
    return draw(3, 60, 47)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (ExplicitVRLittleEndian, "Explicit VR Little Endian"),
        (RLELossless, "RLE"),
        (JPEGLosslessSV1, "JPEG Lossless"),
        (JPEGLSLossless, "JPEG-LS"),
        (JPEG2000Lossless, "JPEG 2000"),
        (HTJ2KLossless, "High-Throughput JPEG 2000"),
    ],
)
def test_every_syntax_is_named_and_its_size_read(tmp_path, write_dicom, pixels, syntax, words):
    path = write_dicom(tmp_path / "x.dcm", pixels >> 4, syntax, BitsStored=12)
    found = header(path)
    assert found.problem == ""
    assert found.shape == (60, 47)
    assert found.format.startswith("DICOM, ")
    assert words in found.format
    assert found.grey == "12 bits, MONOCHROME2"


def test_colour_raw_and_inverted_images_are_told(tmp_path, write_dicom, pixels):
    write_dicom(tmp_path / "inverted.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "raw.dcm", pixels, PresentationIntentType="FOR PROCESSING")
    colour = np.stack([pixels >> 8] * 3, axis=-1).astype(np.uint8)
    write_dicom(tmp_path / "colour.dcm", colour, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    assert header(tmp_path / "inverted.dcm").grey == "16 bits, MONOCHROME1"
    assert header(tmp_path / "raw.dcm").grey == "16 bits, MONOCHROME2, FOR PROCESSING"
    assert header(tmp_path / "colour.dcm").grey == "8 bits, YBR_FULL_422"


def test_raster_files_are_read_by_content(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.png").read_bytes())
    PIL.Image.fromarray((pixels >> 8).astype(np.uint8)).save(tmp_path / "b.jpg")
    tifffile.imwrite(tmp_path / "c.tif", pixels)
    (tmp_path / "d.pgm").write_bytes(b"P5 # a comment\n47 60\n4095\n" + (pixels >> 4).astype(">u2").tobytes())
    names = ("a.dcm", "b.jpg", "c.tif", "d.pgm")
    found = read_file_headers([str(tmp_path / name) for name in names], progress=False)
    assert [(one.format, one.grey) for one in found] == [
        ("PNG", "16 bits"),
        ("JPEG", "8 bits"),
        ("TIFF", "16 bits"),
        ("PGM", "12 bits"),
    ]
    assert {one.shape for one in found} == {(60, 47)}
    assert {one.problem for one in found} == {""}


def save_changed(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)


def without_pixels(dataset):
    del dataset.PixelData


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_pixels, "no pixel data"),
        (lambda dataset: setattr(dataset, "NumberOfFrames", 3), "3 frames"),
        (lambda dataset: setattr(dataset, "Rows", 120), "cut short"),
        (lambda dataset: setattr(dataset, "PhotometricInterpretation", "PALETTE COLOR"), "photometric"),
    ],
)
def test_what_the_header_rules_out_cannot_be_decoded_either(tmp_path, write_dicom, pixels, change, words):
    path = write_dicom(tmp_path / "x.dcm", pixels)
    save_changed(path, change)
    assert words in header(path).problem
    with pytest.raises(ImageError):
        read_image(path)


def test_no_decoder_is_known_from_the_header(tmp_path, write_dicom, pixels):
    path = write_dicom(tmp_path / "x.dcm", pixels, RLELossless)
    save_changed(
        path, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", pydicom.uid.UID(JPEG_2000_PART_2))
    )
    assert header(path).problem.startswith("no decoder for JPEG 2000 Part 2")
    with pytest.raises(ImageError, match="no decoder"):
        read_image(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Dear colleague",
        b"\x89PNG\r\n\x1a\n",
        b"P5\n12",
        b"II*\0",
        b"\xff\xd8\xff",
        bytes(128) + b"DICM" + b"\xff" * 50,
    ],
)
def test_what_is_no_image_has_a_reason_and_no_traceback(tmp_path, content):
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    assert header(path).problem
    with pytest.raises(ImageError):
        read_image(path)


def test_a_file_that_is_not_there_has_a_reason(tmp_path):
    assert "No such file" in header(tmp_path / "gone.dcm").problem


def test_values_of_a_broken_header_are_not_repeated(tmp_path, write_dicom, pixels):
    path = write_dicom(tmp_path / "x.dcm", pixels, PhotometricInterpretation="SECRET NAME")
    found = header(path)
    assert found.grey == "16 bits, unknown colours"
    assert "SECRET" not in found.format


def test_a_deflated_file_is_not_called_cut_short(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "x.dcm", np.zeros((300, 200), np.uint16), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 300 * 200
    assert header(path).problem == ""
    assert header(path).shape == (300, 200)


def test_pixels_are_not_decoded(tmp_path, write_dicom, pixels):
    path = write_dicom(tmp_path / "x.dcm", pixels, JPEG2000Lossless, stream=b"damaged" * 9)
    assert header(path).problem == ""
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)


def test_headers_come_in_the_order_of_their_paths(tmp_path):
    sizes = [(20 + number, 30) for number in range(40)]
    for number, size in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros(size, np.uint8))
    found = read_file_headers([str(tmp_path / f"{number}.png") for number in range(40)], progress=False)
    assert [one.shape for one in found] == sizes
    assert read_file_headers([], progress=False) == []

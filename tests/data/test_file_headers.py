import cv2
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
from pydicom.uid import (
    UID,
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

JPEG_2000_PART_2 = UID("1.2.840.10008.1.2.4.92")  # multi-component: there is no decoder


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
        (DeflatedExplicitVRLittleEndian, "Deflated"),  # not called cut short though it is smaller than its pixels
        (RLELossless, "RLE"),
        (JPEGLosslessSV1, "JPEG Lossless"),
        (JPEGLSLossless, "JPEG-LS"),
        (JPEG2000Lossless, "JPEG 2000"),
        (HTJ2KLossless, "High-Throughput JPEG 2000"),
    ],
)
def test_every_syntax_is_named_and_its_size_read(tmp_path, write_dicom, pixels, syntax, words):
    found = header(write_dicom(tmp_path / "x.dcm", pixels >> 4, syntax, BitsStored=12))
    assert (found.problem, found.shape, found.grey) == ("", (60, 47), "12 bits, MONOCHROME2")
    assert found.format.startswith("DICOM, ")
    assert words in found.format


def test_colour_raw_and_inverted_images_are_told_and_words_of_a_broken_header_are_not_repeated(
    tmp_path, write_dicom, pixels
):
    path = tmp_path / "x.dcm"
    colour = np.stack([pixels >> 8] * 3, axis=-1).astype(np.uint8)
    for values, syntax, tags, grey in (
        (pixels, ExplicitVRLittleEndian, {"PhotometricInterpretation": "MONOCHROME1"}, "16 bits, MONOCHROME1"),
        (pixels, ExplicitVRLittleEndian, {"PresentationIntentType": "FOR PROCESSING"}, "16 bits, MONOCHROME2, FOR PRO"),
        (colour, JPEGBaseline8Bit, {"PhotometricInterpretation": "YBR_FULL_422"}, "8 bits, YBR_FULL_422"),
        (pixels, ExplicitVRLittleEndian, {"PhotometricInterpretation": "SECRET NAME"}, "16 bits, unknown colours"),
    ):
        found = header(write_dicom(path, values, syntax, **tags))
        assert found.grey.startswith(grey)
        assert "SECRET" not in found.format


def test_raster_files_are_read_by_content(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.png").read_bytes())
    PIL.Image.fromarray((pixels >> 8).astype(np.uint8)).save(tmp_path / "b.jpg")
    tifffile.imwrite(tmp_path / "c.tif", pixels)
    (tmp_path / "d.pgm").write_bytes(b"P5 # a comment\n47 60\n4095\n" + (pixels >> 4).astype(">u2").tobytes())
    formats = {"a.dcm": ("PNG", 16), "b.jpg": ("JPEG", 8), "c.tif": ("TIFF", 16), "d.pgm": ("PGM", 12)}
    found = read_file_headers([str(tmp_path / name) for name in formats], progress=False)
    assert [(one.format, one.grey) for one in found] == [(name, f"{bits} bits") for name, bits in formats.values()]
    assert {(one.shape, one.problem) for one in found} == {((60, 47), "")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda dataset: dataset.pop("PixelData"), "no pixel data"),
        (lambda dataset: setattr(dataset, "NumberOfFrames", 3), "3 frames"),
        (lambda dataset: setattr(dataset, "Rows", 120), "cut short"),
        (lambda dataset: setattr(dataset, "PhotometricInterpretation", "PALETTE COLOR"), "photometric"),
        (
            lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", pydicom.uid.UID(JPEG_2000_PART_2)),
            "no decoder",
        ),
    ],
)
def test_what_the_header_rules_out_cannot_be_decoded_either(tmp_path, write_dicom, pixels, change, words):
    path = write_dicom(tmp_path / "x.dcm", pixels, RLELossless if words == "no decoder" else ExplicitVRLittleEndian)
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    assert words in header(path).problem
    with pytest.raises(ImageError):
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
        None,
    ],
)
def test_what_is_no_image_or_not_there_has_a_reason_and_no_traceback(tmp_path, content):
    path = tmp_path / "x.dcm"
    if content is not None:
        path.write_bytes(content)
    assert ("No such file" in header(path).problem) == (content is None)
    assert header(path).problem
    with pytest.raises(ImageError):
        read_image(path)


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

"""What headers say of files without a look at their pixels, and what is wrong with them."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
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

from lemlight.data.reading.headers import read_headers
from lemlight.data.reading.io import read_image
from lemlight.errors import ImageError
from tests.layouts.cbis import save_dicom


def header(path):
    (found,) = read_headers([str(path)])
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
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(tmp_path / "b.jpg")
    tifffile.imwrite(tmp_path / "c.tif", pixels)
    (tmp_path / "d.pgm").write_bytes(b"P5 # a comment\n47 60\n4095\n" + (pixels >> 4).astype(">u2").tobytes())
    formats = {"a.dcm": ("PNG", 16), "b.jpg": ("JPEG", 8), "c.tif": ("TIFF", 16), "d.pgm": ("PGM", 12)}
    found = read_headers([str(tmp_path / name) for name in formats])
    assert [(one.format, one.grey) for one in found] == [(name, f"{bits} bits") for name, bits in formats.values()]
    assert {(one.shape, one.problem) for one in found} == {((60, 47), "")}


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
    found = read_headers([str(tmp_path / f"{number}.png") for number in range(40)])
    assert [one.shape for one in found] == sizes
    assert read_headers([]) == []


def test_headers_say_shape_depth_and_what_is_wrong(tmp_path):
    case = "Mass-Test_P_00145_LEFT_CC"
    save_dicom(tmp_path / "1.dcm", np.zeros((7, 5), np.uint16), case, "full mammogram images", ("1.2", "1.3"))
    save_dicom(tmp_path / "2.dcm", np.zeros((7, 5), np.uint8), "A-0001", "", NumberOfFrames=3)
    (tmp_path / "3.dcm").write_bytes((tmp_path / "1.dcm").read_bytes()[:-30])
    cv2.imwrite(str(tmp_path / "4.png"), np.zeros((7, 5), np.uint16))
    (tmp_path / "5.png").write_bytes((tmp_path / "4.png").read_bytes()[:-8])
    cv2.imwrite(str(tmp_path / "6.dcm.jpg"), np.zeros((7, 5), np.uint8))
    (tmp_path / "6.dcm.jpg").rename(tmp_path / "6.dcm")
    (tmp_path / "7.dcm").write_bytes((tmp_path / "1.dcm").read_bytes()[:140])
    headers = read_headers([*map(str, sorted(tmp_path.iterdir())), str(tmp_path / "8.dcm")])
    first = headers[0]
    assert (first.shape, first.bits, first.patient, first.series) == ((7, 5), 16, case, "1.3")
    assert headers[1].patient == "A-0001"
    assert (headers[3].shape, headers[3].bits) == ((7, 5), 16)
    assert [bool(header.problem) for header in headers] == [False, True, True, False, False, False, True, True]
    assert [header.torn for header in headers] == [False, False, True, False, True, False, False, False]

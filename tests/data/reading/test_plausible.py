"""What was decoded is plausible, or named: bits, padding, polarity, depth, other modalities, views, turned images."""

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.preparing.breast import prepare_image
from lemlight.data.reading.dicom import read_dicom
from lemlight.data.reading.headers import read_headers
from lemlight.data.reading.io import find_images, read_image
from lemlight.data.reading.plausible import POLARITY, mixed
from lemlight.data.reading.raster import Image
from lemlight.errors import ImageError

SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, HTJ2KLossless)


@pytest.fixture
def values(draw):
    """A mammogram of 12 bits (200, 160); air is 0, tissue is about 500 to 3500."""
    return np.clip(draw(1) // 16 + 200 * (draw(1) > 0), 0, 4095).astype(np.uint16)


@pytest.fixture
def ring():
    """A ring in the breast, partly over air."""
    y, x = np.mgrid[:200, :160]
    distance = np.hypot(y - 80, x - 90)
    return (distance > 24) & (distance < 28)


@pytest.fixture
def read(tmp_path, write_dicom):
    """Write values as DICOM of 12 bits with these tags, and read the image back."""
    return lambda values, *more, **tags: read_image(
        write_dicom(tmp_path / "a.dcm", values, *more, **{"BitsStored": 12} | tags)
    )


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("bit", [12, 15])
def test_an_overlay_in_an_unused_bit_is_not_seen_in_any_syntax(read, values, ring, syntax, bit, write_dicom, tmp_path):
    marked = values | (ring.astype(np.uint16) << bit)
    path = write_dicom(tmp_path / "all_bits.dcm", marked, syntax)  # the encoder must not know of 12 bits
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, read(values).pixels)
    if syntax != JPEGLosslessSV1:  # whose decoder cuts them off
        assert image.notes == ("bits beyond the 12 that are stored (an overlay?): cut off",)
    dataset[0x60000102] = pydicom.DataElement(0x60000102, "US", bit)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image(path).pixels, read(values).pixels)


def test_an_overlay_in_the_low_bits_is_shifted_out_and_signed_values_keep_their_sign(read, values, ring):
    clean = read(values).pixels
    high = (values << 4) | (ring.astype(np.uint16) << 2)
    np.testing.assert_array_equal(read(high, HighBit=15).pixels, clean)
    np.testing.assert_array_equal(read(values, JPEG2000Lossless, HighBit=15).pixels, clean)  # shifted by its encoder
    signed = values.astype(np.int16) - 2048
    cells = (signed.view(np.uint16) & 0x0FFF | (ring.astype(np.uint16) << 13)).view(np.int16)
    np.testing.assert_array_equal(read(cells).pixels, clean)
    np.testing.assert_array_equal(read(signed).pixels, clean)


def test_bits_that_every_pixel_has_are_cut_off(read, values):
    np.testing.assert_array_equal(read(values | 0x4000).pixels, read(values).pixels)


def test_a_bright_pixel_that_overflows_stays_bright_and_is_noted(read, values):
    bright = values.astype(np.int32)
    y, x = np.mgrid[:200, :160]
    bright += np.rint(4000 * np.exp(-((y - 100) ** 2 + (x - 40) ** 2) / 400)).astype(np.int32)
    image = read(bright.astype(np.uint16))
    assert bright.max() > 4300
    np.testing.assert_array_equal(image.pixels, read(np.minimum(bright, 4095).astype(np.uint16)).pixels)
    assert "overflow" in image.notes[0]


@pytest.mark.parametrize(
    ("inverted", "number", "tags"),
    [
        (True, 0, {"PixelPaddingValue": 0}),
        (False, 4095, {"PixelPaddingValue": 4095}),
        (False, 65535, {"PixelPaddingValue": 65535}),  # outside of the bits that are stored
        (True, "noise", {"PixelPaddingValue": 49, "PixelPaddingRangeLimit": 0}),
        (True, "noise", {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 49}),
        (True, 0, {"PixelPaddingValue": 0, "WindowCenter": 2000, "WindowWidth": 4000, "VOILUTFunction": "SIGMOID"}),
    ],
)
def test_padding_is_air_whatever_tables_and_inversion_make_of_its_number(read, values, inverted, number, tags):
    tissue = np.clip(values, 100, 4000)
    stored = (4095 - tissue if inverted else tissue).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 50, int((values == 0).sum())).astype(np.uint16)
    stored[values == 0] = noise if number == "noise" else number
    kind = {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    image = read(stored, **tags, **kind)
    plain = {name: value for name, value in tags.items() if "Padding" not in name}
    right = read(np.clip(stored, 100, 4000).astype(np.uint16), **plain, **kind).pixels
    assert (image.pixels[values == 0] == 0).all()
    np.testing.assert_array_equal(image.pixels[values > 0], right[values > 0])
    assert image.notes == ()


def test_a_signed_padding_value_counts_and_one_of_every_pixel_does_not(read, values):
    stored = values.astype(np.int16) - 2048
    stored[values == 0] = -2000
    assert (read(stored, PixelPaddingValue=-2000).pixels[values == 0] == 0).all()
    everything = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}
    np.testing.assert_array_equal(read(values, **everything).pixels, read(values).pixels)
    np.testing.assert_array_equal(read(values, PixelPaddingRangeLimit=4095).pixels, read(values).pixels)


def test_signed_padding_counts_whose_sign_ends_at_the_bits_that_are_stored(read, values):
    stored = np.where(values == 0, -4096, values).astype(np.int16)
    cut = (stored.view(np.uint16) & 0x1FFF).view(np.int16)
    tags = {"PixelPaddingValue": -4096, "BitsStored": 13, "WindowCenter": 2048, "WindowWidth": 4096}
    image = read(cut, **tags)
    assert (image.pixels[values == 0] == 0).all()
    np.testing.assert_array_equal(image.pixels, read(stored, **tags).pixels)
    assert image.notes == ()


@pytest.mark.parametrize("limit", [None, [1, 2]])
def test_padding_counts_without_its_limit_where_that_cannot_be_used(read, values, limit):
    stored = np.where(values == 0, 4095, values).astype(np.uint16)
    image = read(stored, PixelPaddingValue=4095, PixelPaddingRangeLimit=limit or "")
    assert (image.pixels[values == 0] == 0).all()
    assert image.notes == (("a PixelPaddingRangeLimit that is invalid: not used",) if limit else ())


def test_inverted_images_are_noted_and_others_are_not(tmp_path, read, values):
    assert read(values).notes == ()
    assert read(4095 - values).notes == (POLARITY,)
    assert read(4095 - values, PhotometricInterpretation="MONOCHROME1").notes == ()
    for name, pixels in (("right.png", values // 16), ("wrong.png", 255 - values // 16)):
        cv2.imwrite(str(tmp_path / name), pixels.astype(np.uint8))
        assert read_image(tmp_path / name).notes == ((POLARITY,) if name == "wrong.png" else ())


def test_inverted_images_in_a_black_frame_are_noted_and_others_are_not(read, values):
    for inside, notes in ((4095 - values, (POLARITY,)), (values, ())):
        assert read(np.pad(inside, ((30, 20), (40, 50)))).notes == notes


@pytest.mark.parametrize("sides", [((40, 0), (0, 0)), ((12, 10), (0, 40)), ((10, 10), (30, 50)), ((0, 0), (0, 60))])
def test_white_padding_around_dark_air_is_no_inversion(read, values, sides):
    assert read(np.pad(values, sides, constant_values=4095)).notes == ()
    nearly_one_grey = np.where(values > 0, 600 + values // 16, 4095).astype(np.uint16)
    for inverted in (4095 - values, nearly_one_grey):
        assert read(np.pad(inverted, sides, constant_values=4095)).notes == (POLARITY,)


def test_inversion_is_seen_where_the_air_reaches_one_side_only(read, values):
    mixed_edge = np.random.default_rng(0).integers(0, 4096, (210, 330)).astype(np.uint16)
    for inside, notes in ((4095 - values, (POLARITY,)), (values, ())):
        image = np.hstack([inside, np.full_like(inside, inside[0, -1])])  # mostly air
        mixed_edge[5:-5, :320] = image
        assert read(mixed_edge).notes == notes


def test_a_breast_that_fills_the_frame_is_not_called_inverted(read, values):
    for part in (values[60:140, :80], values[60:140, 80::-1], 4095 - values[60:140, :80]):
        assert POLARITY not in read(np.ascontiguousarray(part)).notes


def lut(entries, bits, values):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [entries, 0, bits], list(values)
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return [item]


def test_twelve_bits_in_sixteen_are_noted_whatever_holds_them(tmp_path, read, values):
    cv2.imwrite(str(tmp_path / "raw.png"), values)
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 16}
    images = {
        "png": read_image(tmp_path / "raw.png"),
        "said 16": read(values, BitsStored=16),
        "look-up table": read(values, VOILUTSequence=lut(4096, 16, range(4096))),
        "inverted": read(4095 - values, **inverted),
    }
    for image in images.values():
        (note,) = image.notes
        assert note.startswith("uses 12 of 16 bits (values up to 4095 of 65535)")
    padded = np.where(values > 0, 4095 - values, 0).astype(np.uint16)
    (note,) = read(padded, **inverted, PixelPaddingValue=0).notes
    assert note.startswith("uses 12 of 16 bits")
    (note,) = read(values.astype(np.int16) - 2048, BitsStored=16).notes  # around the middle of the range
    assert note.startswith("uses 12 of 16 bits")
    assert read(values).notes == ()
    (labelled,) = read(np.where(np.mgrid[:200, :160][0] < 1, 65535, values).astype(np.uint16), BitsStored=16).notes
    assert "of 16 bits" in labelled


def test_a_part_of_the_data_set_that_differs_is_summed_up_and_the_whole_is_not():
    note = "uses 12 of 16 bits (values up to 4095 of 65535): too dark or without contrast?"
    (depth, polarity) = sorted(mixed({note: 12, POLARITY: 3}, 32), key=lambda text: text[0])
    assert depth.startswith("12 of 32 files use 12 of 16 bits")
    assert polarity.startswith("3 of 32 files are inverted")
    assert mixed({note: 32}, 32) == mixed({}, 32) == mixed({"a lesion": 3}, 32) == []


NO_MAMMOGRAMS = {
    "MR": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"},
    "CT": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"},
    "a tomosynthesis slice as CT, called MG": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "MG"},
    "US": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "Modality": "US"},
    "tomosynthesis": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3", "Modality": "MG", "NumberOfFrames": 1},
    "a tomosynthesis slice": {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]},
    "MR by Modality": {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "MR"},
    "specimen": {"ViewCodeSequence": "Specimen"},
    "stereotactic": {"ImageType": ["ORIGINAL", "PRIMARY", "STEREO SCOUT"]},
    "biopsy": {"PaddleDescription": "6CM BIOPSY"},
}


def modified(tags):
    """Tags whose view code is a word: that of a modifier of the view."""
    if "ViewCodeSequence" not in tags:
        return tags
    view, modifier = Dataset(), Dataset()
    view.CodeMeaning, modifier.CodeMeaning = "cranio-caudal", tags["ViewCodeSequence"]
    view.ViewModifierCodeSequence = [modifier]
    return tags | {"ViewCodeSequence": [view]}


@pytest.mark.parametrize("kind", NO_MAMMOGRAMS)
def test_what_is_no_mammogram_is_left_out_by_name_in_data_sets_and_folders(tmp_path, write_dicom, values, kind, caplog):
    caplog.set_level("INFO")
    write_dicom(tmp_path / "mg.dcm", values, BitsStored=12)
    odd = write_dicom(tmp_path / "odd.dcm", values, BitsStored=12, **modified(NO_MAMMOGRAMS[kind]))
    with pytest.raises(ImageError, match=r"odd\.dcm: .*leave it out"):
        read_image(odd)
    good, bad = read_headers([str(tmp_path / "mg.dcm"), str(odd)])
    assert (good.problem, "leave it out" in bad.problem) == ("", True)
    assert [image.path.name for image in find_images(tmp_path)] == ["mg.dcm"]
    assert "left out: 1 DICOM, " in caplog.text


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, "Modality CR, not MG"),
        ({"Modality": "DX"}, "Modality DX, not MG"),
        ({"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, "Modality OT, not MG"),
        ({"Modality": "SC"}, "Modality SC, not MG"),
        ({"Modality": "DOE^JANE"}, "Modality unknown, not MG"),
        ({"Modality": None, "SOPClassUID": SecondaryCaptureImageStorage}, "Secondary Capture without a Modality"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, "FOR PROCESSING"),
        ({"ViewCodeSequence": "Magnification"}, "a magnification view"),
        ({"ViewCodeSequence": "Spot Compression"}, "a spot compression view"),
        ({"PaddleDescription": "10CM SPOT"}, "a spot compression view"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, "a magnification view"),
        ({"PartialView": "YES"}, "a partial view: it shows a part"),
        ({"ContrastBolusAgent": "Iohexol"}, "taken with contrast agent"),
        ({"ImageType": ["DERIVED", "PRIMARY", "SUBTRACTION"]}, "taken with contrast agent"),
        (
            {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]},
            "a 2-D view that was computed from tomosynthesis",
        ),
        ({"ImagePositionPatient": [0, 0, 3], "SliceThickness": 1}, "a position in space"),
        ({"ImagePositionPatient": ""}, ""),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "a screen save or a report"),
        ({"BodyPartExamined": "CHEST"}, "BodyPartExamined is not BREAST"),
        ({"BodyPartExamined": "Breast, left"}, ""),
        ({"Modality": "MG", "SOPClassUID": SecondaryCaptureImageStorage}, ""),  # CBIS-DDSM
        ({"Modality": None, "SOPClassUID": "1.2.3"}, ""),
        ({"EstimatedRadiographicMagnificationFactor": "1.05", "ImageType": ["ORIGINAL", "PRIMARY", "IMAGE"]}, ""),
    ],
)
def test_an_odd_kind_of_mammogram_is_read_and_noted(tmp_path, write_dicom, values, tags, note):
    path = write_dicom(tmp_path / "a.dcm", values, BitsStored=12, **modified(tags))
    image = read_dicom(path)
    assert [text[: len(note)] for text in image.notes] == ([note] if note else [])
    assert "JANE" not in str(image.notes)


@pytest.mark.parametrize(
    ("orientation", "turns"),
    [
        (["A", "R"], 0),
        (["P", "FL"], 0),
        (["A", "FR"], 0),
        (["R", "A"], 1),  # chest wall at the top
        (["L", "P"], 3),  # at the bottom
        (["P", "HL"], 2),  # upside down
        ("CC", 0),
        (["MLO", ""], 0),
        ("", 0),
        (None, 0),
    ],
)
def test_the_orientation_says_how_often_to_turn_until_the_chest_wall_stands_at_a_side(read, values, orientation, turns):
    assert read(values, PatientOrientation=orientation).turns == turns


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_a_chest_wall_at_the_top_or_the_bottom_that_no_header_tells_is_noted(side, view):
    pixels = render(PhantomSettings(patients=1, scale=0.25), 0, side, view).pixels
    notes = [prepare_image(Image(np.rot90(pixels, turns)), (96, 64), True, True)[2] for turns in range(4)]
    assert [bool(said) for said in notes] == [False, True, False, True]
    assert "PatientOrientation" in notes[1][0]
    assert prepare_image(Image(np.rot90(pixels, 3), turns=1), (96, 64), True, True)[2] == []

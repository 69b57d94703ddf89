"""What the small downloads share: breasts, DICOM files and tables, and how a test spoils them."""

import csv

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lemlight.errors import LemlightError

SHAPES = ((256, 200), (240, 180))


def draw_breast(rng, shape, side):
    """A half ellipse of tissue (H, W) in [0, 1], chest wall at the left, of a right breast at the right border."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    breast = ((y - height / 2) / (0.45 * height)) ** 2 + (x / (0.75 * width)) ** 2 < 1
    pixels = np.where(breast, 0.3 + 0.05 * rng.standard_normal(shape), 0.0).clip(0, 1)
    return pixels[:, ::-1] if side == "R" else pixels


def draw_image(rng, shape, side, malignant):
    """A breast, with a bright square in it if malignant."""
    pixels = draw_breast(rng, shape, side)
    if malignant:
        top, left = int(rng.integers(shape[0] // 3, shape[0] // 2)), int(rng.integers(8, shape[1] // 4))
        left = left if side == "L" else shape[1] - left - 18
        pixels[top : top + 24, left : left + 18] += 0.5
    return pixels.clip(0, 1)


ENCODERS = {
    JPEGLosslessSV1: lambda pixels, bits: imagecodecs.ljpeg_encode(pixels, bitspersample=bits),
    JPEGLSLossless: lambda pixels, bits: imagecodecs.jpegls_encode(pixels),
    JPEG2000Lossless: lambda pixels, bits: imagecodecs.jpeg2k_encode(
        pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits
    ),
    HTJ2KLossless: lambda pixels, bits: imagecodecs.htj2k_encode(pixels),
    JPEGBaseline8Bit: lambda pixels, bits: imagecodecs.jpeg8_encode(pixels, level=95),
    JPEGExtended12Bit: lambda pixels, bits: imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12),
}


def write_dicom(path, pixels, syntax=ExplicitVRLittleEndian, stream=None, **tags):
    """Write pixels (H, W) or (H, W, 3) as they are; a tag of None is left out; `stream` replaces the encoded frame."""
    dataset = Dataset()
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.PatientName, dataset.PatientID = "MG", "Secret^Name", "SECRET-ID"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.BitsStored = tags.get("BitsStored") or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    if syntax == RLELossless and stream is None:
        dataset.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    elif syntax.is_encapsulated:
        dataset.PixelData = encapsulate([stream or ENCODERS[syntax](pixels, dataset.BitsStored)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    for keyword, value in tags.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            del dataset[keyword]
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_stored(path, stored, syntax=ExplicitVRLittleEndian, **tags):
    """Write stored values (H, W), uint8 or uint16, as a DICOM file of no patient but with these tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(path, stored, syntax, **{"PatientName": None, "PatientID": None} | tags)


def save_mammogram(path, pixels, patient_id="removed", **tags):
    """Write pixels (H, W) in [0, 1] as 14 bits, not compressed."""
    known = {"PatientID": patient_id, "PatientName": "removed", "BitsStored": 14, "ImagerPixelSpacing": [0.07, 0.07]}
    save_stored(path, np.rint(pixels * 16383).astype("<u2"), **known | tags)


def save_table(path, columns, rows):
    """Write a CSV of rows, dicts or in the order of the columns."""
    with path.open("w", newline="") as file:
        if rows and isinstance(rows[0], dict):
            rows = [[row[column] for column in columns] for row in rows]
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def spoil(path, old, new, count=1):
    """Put `new` in the place of `old` in a text file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def written_by(write, **options):
    """The fixture `written` of a test file: the root of a small download, and the truth of its images."""

    @pytest.fixture(scope="module")
    def written(tmp_path_factory):
        root = tmp_path_factory.mktemp("download")
        return root, write(root, **options)

    return written


def failure_of(function, root, **options):
    """The message of the error that a data set raises."""
    with pytest.raises(LemlightError) as error:
        function(root, **options)
    return str(error.value)

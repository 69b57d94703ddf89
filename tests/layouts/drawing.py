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
    JPEG2000Lossless,
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


def save_stored(path, stored, syntax=ExplicitVRLittleEndian, **tags):
    """Write stored values (H, W), uint8 or uint16, as a DICOM file with these tags."""
    dataset = Dataset()
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.Modality = generate_uid(), "MG"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.PixelRepresentation = 0
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate([_encode(stored, syntax, dataset.BitsStored)])
    else:
        dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated or stored.dtype == np.uint8 else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _encode(stored, syntax, bits):
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_encode(stored, level=0, codecformat="j2k", reversible=True, bitspersample=bits)
    return imagecodecs.ljpeg_encode(stored, bitspersample=bits)


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


def failure_of(function, root, **options):
    """The message of the error that a data set raises."""
    with pytest.raises(LemlightError) as error:
        function(root, **options)
    return str(error.value)

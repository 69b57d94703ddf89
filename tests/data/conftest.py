"""What the tests of this room share: a writer of DICOM files in every transfer syntax, and a table of PNG files."""

import json
import shutil

import cv2
import imagecodecs
import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
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

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.preparing.lesions import Lesion


def _encode(pixels, dataset, syntax):
    bits = dataset.BitsStored
    if syntax == RLELossless:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return get_encoder(syntax).encode(pixels, encoding_plugin="pydicom", **_description(dataset))
    encoders = {
        JPEGLosslessSV1: lambda: imagecodecs.ljpeg_encode(pixels, bitspersample=bits),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(pixels),
        JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(
            pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits
        ),
        HTJ2KLossless: lambda: imagecodecs.htj2k_encode(pixels),
        JPEGBaseline8Bit: lambda: imagecodecs.jpeg8_encode(pixels, level=95),
        JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12),
    }
    return encoders[syntax]()


def _description(dataset):
    return {
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "samples_per_pixel": dataset.SamplesPerPixel,
        "number_of_frames": 1,
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": dataset.PixelRepresentation,
        "photometric_interpretation": dataset.PhotometricInterpretation,
    }


def _write_dicom(path, pixels, syntax=ExplicitVRLittleEndian, stream=None, **tags):
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
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate([stream or _encode(pixels, dataset, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        dataset["PixelData"].VR = "OW"
    for keyword, value in tags.items():
        if value is None:
            if keyword in dataset:
                del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def write_dicom():
    return _write_dicom


def draw_mammogram(number, height=200, width=160):
    """A half ellipse of texture against the left border, as 16 bits."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    breast = ((y - height / 2) / (0.4 * height)) ** 2 + (x / (0.7 * width)) ** 2 < 1
    texture = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 3)
    return np.where(breast, 20000 + 60000 * (texture - 0.3), 0).clip(0, 65535).astype(np.uint16)


@pytest.fixture
def draw():
    """The function that draws a mammogram from a number."""
    return draw_mammogram


@pytest.fixture
def table(tmp_path):
    """Six mammograms; the second has a lesion, the third one a mask that cannot be its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for number in range(6):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), draw_mammogram(number))
        rows.append({"image_id": f"i{number}", "path": str(path), "lesions": (), "lesions_known": False})
    for number, shape in ((1, (200, 160)), (2, (200, 100))):
        mask = np.zeros(shape, np.uint8)
        mask[90:110, 20:50] = 255
        cv2.imwrite(str(folder / f"mask{number}.png"), mask)
        rows[number]["lesions"] = (Lesion("mask", "mass", path=str(folder / f"mask{number}.png")),)
        rows[number]["lesions_known"] = True
    return pd.DataFrame(rows).assign(label=[0, 1] * 3, patient_id=list("abcdef"), split="", laterality="", view="")


@pytest.fixture
def geometry_of():
    """The function that gives the way from an image's original to its prepared pixels, as the store recorded it."""

    def read(store, i):
        records = [json.loads(line) for line in (store.folder / "done.jsonl").read_text().splitlines() if line]
        return BreastGeometry.from_dict(
            next(record["geometry"] for record in records if record["image_id"] == store.image_ids[i])
        )

    return read


@pytest.fixture
def download(written, tmp_path):
    """A copy to spoil of the download that a test file has `written`: its root, and the truth."""
    root = tmp_path / "copy"
    shutil.copytree(written[0], root)
    return root


@pytest.fixture
def truth(written):
    """What is known of the download that a test file has `written`, by image."""
    return written[1].set_index("image_id")

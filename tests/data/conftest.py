"""What the tests of the image readers share: a writer of DICOM files in every transfer syntax."""

import imagecodecs
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

"""What the headers of CMMD's images say, as its table names breasts only: patient, side and view."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from tqdm import tqdm

from lemlight.data.dicom import quiet
from lemlight.data.dicom_tags import laterality, view
from lemlight.errors import ImageError

PATIENT = re.compile(r"D[12]-\d{4}")
TAGS = [
    "SOPInstanceUID",
    "PatientID",
    "ViewPosition",
    "ViewCodeSequence",
    "ImageLaterality",
    "Laterality",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
]
VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}  # SNOMED CT and SRT, CID 4014
THREADS = 16  # reading waits for the disk
BAR_AFTER = 1  # s


@dataclass(frozen=True)
class Header:
    """Identity of the image, its patient, side (L, R) and view (CC, MLO, ...); "" where the header does not say."""

    instance: str
    patient: str
    side: str
    view: str


def patient_of(path: str) -> str:
    """Give the patient whose folder a file lies in, "" where that is not named after one."""
    return next((part for part in path.split("/")[:-1] if PATIENT.fullmatch(part)), "")


def read_headers(paths: Sequence[str]) -> dict[str, Header | ImageError]:
    """Read the header of every file, or the reason why that cannot be used; a bar is drawn where it takes its time."""
    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        read = tqdm(pool.map(_read, paths), "reading headers", len(paths), unit="image", delay=BAR_AFTER)
        return dict(zip(paths, read, strict=True))


def _read(path: str) -> Header | ImageError:
    try:
        header = pydicom.dcmread(path, specific_tags=TAGS, stop_before_pixels=True)
        pixels = int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel) * int(header.BitsAllocated) // 8
        if not header.file_meta.TransferSyntaxUID.is_compressed and os.stat(path).st_size < pixels:
            return ImageError("cut short")
        patient = str(header.get("PatientID") or "").strip().upper()
        return Header(str(header.get("SOPInstanceUID") or ""), patient, laterality(header), _view(header))
    except MemoryError:
        raise
    except OSError as error:
        return ImageError(f"cannot be read ({error.strerror})")
    except Exception:  # pydicom raises whatever broken tags make Python raise; its text may hold values
        return ImageError("no DICOM image")


def _view(header: Dataset) -> str:
    """Find the view by its code, as the words for it are the vendor's; else as in any other mammogram."""
    codes = [str(code.get("CodeValue") or "").strip() for code in header.get("ViewCodeSequence") or ()]
    return next((VIEW_CODES[code] for code in codes if code in VIEW_CODES), "") or view(header)

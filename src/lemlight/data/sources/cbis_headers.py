"""What the headers of CBIS-DDSM's files say: size and depth, whose they are, and why one cannot be used."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import PIL.Image
import pydicom
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tqdm import tqdm

from lemlight.data.dicom import decoder_problem, header_problem, quiet

CASE = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d{5}_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
TAGS = [
    "SOPInstanceUID",
    "SeriesDescription",
    "PatientID",
    "SeriesInstanceUID",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
]
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
END_OF_FRAMES = b"\xfe\xff\xdd\xe0"  # of compressed pixels
TAIL = 4096  # bytes in which the end is looked for: something may follow it
THREADS = 16  # reading waits for the disk
BAR_AFTER = 1  # s


@dataclass(frozen=True)
class Header:
    """Shape (H, W) px, bits of a stored pixel; what DICOM says besides, "" where it does not; the problem, "" if none.

    case: PatientID where that is a case's name, as in every file of The Cancer Imaging Archive.
    """

    shape: tuple[int, int] = (0, 0)
    bits: int = 0
    case: str = ""
    series: str = ""
    instance: str = ""
    description: str = ""
    problem: str = ""


def read_headers(paths: Sequence[str]) -> dict[str, Header]:
    """Read the header of every file; a bar is drawn where it takes its time."""
    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        read = tqdm(pool.map(_read, paths), "reading headers", len(paths), unit="image", delay=BAR_AFTER)
        return dict(zip(paths, read, strict=True))


def _read(path: str) -> Header:
    try:
        with Path(path).open("rb") as file:
            start = file.read(132)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            tail = file.read()
            file.seek(0)
            dicom = start[128:] == b"DICM"
            return _read_dicom(file, size, tail) if dicom else _read_raster(path, file, tail)
    except MemoryError:
        raise
    except OSError as error:
        return Header(problem=f"cannot be read ({error.strerror or 'no image'})")
    except Exception:  # pydicom and Pillow raise whatever a broken file makes Python raise
        return Header(problem="its header is damaged")


def _read_dicom(file: BinaryIO, size: int, tail: bytes) -> Header:
    dataset = pydicom.dcmread(file, specific_tags=TAGS, stop_before_pixels=True)
    syntax = dataset.file_meta.TransferSyntaxUID
    deflated = syntax == DeflatedExplicitVRLittleEndian
    left = size if deflated else size - file.tell()  # the reader stops where the pixels begin
    problem = header_problem(dataset, has_pixels=left > 0) or decoder_problem(dataset)
    if not problem and not deflated:
        whole = END_OF_FRAMES in tail if syntax.is_compressed else left >= get_expected_length(dataset)
        problem = "" if whole else "cut short"
    patient = str(dataset.get("PatientID") or "").strip()
    return Header(
        shape=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        bits=int(dataset.get("BitsAllocated") or 0),
        case=patient if CASE.fullmatch(patient) else "",
        series=str(dataset.get("SeriesInstanceUID") or ""),
        instance=str(dataset.get("SOPInstanceUID") or ""),
        description=str(dataset.get("SeriesDescription") or ""),
        problem=problem,
    )


def _read_raster(path: str, file: BinaryIO, tail: bytes) -> Header:
    if path.lower().endswith((".dcm", ".dicom")):
        return Header(problem="no DICOM file")
    with PIL.Image.open(file) as image:
        bits = 16 if image.mode.startswith("I") else 8
        whole = ENDS.get(image.format or "", b"") in tail
        return Header((image.height, image.width), bits, problem="" if whole else "cut short")

"""The headers of a data set's image files, DICOM and pictures: shape, IDs, view, and whether the file is whole."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import PIL.Image
from pydicom.dataset import Dataset

from lemlight.data.reading.dicom import CUT_SHORT, quiet, read_header
from lemlight.data.reading.dicom_header import laterality, view
from lemlight.files import open_file
from lemlight.terminal import Progress

DICOM = (".dcm", ".dicom")
IDENTITY = ["SOPInstanceUID", "SeriesInstanceUID", "PatientID", "SeriesDescription"]
POSITION = ["ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence"]
VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}  # SNOMED CT and SRT, CID 4014
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
END_OF_FRAMES = b"\xfe\xff\xdd\xe0"  # of compressed pixels
TAIL = 4096  # bytes in which the end is looked for: something may follow it
THREADS = 16  # reading waits for the disk


def ending(path: str) -> str:
    """Give the suffix of a file in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()


@dataclass(frozen=True)
class Header:
    """Shape (H, W) px and bits of a stored pixel; what DICOM says besides, "" where it does not; the problem, or ""."""

    shape: tuple[int, int] = (0, 0)
    bits: int = 0
    patient: str = ""
    series: str = ""
    description: str = ""  # of the series
    instance: str = ""
    side: str = ""
    view: str = ""
    problem: str = ""
    path: str = ""


def read_headers(paths: Sequence[str]) -> dict[str, Header]:
    """Read the header of every image file; a bar is drawn where it takes its time."""
    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        read = Progress("reading headers", len(paths)).over(pool.map(_read_header, paths))
        return {path: replace(header, path=path) for path, header in zip(paths, read, strict=True)}


def _read_header(path: str) -> Header:
    nothing = "no DICOM image" if ending(path) in DICOM else "no image"
    try:
        with open_file(Path(path)) as file:
            start = file.read(132)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            tail = file.read()
            file.seek(0)
            if start[128:] == b"DICM":
                return _of_dicom(file, tail)
            return Header(problem=nothing) if ending(path) in DICOM else _of_raster(file, size, tail)
    except MemoryError:
        raise
    except OSError as error:
        return Header(problem=f"cannot be read ({error.strerror})" if error.strerror else nothing)
    except Exception:  # pydicom and Pillow raise whatever a broken file makes Python raise; the text may hold values
        return Header(problem=nothing)


def _of_dicom(file: BinaryIO, tail: bytes) -> Header:
    dataset, problem = read_header(file, IDENTITY + POSITION)
    torn = not problem and dataset.file_meta.TransferSyntaxUID.is_compressed and END_OF_FRAMES not in tail
    return Header(
        shape=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        bits=int(dataset.get("BitsAllocated") or 0),
        patient=str(dataset.get("PatientID") or "").strip(),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        description=str(dataset.get("SeriesDescription") or "").strip(),
        instance=str(dataset.get("SOPInstanceUID") or ""),
        side=laterality(dataset),
        view=_view(dataset),
        problem="cut short" if torn or problem == CUT_SHORT else problem,
    )


def _view(dataset: Dataset) -> str:
    """Find the view by its code, as the words for it are the vendor's; else as in any other mammogram."""
    codes = [str(code.get("CodeValue") or "").strip() for code in dataset.get("ViewCodeSequence") or ()]
    return next((VIEW_CODES[code] for code in codes if code in VIEW_CODES), "") or view(dataset)


def _of_raster(file: BinaryIO, size: int, tail: bytes) -> Header:
    with PIL.Image.open(file) as image:
        shape = image.height, image.width
        whole = ENDS.get(image.format or "", b"") in tail and (image.format != "PPM" or size >= shape[0] * shape[1])
        return Header(shape, 16 if image.mode.startswith("I") else 8, problem="" if whole else "cut short")

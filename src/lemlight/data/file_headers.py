"""What the headers of many image files say, without decoding one: format, size, and why one cannot be used."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import PIL.Image
import pydicom
import tifffile
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import DeflatedExplicitVRLittleEndian
from tqdm import tqdm

from lemlight.data.dicom import decoder_problem, header_problem, quiet
from lemlight.data.images import HEADER
from lemlight.data.raster import PNM, PNM_HEADER, TIFF, is_raster

THREADS = 16  # reading waits for the disk
AT_ONCE = 1024  # files that wait: the memory stays the same for any number of them
NO_FORMAT = "not an image of a known format (DICOM with its preamble, PNG, JPEG, TIFF, PGM or PPM)"
DAMAGED = "its header is damaged; fetch the file again or leave it out"
CUT_SHORT = "cut short: it is smaller than its pixels; fetch the file again or leave it out"
TAGS = [
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PresentationIntentType",
]


@dataclass(frozen=True)
class FileHeader:
    """One file: its format (of DICOM the transfer syntax), bits and colours, and why it cannot be used, "" if it can.

    `shape` (H, W) px. What the header does not say is "" or None. What only decoding tells (damaged pixels, no breast)
    is not known here.
    """

    format: str
    grey: str = ""
    shape: tuple[int, int] | None = None
    problem: str = ""


def read_file_headers(paths: Sequence[str], progress: bool = True) -> list[FileHeader]:
    """Read the header of every file, in their order; the content says what a file is, not its suffix."""
    headers: list[FileHeader] = []
    bar = tqdm(total=len(paths), desc="reading headers", unit="image", disable=not progress)
    with bar, quiet(), ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), AT_ONCE):
            for header in pool.map(_read, paths[start : start + AT_ONCE]):
                headers.append(header)
                bar.update()
    return headers


def _read(path: str) -> FileHeader:
    try:
        with Path(path).open("rb") as file:
            start = file.read(HEADER)
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            if start[128:] == b"DICM":
                return _read_dicom(file, size)
            return _read_raster(file, start) if is_raster(start) else FileHeader("unknown", problem=NO_FORMAT)
    except OSError as error:
        return FileHeader("unreadable", problem=f"cannot be read ({error.strerror}); check the path and permissions")


def _read_dicom(file: BinaryIO, size: int) -> FileHeader:
    try:
        dataset = pydicom.dcmread(file, specific_tags=TAGS, stop_before_pixels=True)
        deflated = dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        left = size if deflated else size - file.tell()  # the reader stops where the pixels begin
        problem = header_problem(dataset, has_pixels=left > 0) or decoder_problem(dataset)
        plain = not (problem or deflated or dataset.file_meta.TransferSyntaxUID.is_compressed)
        if plain and left < get_expected_length(dataset):
            problem = CUT_SHORT
        shape = (int(dataset.Rows), int(dataset.Columns)) if dataset.get("Rows") and dataset.get("Columns") else None
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        return FileHeader(f"DICOM, {syntax.name if syntax else 'no transfer syntax'}", _grey(dataset), shape, problem)
    except MemoryError:
        raise
    except Exception:  # pydicom raises whatever broken tags make Python raise; its text may hold values
        return FileHeader("DICOM, damaged", problem=DAMAGED)


def _grey(dataset: FileDataset) -> str:
    """Bits and colours; words of the header only where they are those of the standard: others may name a patient."""
    bits = dataset.get("BitsStored")
    colours = str(dataset.get("PhotometricInterpretation", ""))
    known = colours in ("MONOCHROME1", "MONOCHROME2", "RGB") or colours.startswith("YBR_")
    raw = dataset.get("PresentationIntentType") == "FOR PROCESSING"
    parts = [f"{int(bits)} bits" if bits else "unknown bits", colours if known else "unknown colours"]
    return ", ".join([*parts, *(["FOR PROCESSING"] if raw else [])])


def _read_raster(file: BinaryIO, start: bytes) -> FileHeader:
    try:
        if start.startswith(PNM):
            return _read_pnm(file)
        if start.startswith(TIFF):
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages.first
                return FileHeader("TIFF", f"{int(page.bitspersample)} bits", (page.imagelength, page.imagewidth))
        with PIL.Image.open(file) as image:
            bits = start[24] if image.format == "PNG" else 8
            return FileHeader(str(image.format), f"{bits} bits", (image.height, image.width))
    except MemoryError:
        raise
    except Exception:  # each library has its own
        return FileHeader("raster, damaged", problem=DAMAGED)


def _read_pnm(file: BinaryIO) -> FileHeader:
    header = PNM_HEADER.match(file.read(4096))  # comments may stand between the numbers
    if header is None:
        return FileHeader("raster, damaged", problem=DAMAGED)
    kind, width, height, maximum = (int(group) for group in header.groups())
    return FileHeader("PGM" if kind in (2, 5) else "PPM", f"{maximum.bit_length()} bits", (height, width))

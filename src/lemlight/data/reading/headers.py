"""The headers of many image files, DICOM and raster: shape, depth, what DICOM says besides, and what is wrong."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import PIL.Image
import tifffile
from pydicom.dataset import Dataset

from lemlight.data.reading.brightness import BRIGHTNESS_TAGS
from lemlight.data.reading.dicom import COLOURS, CUT_SHORT, header_notes, quiet, read_header, syntax_name
from lemlight.data.reading.dicom_header import DOUBT_TAGS, for_processing, laterality, view
from lemlight.data.reading.io import HEADER, NOT_KNOWN
from lemlight.data.reading.raster import (
    ORIENTATION,
    PNM,
    PNM_HEADER,
    QUARTERS,
    TIFF,
    TOO_MANY,
    check_page,
    is_raster,
    orientation_notes,
)
from lemlight.errors import ImageError
from lemlight.files import open_file
from lemlight.limits import LEAVE_OUT, check_size, length_problem
from lemlight.terminal import Progress

SAID = {  # never a name, never a birth date
    "patient": "PatientID",
    "series": "SeriesInstanceUID",
    "description": "SeriesDescription",
    "instance": "SOPInstanceUID",
    "vendor": "Manufacturer",
    "age": "PatientAge",
    "exam": "StudyDate",
}
TAGS = (*SAID.values(), "ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence", "PresentationIntentType")
VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}  # SNOMED CT and SRT, CID 4014
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
END_OF_FRAMES = b"\xfe\xff\xdd\xe0"  # of compressed pixels
TAIL = 4096  # bytes in which the end is looked for: something may follow it
THREADS = 16  # reading waits for the disk
DAMAGED = "its header is damaged; fetch the file again or leave it out"


@dataclass(frozen=True)
class Header:
    """What the header of one file says; "" or 0 where it does not.

    format: of DICOM with the transfer syntax; grey: bits and colours in words; shape: (H, W) px; bits: of a stored
    pixel; problem: why it cannot be used; notes: those of `read_image` that the header alone gives, where they were
    asked for; torn: whether its end is missing. The rest is DICOM's. What only decoding tells (damaged pixels, no
    breast, polarity, depth) is not known here.
    """

    format: str = ""
    grey: str = ""
    shape: tuple[int, int] = (0, 0)
    problem: str = ""
    notes: tuple[str, ...] = ()
    bits: int = 0
    torn: bool = False
    patient: str = ""
    series: str = ""
    description: str = ""  # of the series
    instance: str = ""
    side: str = ""
    view: str = ""
    vendor: str = ""
    age: str = ""
    exam: str = ""  # the date of the study
    path: str = ""


def read_headers(paths: Sequence[str], notes: bool = False) -> list[Header]:
    """Read the header of every file, in their order; the content says what a file is, not its suffix.

    With `notes` those are made, and a PNG is turned as its orientation tag says, which may stand behind the pixels.
    """
    with quiet(), quiet("tifffile"), ThreadPoolExecutor(THREADS) as pool:
        read = Progress("reading headers", len(paths)).over(pool.map(partial(_read, notes=notes), paths))
        return [replace(header, path=path) for path, header in zip(paths, read, strict=True)]


def _read(path: str, notes: bool) -> Header:
    kind = "raster"
    try:
        with open_file(Path(path)) as file:
            start, size = file.read(HEADER), os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            tail = file.read(TAIL)
            file.seek(0)
            kind = "DICOM" if start[128:] == b"DICM" else kind
            if problem := length_problem(file):
                return Header(f"{kind}, too large", problem=problem)
            if kind == "DICOM":
                return _read_dicom(file, tail, notes)
            if is_raster(start):
                return _read_raster(file, start, size, tail, notes)
            return Header("unknown", problem=NOT_KNOWN)
    except ImageError as error:  # of the limits
        return Header(f"{kind}, too large", problem=str(error))
    except PIL.Image.DecompressionBombError:
        return Header(f"{kind}, too large", problem=TOO_MANY)
    except MemoryError:
        return Header(f"{kind}, damaged", problem=f"it takes more memory than there is; {LEAVE_OUT}")
    except OSError as error:
        if error.strerror:  # Pillow's and pydicom's have none
            problem = f"cannot be read ({error.strerror}); check the path and permissions"
            return Header("unreadable", problem=problem)
    except Exception:  # each library has its own, and their texts may hold values of a header
        pass
    return Header(f"{kind}, damaged", problem=DAMAGED)


def _read_dicom(file: BinaryIO, tail: bytes, notes: bool) -> Header:
    dataset, problem = read_header(file, [*TAGS, *((*DOUBT_TAGS, *BRIGHTNESS_TAGS) if notes else ())])
    compressed = not problem and dataset.file_meta.TransferSyntaxUID.is_compressed
    return Header(
        format=f"DICOM, {syntax_name(dataset)}",
        grey=_grey(dataset),
        shape=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        problem=problem,
        notes=header_notes(dataset) if notes and not problem else (),
        bits=int(dataset.get("BitsAllocated") or 0),
        torn=problem == CUT_SHORT or (compressed and END_OF_FRAMES not in tail),
        side=laterality(dataset),
        view=_view(dataset),
        **{name: " ".join(str(dataset.get(tag) or "").split()) for name, tag in SAID.items()},
    )


def _grey(dataset: Dataset) -> str:
    """Bits and colours; words of the header only where they are those of the standard: others may name a patient."""
    bits = dataset.get("BitsStored")
    colours = str(dataset.get("PhotometricInterpretation", ""))
    parts = [f"{int(bits)} bits" if bits else "unknown bits", colours if colours in COLOURS else "unknown colours"]
    return ", ".join([*parts, *(["FOR PROCESSING"] if for_processing(dataset) else [])])


def _view(dataset: Dataset) -> str:
    """Find the view by its code, as the words for it are the vendor's; else as in any other mammogram."""
    codes = [str(code.get("CodeValue") or "").strip() for code in dataset.get("ViewCodeSequence") or ()]
    return next((VIEW_CODES[code] for code in codes if code in VIEW_CODES), "") or view(dataset)


def _read_raster(file: BinaryIO, start: bytes, size: int, tail: bytes, notes: bool) -> Header:
    if start.startswith(PNM):
        header = PNM_HEADER.match(file.read(4096))  # comments may stand between the numbers
        if header is None:
            return Header("raster, damaged", problem=DAMAGED)
        kind, width, height, maximum = (int(group) for group in header.groups())
        check_size(height, width, 4)
        name, torn = "PGM" if kind in (2, 5) else "PPM", size < height * width
        return Header(name, f"{maximum.bit_length()} bits", (height, width), bits=maximum.bit_length(), torn=torn)
    if start.startswith(TIFF):
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            check_page(page)
            orientation = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
            shape, bits = (page.imagelength, page.imagewidth), int(page.bitspersample)
            return _turned(Header("TIFF", f"{bits} bits", shape, bits=bits), orientation)
    with PIL.Image.open(file) as image:
        check_size(image.height, image.width, len(image.getbands()))
        bits = start[24] if image.format == "PNG" else 8
        torn = ENDS.get(image.format or "", b"") not in tail
        read = Header(str(image.format), f"{bits} bits", image.size[::-1], bits=bits, torn=torn)
        return _turned(read, image.getexif().get(ORIENTATION)) if notes or image.format != "PNG" else read


def _turned(header: Header, orientation: object) -> Header:
    """The header of an image as its orientation tag shows it, with the note of it."""
    shape = header.shape[::-1] if orientation in QUARTERS else header.shape
    return replace(header, shape=shape, notes=orientation_notes(orientation))

"""The files of CBIS-DDSM on disk: found by folder name, told apart by what their headers say."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

CASE_FOLDER = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d+_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
ASPECT_TOLERANCE = 0.02  # relative; a mask of another size but this aspect can be rescaled
SMALLEST_MASK = 0.5  # share of the mammogram's height and width; below it is a crop


@dataclass(frozen=True)
class Header:
    """Height and width in px and the bits of a stored pixel."""

    rows: int
    columns: int
    bits: int


def scan(root: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Find the case folders by name, and all CSV files, anywhere below root; case folders are not searched."""
    cases: dict[str, list[Path]] = defaultdict(list)
    tables: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        here, real = Path(place), os.path.realpath(place)
        if real in seen:  # a link back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(folders):
            if CASE_FOLDER.fullmatch(name):
                cases[name].append(here / name)
        folders[:] = sorted(name for name in folders if name not in cases)
        tables += [here / name for name in sorted(files) if name.endswith(".csv")]
    return dict(cases), tables


def read_header(path: Path) -> Header | None:
    """Read shape and depth without the pixels; None where that is not possible."""
    try:
        header = pydicom.dcmread(path, specific_tags=["Rows", "Columns", "BitsAllocated"], stop_before_pixels=True)
        return Header(int(header.Rows), int(header.Columns), int(header.BitsAllocated))
    except (OSError, InvalidDicomError, AttributeError, TypeError, ValueError):
        return None


def files_below(folders: Sequence[Path]) -> list[Path]:
    """List the image files below some case folders, whatever lies between."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")


def find_mammogram(folders: Sequence[Path]) -> Path | None:
    """Choose the full mammogram of an image folder: its only file, or the one with the most pixels."""
    files = files_below(folders)
    if len(files) <= 1:
        return files[0] if files else None
    headers = {path: read_header(path) for path in files}
    return max(files, key=lambda path: header.rows * header.columns if (header := headers[path]) else 0)


def find_mask(folders: Sequence[Path], mammogram: Header) -> Path | None:
    """Choose the mask of an abnormality, which tables and file names mix up with its crop.

    It is the 8-bit file of the mammogram's shape; else the largest 8-bit file of its aspect (within 2 %) and at least
    half its size; else there is none.
    """
    headers = [(path, header) for path in files_below(folders) if (header := read_header(path)) and header.bits == 8]
    for path, header in headers:
        if (header.rows, header.columns) == (mammogram.rows, mammogram.columns):
            return path
    similar = [(header.rows * header.columns, path) for path, header in headers if _can_be_rescaled(header, mammogram)]
    return max(similar)[1] if similar else None


def _can_be_rescaled(mask: Header, mammogram: Header) -> bool:
    down, across = mask.rows / mammogram.rows, mask.columns / mammogram.columns
    return min(down, across) >= SMALLEST_MASK and abs(down / across - 1) <= ASPECT_TOLERANCE

"""INbreast on disk: what lies where, its table of images, and what the headers of the images say."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pydicom

from lemlight.data.dicom import quiet
from lemlight.data.sources.download import read_text
from lemlight.data.table import first_ten
from lemlight.errors import ImageError, LemlightError

TABLE = "INbreast.csv"
IMAGE_NAME = re.compile(r"(?P<image>\d+)_(?P<patient>[0-9a-f]+)_MG_(?P<side>[LR])_(?P<view>[A-Z]+)_ANON\.dcm", re.I)
NEEDED = {"laterality": "Laterality", "view": "View", "filename": "File Name", "birads": "Bi-Rads"}
TAGS = ["PatientID", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel"]
OTHERS = {".dcm", ".dicom", ".pgm"}  # of other data sets; PNG copies of INbreast may lie about


@dataclass(frozen=True)
class Files:
    """Images by number, and what their names say; annotations by number; tables; names of images of other kinds."""

    images: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    annotations: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    tables: list[Path] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Header:
    """Shape (H, W) in px and the PatientID, "" where there is none."""

    shape: tuple[int, int]
    patient_id: str


def sort_files(paths: Iterable[Path]) -> Files:
    """Sort the files of a download by what they are; annotations are the XML files in a folder AllXML."""
    files = Files()
    for path in paths:
        suffix = path.suffix.lower()
        name = IMAGE_NAME.fullmatch(path.name)
        if name:
            files.images[name["image"]].append(path)
        elif suffix == ".xml" and path.parent.name.lower() == "allxml":
            files.annotations[path.stem].append(path)
        elif path.stem.lower() == "inbreast" and suffix in (".csv", ".xls", ".xlsx"):
            files.tables.append(path)
        elif suffix in OTHERS:
            files.strange.append(re.sub(r"_[0-9a-f]{8,}(?=_)", "_*", path.name, flags=re.I))  # the patient
    return files


def read_images(tables: Iterable[Path], root: Path) -> pd.DataFrame:
    """Read INbreast.csv: a row for each image with its image number, side, view and birads; the index is the line.

    Comma, semicolon or tab. Raises LemlightError where there is no such table, or one of another version.
    """
    file = _one_table(list(tables), root)
    rows = _read_cells(file)
    names = [re.sub(r"[\s_-]", "", cell.lower()) for cell in rows[0][1]] if rows else []
    absent = [shown for name, shown in NEEDED.items() if name not in names]
    if absent:
        there = ", ".join(filter(None, rows[0][1])) if rows else "nothing"
        raise LemlightError(
            f"{file} is not the table of INbreast: it has no column {', '.join(absent)}, but {there}; "
            "take the table of the download as it came"
        )
    if len(rows) == 1:
        raise LemlightError(f"{file} has no rows")
    places = {name: names.index(name) for name in NEEDED}
    cells = [[row[place] if place < len(row) else "" for place in places.values()] for _, row in rows[1:]]
    table = pd.DataFrame(cells, columns=list(places), index=[number for number, _ in rows[1:]], dtype=str)
    table["filename"] = table["filename"].str.replace(r"(\.0+|\.dcm)$", "", regex=True, case=False)
    table["laterality"], table["birads"] = table["laterality"].str.upper(), table["birads"].str.lower()
    table["view"] = table["view"].map(view_of)
    return table.rename(columns={"filename": "image", "laterality": "side"})


def _one_table(files: list[Path], root: Path) -> Path:
    texts = [path for path in files if path.suffix.lower() == ".csv"]
    if not texts and files:
        raise LemlightError(f"{files[0]} is a spreadsheet: save it as CSV under the name {TABLE} beside it")
    if not texts:
        raise LemlightError(
            f"there is no {TABLE} below {root}: set dataset.root to the folder of the INbreast download"
        )
    if len({read_text(path) for path in texts}) > 1:
        raise LemlightError(f"{TABLE} is there {len(texts)} times with different contents: {first_ten(texts)}")
    return texts[0]


def _read_cells(file: Path) -> list[tuple[int, list[str]]]:
    """Read stripped cells with their line numbers; empty lines are left out."""
    text = read_text(file)
    header = text.lstrip().split("\n", 1)[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(";,\t", key=header.count))
    try:
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines]
    except csv.Error as error:
        raise LemlightError(f"{file}, line {lines.line_num}: this is no CSV ({error})") from error
    return [(number, row) for number, row in rows if any(row)]


def view_of(name: str) -> str:
    """Give the view in upper case; ML stands for MLO in INbreast."""
    return "MLO" if name.upper() == "ML" else name.upper()


def read_header(path: Path) -> Header:
    """Read the header of an image; raises ImageError where it is no DICOM file, or one that is cut short."""
    try:
        with quiet():
            header = pydicom.dcmread(path, specific_tags=TAGS, stop_before_pixels=True)
            shape = int(header.Rows), int(header.Columns)
            pixels = shape[0] * shape[1] * int(header.SamplesPerPixel) * int(header.BitsAllocated) // 8
            whole = header.file_meta.TransferSyntaxUID.is_compressed or path.stat().st_size >= pixels
            patient_id = str(header.get("PatientID") or "").strip()
    except MemoryError:
        raise
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
    except Exception as error:  # pydicom raises whatever broken tags make Python raise; its text may hold values
        raise ImageError("no DICOM image") from error
    if not whole:
        raise ImageError("cut short")
    return Header(shape, patient_id)

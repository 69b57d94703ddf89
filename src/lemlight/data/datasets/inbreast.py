"""INbreast on disk: what lies where, its table of images, and what the headers of the images say."""

import csv
import io
import logging
import plistlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pydicom
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lemlight.arguments import checked
from lemlight.data.datasets.common import Problems, files_of, read_text
from lemlight.data.dicom import quiet
from lemlight.data.lesions import Lesion
from lemlight.data.table import check_table, first_ten
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


TYPES = {
    "mass": "mass",
    "spiculated region": "mass",
    "espiculated region": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "calcification",
    "distortion": "distortion",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",
    "": "",
    "unnamed": "",
    "point": "",  # "Point 1", "Point 3"
}
MUSCLE = "pectoral muscle"
LARGEST = 64 * 2**20  # bytes; a property list is read as a whole
BEYOND = 0.01  # of the image's side: so far may an outline be drawn over the edge by hand
NUMBER = r"\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*"
Region = tuple[str, tuple[tuple[float, float], ...]]  # name in lower case, points (x, y) in px

POINT = re.compile(rf"\({NUMBER},{NUMBER}(?:,{NUMBER})?\)")


def read_annotations(path: Path) -> list[Region]:
    """Read the name in lower case and the points (x, y) in px of every region but the pectoral muscle.

    Raises ImageError where the file is no property list, or not one of a single annotated image.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("larger than any annotation")
        with path.open("rb") as file:
            images = plistlib.load(file, fmt=plistlib.FMT_XML)["Images"]
        if len(images) != 1:
            raise ValueError(f"{len(images)} images")
        regions = [(_name(region), _points(region)) for region in images[0]["ROIs"]]
    except MemoryError:
        raise
    except Exception as error:  # plistlib raises whatever broken XML makes Python raise
        raise ImageError(f"{path.name} is no property list of an INbreast image ({type(error).__name__})") from error
    return [(name, points) for name, points in regions if not name.startswith(MUSCLE)]


def lesions_in(regions: list[Region], shape: tuple[int, int]) -> tuple[Lesion, ...]:
    """Turn regions into lesions of an image of `shape` (H, W) px.

    A vertex up to 1 % of the side beyond the edge is moved onto it. Raises ImageError where a region lies farther
    outside, or has no point: the lesions of that image are not known, a part of them would pass for all.
    """
    return tuple(_lesion(name, points, shape) for name, points in regions)


def _lesion(name: str, points: tuple[tuple[float, float], ...], shape: tuple[int, int]) -> Lesion:
    height, width = shape
    if not points:
        raise ImageError("a region without points")
    for x, y in points:
        beyond = max(-x / width, (x - width + 1) / width, -y / height, (y - height + 1) / height)
        if beyond > BEYOND:
            raise ImageError("a region outside the image")
    inside = tuple((min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)) for x, y in points)
    kind = TYPES.get(re.sub(r"^point \d+$", "point", name), "other")
    return Lesion("polygon" if len(inside) > 2 else "points", type=kind, points=inside)


def _name(region: dict[str, Any]) -> str:
    return " ".join(str(region.get("Name") or "").lower().split())


def _points(region: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    points = []
    for text in region.get("Point_px") or ():
        match = POINT.fullmatch(text.strip())
        if match is None:
            raise ValueError("a point that is no pair of numbers")
        points.append((float(match[1]), float(match[2])))
    return tuple(points)


CATEGORIES = ("1", "2", "3", "4", "4a", "4b", "4c", "5", "6")
NO_PATIENT = {"", "removed", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none"}
MOST_CONTRADICTIONS = 0.1  # share of the images; above, the table is not that of these images

logger = logging.getLogger(__name__)


@checked
def inbreast(
    root: str | Path,
    malignant_from: Annotated[int, Field(ge=2, le=6)] = 4,
    leave_out: Sequence[Literal[1, 2, 3, 4, 5, 6, "4a", "4b", "4c"]] = (),
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of INbreast below `root`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing or broken only without `allow_missing`.
    """
    root = Path(root)
    problems = Problems("INbreast", root)
    files = sort_files(files_of(root, "INbreast"))
    left_out = {str(category) for category in leave_out}
    headers = _check_files(files, problems)
    annotations = _read_all_annotations(files, problems)
    try:
        images = read_images(files.tables, root)
    except LemlightError as error:
        problems.wrong("the table", [error])
        images = pd.DataFrame(columns=["side", "view", "image", "birads"], dtype=str)
    else:
        _check_rows(images, files, problems)
        images = images[~images["birads"].map(lambda category: bool({category, category[:1]} & left_out))]
        absent = images.loc[~images["image"].isin(list(files.images)), "image"]
        problems.incomplete("images of the table without a file", absent)
        images = images[images["image"].isin(list(headers))]
    problems.raise_any(allow_missing)
    if images.empty:
        raise LemlightError(f"no image of INbreast is left of {root}: check dataset.root and dataset.leave_out")
    return _build(images, files, headers, annotations, malignant_from)


def _check_files(files: Files, problems: Problems) -> dict[str, Header]:
    """Read the headers of all images; note files of other data sets, doubles, and what is no whole DICOM file."""
    problems.wrong("images whose names are not INbreast's", files.strange)
    problems.wrong("images that are there twice", [image for image, paths in files.images.items() if len(paths) > 1])
    headers, broken = {}, []
    for image, paths in sorted(files.images.items()):
        try:
            headers[image] = read_header(paths[0])
        except ImageError as error:
            broken.append(f"{image}: {error}")
    problems.incomplete("broken images", broken)
    return headers


def _read_all_annotations(files: Files, problems: Problems) -> dict[str, list[Region] | None]:
    """Read the regions by image, None where its XML is broken."""
    if not files.annotations:
        problems.incomplete("the annotations are missing", ["AllXML"])
    doubles = [image for image, paths in files.annotations.items() if len(paths) > 1]
    problems.wrong("annotations that are there twice", doubles)
    annotations: dict[str, list[Region] | None] = {}
    broken = []
    for image, paths in sorted(files.annotations.items()):
        try:
            annotations[image] = read_annotations(paths[0])
        except ImageError as error:
            annotations[image] = None
            broken.append(error)
    problems.incomplete("broken annotations", broken)
    return annotations


def _check_rows(images: pd.DataFrame, files: Files, problems: Problems) -> None:
    """Note rows that cannot be read, files without a row, and a table that contradicts the file names."""

    def wrong(what: str, bad: "pd.Series[bool]", column: str) -> None:
        problems.wrong(what, [f"line {line} ({value!r})" for line, value in images.loc[bad, column].items()])

    wrong("unknown BI-RADS", ~images["birads"].isin(CATEGORIES), "birads")
    wrong("unknown laterality", ~images["side"].isin(["L", "R"]), "side")
    wrong("unknown view", ~images["view"].str.fullmatch("[A-Z]+"), "view")
    wrong("File Name is no image number", ~images["image"].str.fullmatch(r"\d+"), "image")
    wrong("images that the table lists twice", images["image"].duplicated(keep=False), "image")
    listed = set(images["image"])
    problems.incomplete("images without a row in the table", sorted(set(files.images) - listed))
    problems.incomplete("annotations without a row in the table", sorted(set(files.annotations) - listed))
    contradicting = []
    for image, side, view in zip(images["image"], images["side"], images["view"], strict=True):
        name = IMAGE_NAME.fullmatch(files.images[image][0].name) if image in files.images else None
        if name and (name["side"].upper(), view_of(name["view"])) != (side, view):
            contradicting.append(image)
    if len(contradicting) > MOST_CONTRADICTIONS * len(images):
        problems.wrong("images whose side or view is another in the table than in their names", contradicting)
    elif contradicting:
        logger.warning(
            "INbreast: side or view differ in table and file name, the table's: %s", first_ten(contradicting)
        )


def _build(
    images: pd.DataFrame,
    files: Files,
    headers: dict[str, Header],
    annotations: dict[str, list[Region] | None],
    malignant_from: int,
) -> pd.DataFrame:
    paths = images["image"].map(lambda image: files.images[image][0])
    hashes = paths.map(lambda path: path.name.split("_")[1].lower())
    lesions = [
        _lesions(image, birads, headers[image], annotations)
        for image, birads in zip(images["image"], images["birads"], strict=True)
    ]
    unknown = [image for image, found in zip(images["image"], lesions, strict=True) if found is None]
    if unknown:
        logger.warning("INbreast: the lesions of %d images are unknown: %s", len(unknown), first_ten(unknown))
    table = pd.DataFrame(
        {
            "image_id": images["image"],
            "path": paths.map(str),
            "label": (images["birads"].str[0].astype(int) >= malignant_from).astype(int),
            "patient_id": patients(hashes, images["image"].map(lambda image: headers[image].patient_id)),
            "split": "",
            "laterality": images["side"],
            "view": images["view"],
            "lesions": pd.Series([found or () for found in lesions], index=images.index, dtype=object),
            "lesions_known": [found is not None for found in lesions],
        }
    )
    return check_table(table, "INbreast")


def _lesions(
    image: str, birads: str, header: Header, annotations: dict[str, list[Region] | None]
) -> tuple[Lesion, ...] | None:
    """Give the lesions of an image, None where they are unknown."""
    if image not in annotations:
        return () if birads == "1" else None
    regions = annotations[image]
    if regions is None:
        return None
    try:
        return lesions_in(regions, header.shape)
    except ImageError as error:
        logger.warning("INbreast: %s.xml: %s", image, error)
        return None


def patients(hashes: "pd.Series[str]", header_ids: "pd.Series[str]") -> "pd.Series[str]":
    """Name the patient of each image: the hash of its file name, one for hashes that a PatientID of a header joins."""
    said = header_ids.where(~header_ids.str.lower().isin(NO_PATIENT))
    sharing = hashes.groupby(said).nunique()
    total = hashes.nunique()
    said = said.where(~said.isin(sharing.index[sharing > max(2, total / 2)]))
    of_hash, names = pd.factorize(hashes, sort=True)
    of_header, ids = pd.factorize(said)
    both = of_header >= 0
    edges = (np.ones(both.sum()), (of_hash[both], len(names) + of_header[both]))
    size = len(names) + len(ids)
    _, part = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    first = pd.Series(names).groupby(part[: len(names)]).transform("first")
    if first.nunique() < len(names):
        logger.info("INbreast: the headers join %d hashes of file names in %d patients", len(names), first.nunique())
    return pd.Series(first.to_numpy()[of_hash], index=hashes.index)

"""The files of CBIS-DDSM: which case each belongs to, and which of an abnormality's two files is the mask.

A case is an image (`Mass-Training_P_00001_LEFT_CC`) or one of its abnormalities (the same with `_1` behind).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lemlight.data.datasets.common import DICOM, Header, Problems, below, ending, named, read_headers
from lemlight.data.dicom import read_stored_values
from lemlight.data.lesions import ASPECT_TOLERANCE
from lemlight.data.raster import read_raster
from lemlight.errors import ImageError

CASE = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d{5}_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
COPIES = (".jpg", ".jpeg", ".png")
OTHERS = (".pgm",)  # of other data sets; JPEG and PNG pictures may lie about
INFO = "dicom_info.csv"  # of the JPEG copy
NEEDED_OF_INFO = ("PatientID", "image_path")
UID = re.compile(r"\d+(\.\d+){5,}")
NO_HEADER = Header()
SMALLEST_MASK = 0.5  # fraction of the mammogram's height and width; below it is a crop
MASK_BITS = 8  # of the published masks; mammograms have 16
BLACK_OR_WHITE = 0.98  # fraction of the pixels of a mask that are one of two values; JPEG blurs its edges
NEAR = 0.1  # of the range of values: what counts as one of the two


@dataclass
class Cases:
    """The files of each case in their order.

    found_by: number of files by what named their case; copies: JPEG and PNG beside DICOM, not used; pictures: of no
    case, not used; doubles: files that stand in one case twice.
    """

    files: dict[str, list[Header]] = field(default_factory=lambda: defaultdict(list))
    found_by: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    pictures: int = 0
    doubles: int = 0


def sort_files(paths: Iterable[str], root: Path, by_series: Mapping[str, str], problems: Problems) -> Cases:
    """Sort DICOM files, or without any the JPEG and PNG copies, into their cases; note what is broken or no case's.

    A case is named by a folder, else by the header or dicom_info.csv, else by the series of the tables, `by_series`.
    """
    names = {path: below(path, root) for path in paths}
    told = _read_info(named(names, INFO), problems)
    places = _Places(names, told, by_series)
    cases = Cases()
    strange = [name for name in names.values() if ending(name) in OTHERS]
    strange += _sort([path for path in names if ending(path) in DICOM], places, cases, problems)
    copies = {path: bool(places.of(path)[0]) for path in names if ending(path) in COPIES}
    if cases.files:
        cases.copies = sum(copies.values())
    else:
        unlisted = [path for path, of_case in copies.items() if not of_case and UID.fullmatch(Path(path).parent.name)]
        problems.incomplete(f"images of no case, neither by {INFO} nor by the tables", [names[p] for p in unlisted])
        _sort([path for path, of_case in copies.items() if of_case], places, cases, problems)
        cases.pictures = len(copies) - sum(copies.values()) - len(unlisted)
    problems.wrong("images of no case of CBIS-DDSM", strange)
    _note_doubles(cases, names, problems)
    return cases


@dataclass(frozen=True)
class _Places:
    """All that can name the case of a file: its place below root, dicom_info.csv, and the series of the tables."""

    names: Mapping[str, str]
    told: Mapping[str, str]
    by_series: Mapping[str, str]

    def of(self, path: str, header: Header = NO_HEADER) -> tuple[str, str]:
        """Give the case of a file and what named it, "" if nothing does."""
        *folders, name = self.names[path].split("/")
        series = [header.series, *reversed(folders)]
        sources = {
            "folder": next((folder for folder in reversed(folders) if CASE.fullmatch(folder)), ""),
            "header": _case(header),
            INFO: self.told.get("/".join([*folders[-1:], name]), ""),
            "series": next((self.by_series[uid] for uid in series if uid in self.by_series), ""),
        }
        return next(((case, kind) for kind, case in sources.items() if case), ("", ""))


def _case(header: Header) -> str:
    """Give the PatientID where that is a case's name, as in every file of The Cancer Imaging Archive."""
    return header.patient if CASE.fullmatch(header.patient) else ""


def _sort(paths: list[str], places: _Places, cases: Cases, problems: Problems) -> list[str]:
    """Add files to their cases by what their headers say; note the broken ones; give those of no case."""
    broken, moved, strange = [], [], []
    for path, header in read_headers(paths).items():
        case, found_by = places.of(path, header)
        name = places.names[path]
        if header.problem:
            broken.append(f"{name}: {header.problem}")
        elif not case:
            strange.append(name)
        elif found_by == "folder" and _case(header) not in ("", case):
            moved.append(f"{name} ({_case(header)})")
        else:
            cases.files[case].append(header)
            cases.found_by[found_by] += 1
    problems.incomplete("broken images", broken)
    problems.wrong("images in the folder of another case than their headers name", moved)
    return strange


def mammogram_of(case: str) -> str:
    """Name the mammogram that a case, an image's or an abnormality's, belongs to: P_00001_LEFT_CC."""
    return "_".join(case.split("_")[1:5])


def _read_info(tables: list[str], problems: Problems) -> dict[str, str]:
    """Read the case by `<series>/<file>` from the table of the JPEG copy; empty without one."""
    if not tables:
        return {}
    rows = problems.table(f"the table {INFO}", tables, INFO, NEEDED_OF_INFO)
    files = rows["image_path"].str.split("/").str[-2:].str.join("/")
    cases = rows["PatientID"].where(rows["PatientID"].str.fullmatch(CASE.pattern), "")
    twice = files.duplicated(keep=False) & (cases.groupby(files).transform("nunique") > 1)
    problems.wrong(f"images that {INFO} puts into several cases", sorted(set(files[twice])))
    return dict(zip(files, cases, strict=True))


def _note_doubles(cases: Cases, names: Mapping[str, str], problems: Problems) -> None:
    """Note files that stand in cases of several mammograms; of those twice in one case the first is kept."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for case, files in cases.files.items():
        for file in files:
            if file.instance:
                places[file.instance].setdefault(mammogram_of(case), names[file.path])
        seen = {file.instance or file.path: file for file in reversed(files)}
        cases.doubles += len(files) - len(seen)
        cases.files[case] = sorted(seen.values(), key=lambda file: file.path)
    doubles = [" and ".join(where.values()) for where in places.values() if len(where) > 1]
    problems.wrong("images that stand in the folders of several mammograms", doubles)


def choose_mammogram(files: Sequence[Header]) -> Header | None:
    """Choose the mammogram among the files of a mammogram's cases: the one with the most pixels that is no mask."""
    if not files:
        return None
    largest = max((_size(file), file.bits) for file in files)
    same = [file for file in files if (_size(file), file.bits) == largest]
    return same[0] if len(same) == 1 else next((file for file in same if not is_two_valued(file.path)), same[0])


def choose_mask(files: Sequence[Header], mammogram: Header) -> tuple[Header | None, str]:
    """Choose the mask of an abnormality, which tables, names and descriptions mix up with its crop.

    It is the file of the mammogram's shape; else the largest one of its aspect (within 2 %) and at least half its
    size, which can be rescaled. A file counts as such if it has two values, which is looked up in the pixels where
    the shape does not decide alone: several files fit, the size differs, or it has not 8 bits.

    Returns:
        The file, and how it was found: "" for the mammogram's shape, "rescaled" for another size. Without one, why:
        "aspect" (a mask's size, another aspect), "crop" (no file is large enough, or two-valued).
    """
    same = [file for file in files if file.shape == mammogram.shape]
    if len(same) == 1 and same[0].bits == MASK_BITS:
        return same[0], ""
    for file in same:
        if is_two_valued(file.path):
            return file, ""
    others = [file for file in files if file.shape != mammogram.shape and _is_large(file, mammogram)]
    masks = [file for file in sorted(others, key=_size, reverse=True) if is_two_valued(file.path)]
    fitting = next((file for file in masks if _has_aspect(file, mammogram)), None)
    if fitting:
        return fitting, "rescaled"
    return None, "aspect" if masks else "crop"


def is_two_valued(path: str) -> bool:
    """Whether nearly all pixels have one of two values; False for a file that cannot be decoded."""
    try:
        values = read_stored_values(Path(path)) if ending(path) in DICOM else read_raster(Path(path)).pixels
    except ImageError:
        return False
    low, high = float(values.min()), float(values.max())
    near = NEAR * (high - low)
    return low < high and float(np.mean((values <= low + near) | (values >= high - near))) >= BLACK_OR_WHITE


def _size(file: Header) -> int:
    return file.shape[0] * file.shape[1]


def _is_large(file: Header, mammogram: Header) -> bool:
    shapes = zip(file.shape, mammogram.shape, strict=True)
    return all(side >= SMALLEST_MASK * full for side, full in shapes)


def _has_aspect(file: Header, mammogram: Header) -> bool:
    (rows, columns), (height, width) = file.shape, mammogram.shape
    return abs(rows * width / (columns * height) - 1) <= ASPECT_TOLERANCE

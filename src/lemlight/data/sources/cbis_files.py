"""The files of CBIS-DDSM on disk, whatever the layout: each is sorted into its case by whatever names that."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lemlight.data.sources.cbis_headers import CASE, Header, read_headers
from lemlight.data.sources.download import Problems
from lemlight.data.sources.listing import IMAGES, below, ending
from lemlight.data.sources.rows import one_table, read_rows
from lemlight.errors import LemlightError

COPIES = (".jpg", ".jpeg", ".png")
OTHERS = (".pgm",)  # of other data sets; JPEG and PNG pictures may lie about
INFO = "dicom_info.csv"  # of the JPEG copy
NEEDED_OF_INFO = ("PatientID", "SeriesDescription", "image_path")
UID = re.compile(r"\d+(\.\d+){5,}")


@dataclass(frozen=True)
class CaseFile:
    """A file of a case: path, header, and what it is said to be (its SeriesDescription, or the folder's name)."""

    path: str
    header: Header
    said: str


@dataclass
class Cases:
    """The files of each case (`Mass-Training_P_00001_LEFT_CC`, an abnormality's with `_1` behind) in their order.

    found_by: number of files by what named their case; copies: JPEG and PNG beside DICOM, not used; pictures: of no
    case, not used; doubles: files that stand in one case twice.
    """

    files: dict[str, list[CaseFile]] = field(default_factory=lambda: defaultdict(list))
    found_by: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    pictures: int = 0
    doubles: int = 0


def sort_files(paths: Iterable[str], root: Path, by_series: Mapping[str, str], problems: Problems) -> Cases:
    """Sort DICOM files, or without any the JPEG and PNG copies, into their cases; note what is broken or no case's.

    A case is named by a folder, else by the header or dicom_info.csv, else by the series of the tables, `by_series`.
    """
    names = {path: below(path, root) for path in paths}
    told = _read_info([path for path in names if Path(path).name == INFO], root, problems)
    places = _Places(names, told, by_series)
    cases = Cases()
    strange = [name for name in names.values() if ending(name) in OTHERS]
    strange += _sort([path for path in names if ending(path) in IMAGES], places, cases, problems)
    copies = {path: bool(places.of(path).case) for path in names if ending(path) in COPIES}
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


class _Place(NamedTuple):
    """The case of a file, "" if none, what named it, and what the file is said to be."""

    case: str
    found_by: str
    said: str


@dataclass(frozen=True)
class _Places:
    """All that can name the case of a file: its place below root, dicom_info.csv, and the series of the tables."""

    names: Mapping[str, str]
    told: Mapping[str, tuple[str, str]]
    by_series: Mapping[str, str]

    def of(self, path: str, header: Header | None = None) -> _Place:
        *folders, name = self.names[path].split("/")
        header = header or Header()
        info_case, description = self.told.get("/".join([*folders[-1:], name]), ("", ""))
        series = [header.series, *reversed(folders)]
        named = {
            "folder": next((folder for folder in reversed(folders) if CASE.fullmatch(folder)), ""),
            "header": header.case,
            INFO: info_case,
            "series": next((self.by_series[uid] for uid in series if uid in self.by_series), ""),
        }
        found_by = next((kind for kind, case in named.items() if case), "")
        said = header.description or description or "".join(folders[-1:])
        return _Place(named.get(found_by, ""), found_by, said)


def _sort(paths: list[str], places: _Places, cases: Cases, problems: Problems) -> list[str]:
    """Add files to their cases by what their headers say; note those that are broken; give those of no case."""
    broken, moved, strange = [], [], []
    for path, header in read_headers(paths).items():
        case, found_by, said = places.of(path, header)
        name = places.names[path]
        if header.problem:
            broken.append(f"{name}: {header.problem}")
        elif not case:
            strange.append(name)
        elif found_by == "folder" and header.case not in ("", case):
            moved.append(f"{name} ({header.case})")
        else:
            cases.files[case].append(CaseFile(path, header, said))
            cases.found_by[found_by] += 1
    problems.incomplete("broken images", broken)
    problems.wrong("images in the folder of another case than their headers name", moved)
    return strange


def mammogram_of(case: str) -> str:
    """Name the mammogram that a case, an image's or an abnormality's, belongs to: P_00001_LEFT_CC."""
    return "_".join(case.split("_")[1:5])


def _read_info(tables: list[str], root: Path, problems: Problems) -> dict[str, tuple[str, str]]:
    """Read case and description by `<series>/<file>` from the table of the JPEG copy; empty without one."""
    if not tables:
        return {}
    try:
        rows = read_rows(one_table(tables, INFO, root), NEEDED_OF_INFO)
    except LemlightError as error:
        problems.wrong(f"the table {INFO}", [error])
        return {}
    files = rows["image_path"].str.split("/").str[-2:].str.join("/")
    cases = rows["PatientID"].where(rows["PatientID"].str.fullmatch(CASE.pattern), "")
    twice = files.duplicated(keep=False) & (cases.groupby(files).transform("nunique") > 1)
    problems.wrong(f"images that {INFO} puts into several cases", sorted(set(files[twice])))
    return dict(zip(files, zip(cases, rows["SeriesDescription"], strict=True), strict=True))


def _note_doubles(cases: Cases, names: Mapping[str, str], problems: Problems) -> None:
    """Note files that stand in cases of several mammograms; of those twice in one case the first is kept."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for case, files in cases.files.items():
        for file in files:
            if file.header.instance:
                places[file.header.instance].setdefault(mammogram_of(case), names[file.path])
        seen = {file.header.instance or file.path: file for file in reversed(files)}
        cases.doubles += len(files) - len(seen)
        cases.files[case] = sorted(seen.values(), key=lambda file: file.path)
    doubles = [" and ".join(where.values()) for where in places.values() if len(where) > 1]
    problems.wrong("images that stand in the folders of several mammograms", doubles)

"""The files of CBIS-DDSM: which case each belongs to, and which of an abnormality's two files is the mask.

A case is an image (`Mass-Training_P_00001_LEFT_CC`) or one of its abnormalities (the same with `_1` behind).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lemlight.data.datasets.common import DICOM, Download, Header, ending, named
from lemlight.data.preparing.lesions import ASPECT_TOLERANCE
from lemlight.data.reading.dicom import read_stored_values
from lemlight.data.reading.isolated import map_isolated
from lemlight.data.reading.raster import read_raster

CASE = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d{5}_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
COPIES = (".jpg", ".jpeg", ".png")
OTHERS = (".pgm",)  # of other data sets; JPEG and PNG pictures may lie about
INFO = "dicom_info.csv"  # of the JPEG copy
NEEDED_OF_INFO = ("PatientID", "image_path")
UID = re.compile(r"\d+(\.\d+){5,}")
SMALLEST_MASK = 0.5  # fraction of the mammogram's height and width; below it is a crop
MASK_BITS = 8  # of the published masks; mammograms have 16
BLACK_OR_WHITE = 0.98  # fraction of the pixels of a mask that are one of two values; JPEG blurs its edges
NEAR = 0.1  # of the range of values: what counts as one of the two


Cases = dict[str, list[Header]]  # the files of each case in their order


def sort_files(download: Download, by_series: Mapping[str, str]) -> Cases:
    """Sort DICOM files, or without any the JPEG and PNG copies, into their cases; note what is broken or no case's.

    A case is named by a folder, else by the header or dicom_info.csv, else by the series of the tables, `by_series`.
    """
    told = _read_info(download)

    def case_of(path: str, header: Header | None = None) -> str:
        """Name the case of a file, "" where nothing does: the folder is found by itself, as is all else."""
        *folders, name = download.show(path).split("/")
        series = [header.series if header else "", *reversed(folders)]
        return (
            _case(reversed(folders))
            or _case([header.patient if header else ""])
            or told.get("/".join([*folders[-1:], name]), "")
            or next((by_series[uid] for uid in series if uid in by_series), "")
        )

    cases = _sort(download.of_kind(DICOM), case_of, download)
    download.wrong("images of no case of CBIS-DDSM", map(download.show, download.of_kind(OTHERS)))
    copies = {path: bool(case_of(path)) for path in download.of_kind(COPIES)}
    ours = [path for path, of_case in copies.items() if of_case]
    if cases:
        download.note("JPEG and PNG copies beside the DICOM files, which are not used", map(download.show, ours))
    else:
        strange = [path for path in copies if not copies[path] and UID.fullmatch(Path(path).parent.name)]
        unlisted = f"images of no case, neither by {INFO} nor by the tables"
        download.incomplete(unlisted, map(download.show, strange))
        cases = _sort(ours, case_of, download)
        pictures = copies.keys() - {*ours, *strange}
        download.note("pictures of no case, which are not used", map(download.show, sorted(pictures)))
    return _without_doubles(cases, download)


def _case(names: Iterable[str]) -> str:
    """Give the first of the names that is a case's, as PatientID is in every file of The Cancer Imaging Archive."""
    return next((name for name in names if CASE.fullmatch(name)), "")


def _sort(paths: list[str], case_of: Callable[[str, Header], str], download: Download) -> Cases:
    """Put files into their cases by what their headers say; note the broken ones and those of no case."""
    cases: Cases = defaultdict(list)
    for path, header in download.headers(paths).items():
        case, said = case_of(path, header), _case([header.patient])
        if not case:
            download.wrong("images of no case of CBIS-DDSM", [download.show(path)])
        elif said not in ("", case) and case in download.show(path).split("/")[:-1]:
            moved = f"{download.show(path)} ({said})"
            download.wrong("images in the folder of another case than their headers name", [moved])
        else:
            cases[case].append(header)
    return cases


def mammogram_of(case: str) -> str:
    """Name the mammogram that a case, an image's or an abnormality's, belongs to: P_00001_LEFT_CC."""
    return "_".join(case.split("_")[1:5])


def _read_info(download: Download) -> dict[str, str]:
    """Read the case by `<series>/<file>` from the table of the JPEG copy; empty without one."""
    if not named(download.files, INFO):
        return {}
    rows = download.table(INFO, NEEDED_OF_INFO)
    files = rows["image_path"].str.split("/").str[-2:].str.join("/")
    cases = rows["PatientID"].where(rows["PatientID"].str.fullmatch(CASE.pattern), "")
    twice = files.duplicated(keep=False) & (cases.groupby(files).transform("nunique") > 1)
    download.wrong(f"images that {INFO} puts into several cases", sorted(set(files[twice])))
    return dict(zip(files, cases, strict=True))


def _without_doubles(cases: Cases, download: Download) -> Cases:
    """Keep one of the files that stand in a case twice; those in cases of several mammograms are wrong."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    kept = {}
    for case, files in cases.items():
        for file in files:
            if file.instance:
                places[file.instance].setdefault(mammogram_of(case), download.show(file.path))
        seen = {file.instance or file.path: file for file in reversed(files)}
        kept[case] = sorted(seen.values(), key=lambda file: file.path)
        twice = {file.path for file in files} - {file.path for file in seen.values()}
        download.note("files that are there twice: one of each is taken", map(download.show, sorted(twice)))
    doubles = [" and ".join(where.values()) for where in places.values() if len(where) > 1]
    download.wrong("images that stand in the folders of several mammograms", doubles)
    return kept


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
    (found,) = map_isolated(_has_two_values, [path], workers=1)
    return found is True


def _has_two_values(path: str) -> bool:
    values = read_stored_values(Path(path)) if ending(path) in DICOM else read_raster(Path(path)).pixels
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

"""What all data sets share: the files of a folder, tables of text, headers, and one list of everything wrong."""

import csv
import io
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO

import pandas as pd
import PIL.Image
from pydicom.dataset import Dataset
from tqdm import tqdm

from lemlight.data.dicom import CUT_SHORT, laterality, quiet, read_header, view
from lemlight.data.lesions import Lesion
from lemlight.data.table import bullet_error, check_table, first_ten
from lemlight.errors import LemlightError

PUBLISHED = {  # images
    "cbis": 3032,  # in 3103 folders: 71 mammograms stand there twice, once as mass and once as calc
    "cmmd": 5202,
    "inbreast": 410,
    "mias": 322,
    "rsna": 54706,
    "vindr": 20000,
}
DICOM = (".dcm", ".dicom")
SHEETS = {".xlsx": "openpyxl", ".xls": "xlrd"}  # and what pandas reads them with
LEFT_BEHIND = "__MACOSX"
AGAIN = "take the table of the download as it came, or download it again"

logger = logging.getLogger(__name__)


class Problems:
    """All that is wrong with a download, collected before anything is decoded.

    `wrong` makes it unusable; `incomplete` does so unless the user allows to go on without what is missing.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._wrong: list[str] = []
        self._incomplete: list[str] = []

    def wrong(self, what: str, items: Iterable[object]) -> None:
        """Note `what` if there are any items: nothing can be used before that is corrected."""
        self._wrong += _line(what, items)

    def incomplete(self, what: str, items: Iterable[object]) -> None:
        """Note `what` if there are any items: they can be left out."""
        self._incomplete += _line(what, items)

    def wrong_values(self, rows: pd.DataFrame, bad: Mapping[str, "pd.Series[bool]"], what: str = "unknown {}") -> None:
        """Note the lines of a table whose value in a column, a key of `bad`, cannot be used."""
        for column, where in bad.items():
            values = rows.loc[where, column].items()
            self.wrong(what.format(column), [f"line {line} ({value!r})" for line, value in values])

    def repeated(self, rows: pd.DataFrame, key: str, label: str) -> None:
        """Note the images that a table lists more than once, apart for those that contradict each other in `label`."""
        labels = rows[rows[key].duplicated(keep=False)].groupby(key)[label].nunique()
        self.wrong("images that the table lists twice with different labels", labels.index[labels > 1])
        self.wrong("images that the table lists twice", labels.index[labels <= 1])

    def table(self, what: str, paths: Sequence[str], name: str, needed: Sequence[str]) -> pd.DataFrame:
        """Read the table of that name among its copies, a CSV first; no rows where it cannot be used, as noted."""
        try:
            texts = [path for path in paths if ending(path) not in SHEETS]
            return read_rows(one_table(texts or paths[:1], name, self.root), needed)
        except LemlightError as error:
            self.wrong(what, [error])
            return pd.DataFrame(columns=list(needed), dtype=str)

    def raise_any(self, allow_missing: bool, images: pd.DataFrame) -> None:
        """Raise one LemlightError with everything noted, or that none of the images is left.

        What may be left out is a warning with `allow_missing`.
        """
        if self._incomplete and allow_missing:
            logger.warning("%s: left out: %s", self.name, "; ".join(self._incomplete))
        fatal = self._wrong if allow_missing else [*self._wrong, *self._incomplete]
        if fatal:
            remedy = "finish the download, or set dataset.allow_missing=true to go on without these"
            last = [remedy] if self._incomplete and not allow_missing else []
            raise bullet_error(f"the {self.name} download in {self.root} cannot be used", [*fatal, *last])
        if images.empty:
            raise LemlightError(f"no image of {self.name} is left of {self.root}: check dataset.root and its options")


def one_table(paths: Sequence[str], wanted: str, root: Path) -> Path:
    """Choose the table among its copies; LemlightError where there is none, or copies that contradict each other."""
    if not paths:
        raise LemlightError(f"there is no {wanted} below {root}: set dataset.root to the folder that holds it")
    if len({read_text(Path(path)) for path in paths}) > 1:
        raise LemlightError(f"{wanted} is there {len(paths)} times with different contents: {first_ten(paths)}")
    return Path(paths[0])


def _line(what: str, items: Iterable[object]) -> list[str]:
    names = list(items)
    return [f"{what} ({len(names)}): {first_ten(names)}"] if names else []


def list_files(root: Path, name: str) -> list[str]:
    """List the absolute paths of all files below root, sorted; hidden ones are passed over.

    The entries of a folder say what they are, so that tens of thousands of files cost no call each. Links are followed
    and a folder is read once. Raises LemlightError where there is no such folder, none of its files, or no permission.
    """
    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder of the {name} download")
    found: list[str] = []
    seen: set[str] = set()
    folders = [os.path.abspath(root)]
    try:
        while folders:
            folder = folders.pop()
            if (real := os.path.realpath(folder)) in seen:  # by way of a link
                continue
            seen.add(real)
            with os.scandir(folder) as entries:
                shown = [entry for entry in entries if entry.name[0] != "." and entry.name != LEFT_BEHIND]
            folders += sorted((entry.path for entry in shown if entry.is_dir()), reverse=True)
            found += [entry.path for entry in shown if entry.is_file()]
    except OSError as error:
        raise LemlightError(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error
    if not found:
        raise LemlightError(f"the folder {root} is empty: put the {name} download there, or set dataset.root")
    return sorted(found)


def ending(path: str) -> str:
    """Give the suffix of a file in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()


def below(path: str, root: Path) -> str:
    """Name a file by its place below root."""
    return PurePath(os.path.relpath(path, os.path.abspath(root))).as_posix()


def named(paths: Iterable[str], name: str) -> list[str]:
    """Give the files of this name, whatever its case."""
    return [path for path in paths if os.path.basename(path).lower() == name.lower()]


def one_file_each(
    paths: Iterable[str],
    name_of: Callable[[str], str],
    problems: Problems,
    what: str = "images",
    shown: Callable[[str], str] | None = None,
) -> dict[str, str]:
    """Give the file of each image, which `name_of` a path gives; note images with several, and files of none ("")."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[name_of(path)].append(path)
    shown = shown or partial(below, root=problems.root)
    strange = map(shown, found.pop("", ()))
    problems.wrong(f"{what} whose names are not {problems.name}'s", strange)
    doubles = [" and ".join(map(shown, same)) for same in found.values() if len(same) > 1]
    problems.wrong(f"{what} that are there twice", doubles)
    return {image: same[0] for image, same in found.items()}


def read_text(path: Path, errors: str = "replace") -> str:
    """Read a text file; LemlightError where the disk refuses, or with errors="strict" where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors)
    except OSError as error:
        raise LemlightError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        raise LemlightError(f"{path} is not UTF-8 text ({why}): save it as CSV UTF-8") from error


def read_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), remedy: str = AGAIN, errors: str = "replace"
) -> pd.DataFrame:
    """Read a CSV (comma, semicolon or tab) as stripped text; columns as its first line says, the index is the line.

    Case, blanks and hyphens in the names of needed and optional columns do not matter. Raises LemlightError with the
    remedy where it is no CSV, where a needed column is missing, and where it is cut short.
    """
    cells = _sheet(path) if path.suffix.lower() in SHEETS else _cells(path, remedy, errors)
    stripped = [(number, [cell.strip() for cell in line]) for number, line in cells]
    (_, names), *body = [(number, line) for number, line in stripped if any(line)] or [(0, [])]
    while names and not names[-1]:  # spreadsheets leave empty columns behind
        names.pop()
    spelled = {_letters(name): name for name in (*needed, *optional)}
    names = [spelled.get(_letters(name), name) for name in names]
    absent = [name for name in needed if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    ragged = [number for number, line in body if len(line) < len(names) or any(line[len(names) :])]
    if absent:
        raise LemlightError(f"{path} has no column {', '.join(absent)}: it has {', '.join(names) or 'none'}; {remedy}")
    if twice:
        raise LemlightError(f"{path} has the column {', '.join(twice)} twice; {remedy}")
    if ragged:
        raise LemlightError(f"{path}: not {len(names)} cells in line {first_ten(ragged)}; {remedy}")
    if not body:
        raise LemlightError(f"{path} has no rows; {remedy}")
    lines, rows = zip(*((number, line[: len(names)]) for number, line in body), strict=True)
    return pd.DataFrame(rows, columns=names, index=lines, dtype=str)


def _cells(path: Path, remedy: str, errors: str) -> list[tuple[int, list[str]]]:
    """Read the cells of a CSV with their line, which pandas does not count; nor does it mind a short line."""
    text = read_text(path, errors)
    header = text.lstrip().split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        why = f"this is no CSV ({error}): check its quotation marks"
        raise LemlightError(f"{path}, line {reader.line_num}: {why}; {remedy}") from error


def _sheet(path: Path) -> list[tuple[int, list[str]]]:
    """Read the first sheet of a spreadsheet, which needs a package that lemlight does not install."""
    try:
        sheet = pd.read_excel(path, header=None, dtype=str, keep_default_na=False)
    except MemoryError:
        raise
    except Exception as error:  # the package is missing, or chokes on the file's styles in whatever way
        package = SHEETS[path.suffix.lower()]
        reason = f"the package {package} is missing" if isinstance(error, ImportError) else type(error).__name__
        remedy = f"save it as CSV under the name {path.stem}.csv beside it"
        raise LemlightError(f"{path} is a spreadsheet that cannot be read here ({reason}): {remedy}") from error
    return list(enumerate(sheet.to_numpy().tolist(), start=1))


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())


IDENTITY = ["SOPInstanceUID", "SeriesInstanceUID", "PatientID"]
POSITION = ["ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence"]
VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}  # SNOMED CT and SRT, CID 4014
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
END_OF_FRAMES = b"\xfe\xff\xdd\xe0"  # of compressed pixels
TAIL = 4096  # bytes in which the end is looked for: something may follow it
THREADS = 16  # reading waits for the disk
BAR_AFTER = 1  # s


@dataclass(frozen=True)
class Header:
    """Shape (H, W) px and bits of a stored pixel; what DICOM says besides, "" where it does not; the problem, or ""."""

    shape: tuple[int, int] = (0, 0)
    bits: int = 0
    patient: str = ""
    series: str = ""
    instance: str = ""
    side: str = ""
    view: str = ""
    problem: str = ""
    path: str = ""


def read_headers(paths: Sequence[str]) -> dict[str, Header]:
    """Read the header of every image file; a bar is drawn where it takes its time."""
    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        read = tqdm(pool.map(_read_header, paths), "reading headers", len(paths), unit="image", delay=BAR_AFTER)
        return {path: replace(header, path=path) for path, header in zip(paths, read, strict=True)}


def _read_header(path: str) -> Header:
    nothing = "no DICOM image" if ending(path) in DICOM else "no image"
    try:
        with Path(path).open("rb") as file:
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


def image_table(images: pd.DataFrame, name: str, lesions: Iterable[tuple[Lesion, ...] | None]) -> pd.DataFrame:
    """Give the checked table of these images with the lesions of each, None where they are not known."""
    found = list(lesions)
    given = pd.Series([some or () for some in found], index=images.index, dtype=object)
    return check_table(images.assign(lesions=given, lesions_known=[some is not None for some in found]), name)


def moved_inside(points: Iterable[tuple[float, float]], shape: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Move points (x, y) beyond the edge of an image (H, W) to its outer pixel centres."""
    return tuple((min(max(x, 0.0), shape[1] - 1.0), min(max(y, 0.0), shape[0] - 1.0)) for x, y in points)


def warn_of_unknown(images: Sequence[object], name: str) -> None:
    """Say which images have lesions that are not known."""
    if images:
        logger.warning("%s: the lesions of %d images are unknown: %s", name, len(images), first_ten(images))

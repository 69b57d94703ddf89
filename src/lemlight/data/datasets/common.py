"""The files of a large download: every folder is listed once, and no file is looked at."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import pandas as pd

from lemlight.data.table import bullet_error, first_ten
from lemlight.errors import LemlightError

IMAGES = (".dcm", ".dicom")
LEFT_BEHIND = "__MACOSX"


def list_files(root: Path, name: str) -> list[str]:
    """List the absolute paths of all files below root, sorted; hidden ones are passed over.

    The entries of a folder say what they are, so that tens of thousands of files cost no call each. Links are followed
    and a folder is read once. Raises LemlightError where there is no such folder, none of its files, or no permission.
    """
    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder of the {name} download")
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders = [os.path.abspath(root)]
    try:
        while folders:
            folder = folders.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # by way of a link
                continue
            seen.add((status.st_dev, status.st_ino))
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


logger = logging.getLogger(__name__)


def files_of(root: Path, name: str) -> list[Path]:
    """List all files below root, sorted; hidden ones and what macOS leaves behind are passed over.

    Links are followed and a folder is read once. Raises LemlightError where there is no such folder or no file in it.
    """
    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder of the {name} download")
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(os.path.abspath(root), followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if folder[0] != "." and folder != "__MACOSX")
        found += [path for file in files if file[0] != "." and (path := Path(place, file)).is_file()]
    if not found:
        raise LemlightError(f"the folder {root} is empty: put the {name} download there, or set dataset.root")
    return sorted(found)


def read_text(path: Path) -> str:
    """Read a text file, in whatever encoding it is; LemlightError where the disk or its permissions refuse."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise LemlightError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


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

    def raise_any(self, allow_missing: bool) -> None:
        """Raise one LemlightError with everything noted; what may be left out is a warning with `allow_missing`."""
        if self._incomplete and allow_missing:
            logger.warning("%s: left out: %s", self.name, "; ".join(self._incomplete))
        fatal = self._wrong if allow_missing else [*self._wrong, *self._incomplete]
        if fatal:
            remedy = "finish the download, or set dataset.allow_missing=true to go on without these"
            last = [remedy] if self._incomplete and not allow_missing else []
            raise bullet_error(f"the {self.name} download in {self.root} cannot be used", [*fatal, *last])


def _line(what: str, items: Iterable[object]) -> list[str]:
    names = list(items)
    return [f"{what} ({len(names)}): {first_ten(names)}"] if names else []


Lines = list[tuple[int, list[str]]]  # line number, stripped cells


def one_table(paths: Sequence[str], wanted: str, root: Path) -> Path:
    """Choose the table among its copies; LemlightError where there is none, or copies that contradict each other."""
    if not paths:
        raise LemlightError(f"there is no {wanted} below {root}: set dataset.root to the folder that holds it")
    if len({read_text(Path(path)) for path in paths}) > 1:
        raise LemlightError(f"{wanted} is there {len(paths)} times with different contents: {first_ten(paths)}")
    return Path(paths[0])


def read_rows(path: Path, needed: Iterable[str]) -> pd.DataFrame:
    """Read a CSV (comma, semicolon or tab) as stripped text with the columns of its first line; the index is the line.

    Raises LemlightError where it is no CSV, where a needed column is missing, and where it is cut short.
    """
    text = read_text(path)
    header = text.lstrip().split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise LemlightError(f"{path}, line {reader.line_num}: this is no CSV ({error}); download it again") from error
    return to_rows(lines, path, needed)


def to_rows(lines: Lines, path: Path, needed: Iterable[str]) -> pd.DataFrame:
    """Make the rows of a table out of the lines of its file, the first of which names the columns."""
    lines = [(number, cells) for number, cells in lines if any(cells)]
    names = lines[0][1] if lines else []
    while names and not names[-1]:  # spreadsheets leave empty columns behind
        names = names[:-1]
    absent = [name for name in needed if name not in names]
    if absent:
        raise LemlightError(
            f"{path} is another version, or no table of this data set: it has no column {', '.join(absent)}, but "
            f"{', '.join(names) or 'none at all'}; take the table of the download as it came"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LemlightError(f"{path} has the column {', '.join(twice)} twice; take the table as it came")
    ragged = [number for number, cells in lines[1:] if len(cells) < len(names) or any(cells[len(names) :])]
    if ragged:
        raise LemlightError(f"{path}: not {len(names)} cells in line {first_ten(ragged)}; download it again")
    if len(lines) < 2:
        raise LemlightError(f"{path} has no rows; download it again")
    body = lines[1:]
    cells = [row[: len(names)] for _, row in body]
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in body], dtype=str)


def note_values(rows: pd.DataFrame, bad: "pd.Series[bool]", column: str, what: str, problems: Problems) -> None:
    """Note the lines of the table whose value in `column` cannot be used."""
    problems.wrong(what, [f"line {line} ({value!r})" for line, value in rows.loc[bad, column].items()])


def note_repeated(rows: pd.DataFrame, key: str, label: str, what: str, problems: Problems) -> None:
    """Note what the table lists more than once, apart for those that contradict each other in `label`."""
    twice = rows[rows[key].duplicated(keep=False)]
    labels = twice.groupby(key)[label].nunique()
    problems.wrong(f"{what} that the table lists twice with different labels", labels.index[labels > 1])
    problems.wrong(f"{what} that the table lists twice", labels.index[labels <= 1])


PUBLISHED = {
    "cbis": 3032,  # in 3103 folders: 71 mammograms stand there twice, once as mass and once as calc
    "cmmd": 5202,
    "inbreast": 410,
    "mias": 322,
    "rsna": 54706,
    "vindr": 20000,
}

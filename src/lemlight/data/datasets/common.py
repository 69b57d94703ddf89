"""What all data sets share: the files of a folder, tables of text, headers, and one list of everything wrong."""

import csv
import io
import logging
import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from lemlight.data.preparing.lesions import Lesion
from lemlight.data.reading.headers import Header, read_headers
from lemlight.data.reading.io import entries_below
from lemlight.data.table import UNSEEN, bullet_error, check_table, first_ten
from lemlight.errors import ImageError, LemlightError

PUBLISHED = {  # images
    "cbis": 3032,  # in 3103 folders: 71 mammograms stand there twice, once as mass and once as calc
    "cmmd": 5202,
    "inbreast": 410,
    "mias": 322,
    "rsna": 54706,
    "victre": 2994,
    "vindr": 20000,
}
DICOM = (".dcm", ".dicom")
SHEETS = {".xlsx": "openpyxl", ".xls": "xlrd"}  # and what pandas reads them with
FEW = 3  # names in a note
AGAIN = "take the table of the download as it came, or download it again"

logger = logging.getLogger(__name__)


class Download:
    """The files of a data set below `root`, and all that is wrong with them, collected before anything is decoded.

    `wrong` makes it unusable, `incomplete` does so unless the user allows to go on without what is missing, and `note`
    is said once, when the table is there. Messages name a file by `show`, as a rule by its place below root.
    """

    def __init__(self, name: str, root: str | Path, show: Callable[[str], str] | None = None) -> None:
        self.name, self.root = name, Path(root)
        self.files = list_files(self.root, name)
        self.show = show or partial(below, root=self.root)
        self._wrong: dict[str, list[object]] = defaultdict(list)
        self._incomplete: dict[str, list[object]] = defaultdict(list)
        self._notes: dict[str, list[object]] = defaultdict(list)

    def wrong(self, what: str, items: Iterable[object]) -> None:
        """Add items of a kind of mistake: nothing can be used before that is corrected."""
        self._wrong[what].extend(items)

    def incomplete(self, what: str, items: Iterable[object]) -> None:
        """Add items of a kind that can be left out."""
        self._incomplete[what].extend(items)

    def note(self, what: str, items: Iterable[object]) -> None:
        """Add items of a kind that is used, and how."""
        self._notes[what].extend(items)

    def wrong_values(self, rows: pd.DataFrame, bad: Mapping[str, "pd.Series[bool]"], what: str = "unknown {}") -> None:
        """Note the lines of a table whose value in a column, a key of `bad`, cannot be used."""
        for column, where in bad.items():
            values = rows.loc[where, column].items()
            self.wrong(what.format(column), [f"line {line} ({value!r})" for line, value in values])

    def sides_and_views(self, rows: pd.DataFrame, view: str = "view") -> None:
        """Put `laterality` and the view into upper case; note the lines where one is no side or no view (letters)."""
        rows["laterality"], rows[view] = rows["laterality"].str.upper(), rows[view].str.upper()
        wrong = {"laterality": ~rows["laterality"].isin(["L", "R"]), view: ~rows[view].str.fullmatch("[A-Z]+")}
        self.wrong_values(rows, wrong)

    def repeated(self, rows: pd.DataFrame, label: str) -> None:
        """Note the images that a table lists more than once, apart for those that contradict each other in `label`."""
        labels = rows[rows["image_id"].duplicated(keep=False)].groupby("image_id")[label].nunique()
        self.wrong("images that the table lists twice with different labels", labels.index[labels > 1])
        self.wrong("images that the table lists twice", labels.index[labels <= 1])

    def of_kind(self, endings: Sequence[str]) -> list[str]:
        """Give the files with one of these suffixes."""
        return [path for path in self.files if ending(path) in endings]

    def table(
        self, name: str, needed: Sequence[str], paths: Sequence[str] | None = None, numbers: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Read the table of that name among its copies, a CSV first; no rows where it cannot be used, as noted.

        In the columns of `numbers` whole ones have no decimals, see `whole_numbers`.
        """
        paths = named(self.files, name) if paths is None else paths
        paths = [path for path in paths if ending(path) not in SHEETS] or paths[:1]
        try:
            if not paths:
                raise LemlightError(
                    f"there is no {name} below {self.root}: set dataset.root to the folder that holds it"
                )
            rows, *copies = [read_rows(Path(path), needed) for path in paths]
            if not all(rows.equals(copy) for copy in copies):
                raise LemlightError(f"{name} is there {len(paths)} times with different contents: {first_ten(paths)}")
        except LemlightError as error:
            self.wrong(f"the table {name}", [error])
            return pd.DataFrame(columns=list(needed), dtype=str)
        return rows.assign(**{column: whole_numbers(rows[column]) for column in numbers})

    def headers(self, paths: Sequence[str]) -> dict[str, Header]:
        """Read the headers of images; note those that are broken, and leave them out."""
        headers = read_headers(paths)
        broken = {header.path: problem for header in headers if (problem := _broken(header))}
        self.incomplete("broken images", [f"{self.show(path)}: {problem}" for path, problem in broken.items()])
        return {header.path: header for header in headers if header.path not in broken}

    def one_file_each(
        self, paths: Iterable[str], name_of: Callable[[str], str], what: str = "images"
    ) -> dict[str, str]:
        """Give the file of each image, which `name_of` a path gives; note doubles, and files of none ("")."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            found[name_of(path)].append(path)
        self.wrong(f"{what} whose names are not {self.name}'s", map(self.show, found.pop("", ())))
        doubles = [" and ".join(map(self.show, same)) for same in found.values() if len(same) > 1]
        self.wrong(f"{what} that are there twice", doubles)
        return {image: same[0] for image, same in found.items()}

    def with_files(
        self, rows: pd.DataFrame, files: Mapping[str, str], key: str, wanted: "pd.Series[bool]"
    ) -> pd.DataFrame:
        """Keep the wanted rows whose image, named in column `key`, has a file, its `path`; note what has only one."""
        if len(rows):
            self.incomplete("images without a row in the table", sorted(set(files) - set(rows[key])))
        rows = rows[wanted]
        self.incomplete("images of the table without a file", sorted(set(rows[key]) - set(files)))
        return rows.assign(path=rows[key].map(files)).dropna(subset="path")

    def check(self, allow_missing: bool, images: pd.DataFrame) -> None:
        """Raise one LemlightError with everything noted, or that none of the images is left.

        What may be left out is a warning with `allow_missing`.
        """
        fatal, incomplete = _lines(self._wrong), _lines(self._incomplete)
        if incomplete and allow_missing:
            logger.warning("%s: left out: %s", self.name, "; ".join(incomplete))
        elif incomplete:
            fatal += [*incomplete, "finish the download, or set dataset.allow_missing=true to go on without these"]
        if fatal:
            raise bullet_error(f"the {self.name} download in {self.root} cannot be used", fatal)
        if images.empty:
            raise LemlightError(f"no image of {self.name} is left of {self.root}: check dataset.root and its options")

    def image_table(
        self, images: pd.DataFrame, lesions_of: Callable[[Any], tuple[Lesion, ...]] | None = None
    ) -> pd.DataFrame:
        """Give the checked table of these images, and say what was noted.

        `lesions_of` gives the lesions of a row; it raises ImageError, which says why, where they are not known.
        """
        if lesions_of:
            lesions: list[tuple[Lesion, ...] | None] = []
            unknown = []
            for row in images.itertuples():
                try:
                    lesions.append(lesions_of(row))
                except ImageError as error:
                    lesions.append(None)
                    unknown.append(f"{row.image_id} ({error})")
            self.note("images with unknown lesions", unknown)
            given = pd.Series([some or () for some in lesions], index=images.index, dtype=object)
            images = images.assign(lesions=given, lesions_known=[some is not None for some in lesions])
        if notes := _lines(self._notes, FEW):
            logger.warning("%s", "\n  - ".join([f"{self.name}: {len(images)} images", *notes]))
        return check_table(images, self.name)


def _lines(noted: Mapping[str, Sequence[object]], most: int = 10) -> list[str]:
    """A line for each kind: how many, and the first names."""
    return [f"{what} ({len(items)}): {first_ten(items, most)}" for what, items in noted.items() if items]


def list_files(root: Path, name: str) -> list[str]:
    """List the absolute paths of all files below root, sorted; hidden ones are passed over, see `entries_below`.

    Raises LemlightError where there is no such folder, none of its files, or no permission.
    """

    def refuse(error: OSError) -> None:
        raise LemlightError(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error

    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder of the {name} download")
    found = sorted(path for path, is_file in entries_below(os.path.abspath(root), refuse) if is_file)
    if not found:
        raise LemlightError(f"the folder {root} is empty: put the {name} download there, or set dataset.root")
    return found


def ending(path: str) -> str:
    """Give the suffix of a file in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()


def _broken(header: Header) -> str:
    """What keeps a file from being an image of its suffix, "" if nothing."""
    kind, of_kind = ("no DICOM image", ("DICOM", "unreadable")) if ending(header.path) in DICOM else ("no image", "")
    if header.format.endswith(("damaged", "unknown")) or not header.format.startswith(of_kind):
        return kind
    return "cut short" if header.torn else header.problem


def below(path: str, root: Path) -> str:
    """Name a file by its place below root."""
    return PurePath(os.path.relpath(path, os.path.abspath(root))).as_posix()


def named(paths: Iterable[str], name: str) -> list[str]:
    """Give the files of this name, whatever its case."""
    return [path for path in paths if os.path.basename(path).lower() == name.lower()]


def read_text(path: Path, errors: str = "replace") -> str:
    """Read a text file: UTF-8, or UTF-16 with its byte order mark, as spreadsheets write "Unicode text".

    LemlightError where the disk refuses, or with errors="strict" where it is neither.
    """
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data.startswith((BOM_UTF16_BE, BOM_UTF16_LE)) else "utf-8-sig", errors)
    except OSError as error:
        raise LemlightError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start}"
        raise LemlightError(f"{path} is not UTF-8 text ({why}): save it as CSV UTF-8") from error


def read_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), remedy: str = AGAIN, errors: str = "replace"
) -> pd.DataFrame:
    """Read a CSV (comma, semicolon or tab) as stripped text; columns as its first line says, the index is the line.

    Case, blanks and hyphens in the names of needed and optional columns do not matter; columns without a name and empty
    lines are passed over, and at the end of a line a spreadsheet may have dropped empty cells. Raises LemlightError
    with the remedy where it is no CSV, where a needed column is missing, and where it is cut short.
    """
    cells, ended = (_sheet(path), True) if path.suffix.lower() in SHEETS else _cells(path, remedy, errors)
    plain = [(number, [_plain(cell) for cell in line]) for number, line in cells]
    (_, names), *body = [(number, line) for number, line in plain if any(line)] or [(0, [])]
    while names and not names[-1]:  # spreadsheets leave empty columns behind
        names.pop()
    spelled = {_letters(name): name for name in (*needed, *optional)}
    names = [spelled.get(_letters(name), name) for name in names]
    absent = [name for name in needed if name not in names]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    fewest = max((names.index(name) + 1 for name in needed if name in names), default=0)
    ragged = [number for number, line in body if len(line) < fewest or any(line[len(names) :])]
    ragged += [number for number, line in body[-1:] if not ended and fewest <= len(line) < len(names)]  # cut short
    if absent:
        raise LemlightError(f"{path} has no column {', '.join(absent)}: it has {', '.join(names) or 'none'}; {remedy}")
    if twice:
        raise LemlightError(f"{path} has the column {', '.join(twice)} twice; {remedy}")
    if ragged:
        raise LemlightError(f"{path}: not {len(names)} cells in line {first_ten(ragged)}; {remedy}")
    if not body:
        raise LemlightError(f"{path} has no rows; {remedy}")
    lines, rows = zip(*body, strict=True)
    whole = [[*line, *[""] * len(names)][: len(names)] for line in rows]
    return pd.DataFrame(whole, columns=names, index=lines, dtype=str)[[name for name in names if name]]


def _plain(cell: str) -> str:
    """Take off what a spreadsheet puts around a cell: blanks, characters of no width, and `="..."` to keep a text."""
    text = cell.strip() if cell.isascii() else re.sub(rf"^[\s{UNSEEN}]+|[\s{UNSEEN}]+$", "", cell)
    return text[2:-1] if text.startswith('="') and text.endswith('"') else text


def header_line(text: str) -> tuple[str, str]:
    """Give the line with the names of the columns and what separates them; the first line may say so, as `sep=;`."""
    lines = [line for line in text.split("\n", 3) if line.strip()] or [""]
    told = re.fullmatch(r'"?sep=(.)"?,*\s*', lines[0], re.I)
    header = lines[1] if told and len(lines) > 1 else lines[0]
    return header, told[1] if told else max(",;\t", key=header.count)


def _cells(path: Path, remedy: str, errors: str) -> tuple[list[tuple[int, list[str]]], bool]:
    """Read the cells of a CSV with their line, which pandas does not count, and whether the last line has its end."""
    text = read_text(path, errors)
    if "\0" in text:  # UTF-16 without its mark, UTF-32
        raise LemlightError(f"{path} is not UTF-8 text (null characters): save it as CSV UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=header_line(text)[1], strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        why = f"this is no CSV ({error}): check its quotation marks"
        raise LemlightError(f"{path}, line {reader.line_num}: {why}; {remedy}") from error
    told = rows and "".join(rows[0][1]).lower().startswith("sep=")
    return rows[1:] if told else rows, text.endswith(("\n", "\r"))


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


def whole_numbers(column: "pd.Series[str]") -> "pd.Series[str]":
    """Take the decimals off whole numbers: spreadsheets and pandas write 17.0, or 17,0 where the comma is decimal."""
    return column.str.replace(r"^(\d+)[.,]0*$", r"\1", regex=True)


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())


def moved_inside(points: Iterable[tuple[float, float]], shape: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Move points (x, y) beyond the edge of an image (H, W) to its outer pixel centres."""
    return tuple((min(max(x, 0.0), shape[1] - 1.0), min(max(y, 0.0), shape[0] - 1.0)) for x, y in points)

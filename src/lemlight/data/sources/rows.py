"""The tables of public data sets as rows of text, and what is wrong with those rows."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from lemlight.data.sources.download import Problems, read_text
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError

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

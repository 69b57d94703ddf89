"""The image table: one row per image, the one form that every data set takes before anything else sees it."""

import json
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.data.preparing.lesions import SHAPES, TYPES, Lesion
from lemlight.errors import LemlightError
from lemlight.files import write_csv

NEEDED = ("image_id", "path", "label", "patient_id")
FURTHER = ("exam", "site", "vendor", "density", "age")  # what groups images, as text; "" where it is not known
COLUMNS = (*NEEDED, "split", "laterality", "view", "lesions", "lesions_known", *FURTHER)
SPLITS = ("train", "val", "test")
TEXTS = ("image_id", "path", "patient_id", "split", "laterality", "view", *FURTHER)
WRONG_LESIONS: dict[str, Callable[[Lesion], bool]] = {
    f"shape is none of {', '.join(SHAPES)}": lambda lesion: lesion.shape not in SHAPES,
    f"type is none of {', '.join(TYPES[:-1])}": lambda lesion: lesion.type not in TYPES,
    "mask has no path": lambda lesion: lesion.shape == "mask" and not lesion.path,
}

# characters of no width, for a regular expression
UNSEEN = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
ROUNDED = re.compile(r"\d([.,]\d+)? ?[eE][+-]\d\d+|\d[.,]\d+ ?[eE]\d+")  # 1.23457E+15: no other number was ever an ID
NO_VALUE = re.compile(r"#+|#(N/A|REF!|VALUE!|NAME\?|NUM!|DIV/0!|NULL!)|nan|nat|<na>|none|null", re.IGNORECASE)
WHOLE = re.compile(r"0*(\d+?)(?:[.,]0*)?")
THOUSANDS = re.compile(
    r"[1-9]\d{0,2}(,\d{3})+|[1-9]\d{0,2}(\.\d{3})*\.(?!000)\d{3}"
)  # 1,234 as a spreadsheet shows 1234
MONTHS = "jan|feb|mar|m\u00e4r|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
DATE = re.compile(rf"\d\d?[-. /]({MONTHS})[a-z]*([-. /]\d+)?|({MONTHS})[a-z]*[-. /]\d+", re.IGNORECASE)
QUOTED = re.compile(r"""=?"(.*)"|'(.*)""")  # ="0017" and '0017 keep a spreadsheet from taking an ID for a number
DIGITS = 15  # that a spreadsheet keeps of a number

logger = logging.getLogger(__name__)


def clean(text: str) -> str:
    """Take out what nobody sees: characters of no width, blanks around and several in a row, forms of Unicode."""
    if text.isascii():
        return " ".join(text.split())
    return " ".join(re.sub(f"[{UNSEEN}]", "", unicodedata.normalize("NFC", text)).split())


def one_spelling(ids: "pd.Series[str]") -> "pd.Series[str]":
    """Give IDs that are the same in their normal form in one of their spellings, the first in alphabetical order.

    The normal form knows no leading zeros, decimals and thousands of a number (spreadsheets and pandas make 17 or 17.0
    of 0017, 1,234 of 1234), no upper and lower case, no other digits and hyphens than those of ASCII (full-width,
    Arabic, dashes), no quotes that keep a spreadsheet from reading a number, and nothing that `clean` takes out.
    IDs that nothing else is like stay as they are.
    """
    normal = ids.map({text: _normal(text) for text in ids.unique()})
    return ids.groupby(normal).transform("min") if normal.nunique() < ids.nunique() else ids


def _normal(text: str) -> str:
    plain = _plain(text).casefold()
    plain = re.sub("[.,]", "", plain) if THOUSANDS.fullmatch(plain) else plain
    number = WHOLE.fullmatch(plain)
    return number[1] if number else plain


def _plain(text: str) -> str:
    """The text with letters, digits and hyphens of ASCII where they look or count the same, without quotes."""
    plain = re.sub(r"\d", lambda digit: str(int(digit[0])), clean(unicodedata.normalize("NFKC", text)))
    plain = re.sub("[\u2010-\u2015\u2212]", "-", plain)
    quoted = QUOTED.fullmatch(plain)
    return (quoted[1] or quoted[2] or "") if quoted else plain


def _one_patient_each(written: "pd.Series[str]", name: str) -> "pd.Series[str]":
    """Give each patient in one spelling; warn of those that may be two, and of numbers that seem to be rounded."""
    ids = written.map(clean)
    patients = one_spelling(ids)
    same = ids.drop_duplicates().groupby(patients).agg(lambda several: " = ".join(sorted(several)))
    if len(alike := same[ids.groupby(patients).nunique() > 1]):
        logger.warning(
            "%s: patient IDs that differ in leading zeros, decimals or upper and lower case only are taken for one "
            "patient, on one side of the split: %s; where they are two, give them other IDs",
            name,
            first_ten(alike),
        )
    long = [text for text in patients.unique() if text.isdecimal() and len(text) > DIGITS]
    rounded = [text for text in long if not text[DIGITS:].strip("0")]
    if len(rounded) > 2 and len(rounded) >= 5 * sum(0.1 ** (len(text) - DIGITS) for text in long):  # times chance
        logger.warning(
            "%s: %d of the %d patient IDs of more than %d digits end in 0, as where a spreadsheet rounds them: several "
            "patients may have become one; export them as text",
            name,
            len(rounded),
            len(long),
            DIGITS,
        )
    if dates := [text for text in patients.unique() if DATE.fullmatch(text)]:
        logger.warning(
            "%s: patient IDs that look like dates, as a spreadsheet makes 2-Jan of 1-2: %s; export them as text",
            name,
            first_ten(dates),
        )
    return patients


def first_ten(items: Iterable[object], most: int = 10) -> str:
    """Join up to ten items, or `most`, and count the rest: `a, b, c and 12 more`."""
    names = [str(item) for item in items]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def bullet_error(headline: str, problems: Iterable[str]) -> LemlightError:
    """Make one error that lists all problems under a headline."""
    return LemlightError("\n  - ".join([f"{headline}:", *problems]))


def check_table(table: pd.DataFrame, name: str = "the image table") -> pd.DataFrame:
    """Return a checked copy of the table that a data set gives, its rows numbered from 0.

    Needed are `image_id` and `path` of the file, `label` (0 benign or normal, 1 malignant) and `patient_id`. Where
    they are missing, `split`, `laterality` (L, R), `view` (CC, MLO, ...) and the columns of FURTHER become "",
    `lesions` (a tuple of `Lesion`) becomes () and `lesions_known` tells whether there are lesions. A relative path
    starts at the current folder. A patient whose ID is written in several ways gets one of them, see `one_spelling`;
    those that may be two are warned of by name.

    Raises:
        LemlightError: lists every mistake, with its rows and values.
    """
    if not isinstance(table, pd.DataFrame):
        raise LemlightError(f"{name} must be a pandas DataFrame with a row for each image, got {type(table).__name__}")
    problems = table_problems(table)
    if problems:
        raise bullet_error(f"{name} cannot be used", problems)
    checked = _completed(table).reset_index(drop=True)
    checked["patient_id"] = _one_patient_each(checked["patient_id"], name)
    checked["path"] = checked["path"].map(_absolute)
    for column in FURTHER:
        whole = checked[column].str.replace(r"^(\d+)[.,]0*$", r"\1", regex=True)  # 17.0 of a spreadsheet
        checked[column] = whole.map(clean)
    checked["label"] = pd.to_numeric(checked["label"]).astype("int64")
    checked["lesions"] = checked["lesions"].map(lambda lesions: tuple(map(_with_absolute_path, lesions)))
    checked["lesions_known"] = checked["lesions_known"].astype(bool)
    return checked


def table_problems(table: pd.DataFrame, row: str = "row") -> list[str]:
    """List everything wrong with an image table; rows are named by `row` and the table's index."""
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        there = ", ".join(map(str, table.columns)) or "none"
        return [f"no column {', '.join(missing)}; there are {there}: name the columns {', '.join(NEEDED)}"]
    if table.empty:
        return ["it has no rows"]
    full = _completed(table)
    label = pd.to_numeric(table["label"], errors="coerce")
    known = full["lesions_known"].map(lambda value: value in (True, False))
    certain = full["lesions_known"].map(lambda value: value is not False and bool(value))
    rounded = full["patient_id"].map(lambda text: ROUNDED.fullmatch(_plain(text)) is not None)
    no_value = full["patient_id"].map(lambda text: NO_VALUE.fullmatch(clean(text)) is not None)
    several = full["lesions"].map(lambda lesions: isinstance(lesions, tuple) and len(lesions) > 0)
    checks = (
        (full["image_id"].str.strip() == "", "image_id is empty", "image_id"),
        (full["image_id"].duplicated(keep=False), "image_id is not unique", "image_id"),
        (full["path"].str.strip() == "", "path is empty", "path"),
        (~label.isin([0, 1]), "label is neither 0 (benign) nor 1 (malignant)", "label"),
        (full["patient_id"].map(clean) == "", "patient_id is empty", "patient_id"),
        (no_value, "patient_id is what a spreadsheet or pandas writes for no value: it joins patients", "patient_id"),
        (rounded, "patient_id is a rounded number, which joins patients: export the column as text", "patient_id"),
        (~full["split"].isin([*SPLITS, ""]), "split is not train, val, test or empty", "split"),
        (~full["laterality"].isin(["L", "R", ""]), "laterality is not L, R or empty", "laterality"),
        (full["view"] != full["view"].str.upper(), "view is not in upper case", "view"),
        (~full["lesions"].map(_are_lesions), "lesions is not a tuple of Lesion", "lesions"),
        *((_any(full, wrong), f"a lesion's {what}", "lesions") for what, wrong in WRONG_LESIONS.items()),
        (~known, "lesions_known is neither True nor False", "lesions_known"),
        (several & ~certain, "lesions are given, but lesions_known is not True", "lesions_known"),
    )
    return [line for bad, what, column in checks for line in _problem(full.loc[bad, column], what, row)]


def _completed(table: pd.DataFrame) -> pd.DataFrame:
    """The table's columns in order, those that are missing with what stands for unknown, no text that is NaN."""
    full = table.reindex(columns=list(COLUMNS))
    for column in TEXTS:
        full[column] = full[column].astype(object).where(full[column].notna(), "").astype(str)
    if "lesions" not in table:
        full["lesions"] = pd.Series([()] * len(full), index=full.index, dtype=object)
    if "lesions_known" not in table:
        full["lesions_known"] = full["lesions"].map(bool)
    return full


def _problem(values: "pd.Series[Any]", what: str, row: str) -> list[str]:
    """Name the rows (by their index) and the values of one kind of mistake."""
    where = [f"{row} {index} ({_short(value)})" for index, value in values.items()]
    return [f"{what}: {first_ten(where)}"] if where else []


def _short(value: object) -> str:
    text = repr(value)  # the outlines of an image's lesions may fill pages
    return text if len(text) <= 120 else f"{text[:117]}..."


def _are_lesions(lesions: object) -> bool:
    return isinstance(lesions, tuple) and all(isinstance(lesion, Lesion) for lesion in lesions)


def _any(table: pd.DataFrame, wrong: Callable[[Lesion], bool]) -> "pd.Series[bool]":
    """Rows with lesions of which one is wrong."""
    return table["lesions"].map(lambda lesions: _are_lesions(lesions) and any(map(wrong, lesions)))


def _absolute(path: str) -> str:
    return path if os.path.isabs(path) else os.path.abspath(path)


def _with_absolute_path(lesion: Lesion) -> Lesion:
    return lesion if not lesion.path or os.path.isabs(lesion.path) else replace(lesion, path=_absolute(lesion.path))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write an image table as CSV (lesions as a JSON list), whole or not at all; LemlightError if it cannot be."""
    flat = check_table(table)
    flat["lesions"] = flat["lesions"].map(lambda lesions: json.dumps([lesion.to_dict() for lesion in lesions]))
    write_csv(flat, path)

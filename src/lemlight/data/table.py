"""The image table: one row per image, the one form that every data set takes before anything else sees it."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from lemlight.data.lesions import SHAPES, TYPES, Lesion
from lemlight.errors import LemlightError
from lemlight.files import written_aside

COLUMNS = ("image_id", "path", "label", "patient_id", "split", "laterality", "view", "lesions", "lesions_known")
SPLITS = ("train", "val", "test")
TEXTS = ("image_id", "path", "patient_id", "split", "laterality", "view")


def first_ten(items: Iterable[object]) -> str:
    """Join up to ten items and count the rest: `a, b, c and 12 more`."""
    names = [str(item) for item in items]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def bullet_error(headline: str, problems: Iterable[str]) -> LemlightError:
    """Make one error that lists all problems under a headline."""
    return LemlightError("\n  - ".join([f"{headline}:", *problems]))


def _problem(table: pd.DataFrame, bad: "pd.Series[bool]", what: str, column: str, row: str) -> list[str]:
    """Name the rows (by the table's index) and the values of one kind of mistake."""
    where = [f"{row} {index} ({_short(value)})" for index, value in table.loc[bad, column].items()]
    return [f"{what}: {first_ten(where)}"] if where else []


def _short(value: object) -> str:
    text = repr(value)  # the outlines of an image's lesions may fill pages
    return text if len(text) <= 120 else f"{text[:117]}..."


def table_problems(table: pd.DataFrame, row: str = "row") -> list[str]:
    """List everything wrong with an image table; rows are named by `row` and the table's index."""
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        return [f"no column {', '.join(missing)}; there are {', '.join(map(str, table.columns))}"]
    if table.empty:
        return ["it has no rows"]
    text = table[list(TEXTS)].fillna("").astype(str)
    label = pd.to_numeric(table["label"], errors="coerce")
    known = table["lesions_known"].map(lambda value: value in (True, False))
    several = table["lesions"].map(lambda lesions: isinstance(lesions, tuple) and len(lesions) > 0)
    unknown = several & ~table["lesions_known"].map(lambda value: value is not False and bool(value))
    checks = (
        (text["image_id"].str.strip() == "", "image_id is empty", "image_id"),
        (text["image_id"].duplicated(keep=False), "image_id is not unique", "image_id"),
        (~text["path"].map(lambda path: Path(path).is_absolute()), "path is not absolute", "path"),
        (~label.isin([0, 1]), "label is neither 0 (benign) nor 1 (malignant)", "label"),
        (text["patient_id"].str.strip() == "", "patient_id is empty", "patient_id"),
        (~text["split"].isin([*SPLITS, ""]), "split is not train, val, test or empty", "split"),
        (~text["laterality"].isin(["L", "R", ""]), "laterality is not L, R or empty", "laterality"),
        (text["view"] != text["view"].str.upper(), "view is not in upper case", "view"),
        (~table["lesions"].map(_are_lesions), "lesions is not a tuple of Lesion", "lesions"),
        (_any_lesion(table, _of_unknown_shape), f"a lesion's shape is none of {', '.join(SHAPES)}", "lesions"),
        (_any_lesion(table, _of_unknown_type), f"a lesion's type is none of {', '.join(TYPES[:-1])}", "lesions"),
        (_any_lesion(table, _of_relative_path), "a lesion's mask path is not absolute", "lesions"),
        (~known, "lesions_known is neither True nor False", "lesions_known"),
        (unknown, "lesions are given, but lesions_known is not True", "lesions_known"),
    )
    return [line for bad, what, column in checks for line in _problem(table, bad, what, column, row)]


def _are_lesions(lesions: object) -> bool:
    return isinstance(lesions, tuple) and all(isinstance(lesion, Lesion) for lesion in lesions)


def _any_lesion(table: pd.DataFrame, wrong: Callable[[Lesion], bool]) -> "pd.Series[bool]":
    """Rows with lesions of which one is wrong."""
    return table["lesions"].map(lambda lesions: _are_lesions(lesions) and any(map(wrong, lesions)))


def _of_unknown_shape(lesion: Lesion) -> bool:
    return lesion.shape not in SHAPES


def _of_unknown_type(lesion: Lesion) -> bool:
    return lesion.type not in TYPES


def _of_relative_path(lesion: Lesion) -> bool:
    return lesion.shape == "mask" and not Path(lesion.path).is_absolute()


def check_table(table: pd.DataFrame, name: str = "the image table") -> pd.DataFrame:
    """Return a checked copy, columns in order and rows numbered from 0; LemlightError lists all that is wrong."""
    problems = table_problems(table)
    if problems:
        raise bullet_error(f"{name} cannot be used", problems)
    checked = table[list(COLUMNS)].reset_index(drop=True).copy()
    for column in TEXTS:
        checked[column] = checked[column].fillna("").astype(str)
    checked["label"] = pd.to_numeric(checked["label"]).astype("int64")
    checked["lesions_known"] = checked["lesions_known"].astype(bool)
    return checked


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write an image table as CSV (lesions as a JSON list), whole or not at all; LemlightError if it cannot be."""
    flat = check_table(table)
    flat["lesions"] = flat["lesions"].map(lambda lesions: json.dumps([lesion.to_dict() for lesion in lesions]))
    with written_aside(path) as aside:
        flat.to_csv(aside, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` wrote; every text stays text (007, NA)."""
    try:
        flat = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise LemlightError(f"{path}: no image table can be read here ({error}); prepare the data set again") from error
    if {"lesions", "lesions_known"} <= set(flat):
        lesions = [_lesions(cell) for cell in flat["lesions"]]
        flat["lesions"] = pd.Series(lesions, index=flat.index, dtype=object)
        flat["lesions_known"] = flat["lesions_known"].map({"True": True, "False": False})
    return check_table(flat, str(path))


def _lesions(cell: str) -> object:
    """The lesions of one cell; what cannot be understood stays text, which the check then names."""
    try:
        return tuple(Lesion.from_dict(values) for values in json.loads(cell))
    except (ValueError, TypeError, KeyError, AttributeError):
        return cell

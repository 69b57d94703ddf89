"""The image table: one row per image, the one form that every data set takes before anything else sees it."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lemlight.errors import LemlightError
from lemlight.files import written_aside

COLUMNS = ("image_id", "path", "label", "patient_id", "split", "laterality", "view", "mask_paths")
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
    where = [f"{row} {index} ({value!r})" for index, value in table.loc[bad, column].items()]
    return [f"{what}: {first_ten(where)}"] if where else []


def table_problems(table: pd.DataFrame, row: str = "row") -> list[str]:
    """List everything wrong with an image table; rows are named by `row` and the table's index."""
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        return [f"no column {', '.join(missing)}; there are {', '.join(map(str, table.columns))}"]
    if table.empty:
        return ["it has no rows"]
    text = table[list(TEXTS)].fillna("").astype(str)
    label = pd.to_numeric(table["label"], errors="coerce")
    mask_bad = table["mask_paths"].map(
        lambda paths: not isinstance(paths, tuple) or any("|" in p or not Path(p).is_absolute() for p in paths)
    )
    checks = (
        (text["image_id"].str.strip() == "", "image_id is empty", "image_id"),
        (text["image_id"].duplicated(keep=False), "image_id is not unique", "image_id"),
        (~text["path"].map(lambda path: Path(path).is_absolute()), "path is not absolute", "path"),
        (~label.isin([0, 1]), "label is neither 0 (benign) nor 1 (malignant)", "label"),
        (text["patient_id"].str.strip() == "", "patient_id is empty", "patient_id"),
        (~text["split"].isin([*SPLITS, ""]), "split is not train, val, test or empty", "split"),
        (~text["laterality"].isin(["L", "R", ""]), "laterality is not L, R or empty", "laterality"),
        (text["view"] != text["view"].str.upper(), "view is not in upper case", "view"),
        (mask_bad, "mask_paths is not a tuple of absolute paths without '|'", "mask_paths"),
    )
    return [line for bad, what, column in checks for line in _problem(table, bad, what, column, row)]


def check_table(table: pd.DataFrame, name: str = "the image table") -> pd.DataFrame:
    """Return a checked copy, columns in order and rows numbered from 0; LemlightError lists all that is wrong."""
    problems = table_problems(table)
    if problems:
        raise bullet_error(f"{name} cannot be used", problems)
    checked = table[list(COLUMNS)].reset_index(drop=True).copy()
    for column in TEXTS:
        checked[column] = checked[column].fillna("").astype(str)
    checked["label"] = pd.to_numeric(checked["label"]).astype("int64")
    return checked


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write an image table as CSV (mask paths joined with `|`), whole or not at all; LemlightError if it cannot be."""
    flat = check_table(table).assign(mask_paths=lambda t: t["mask_paths"].map("|".join))
    with written_aside(path) as aside:
        flat.to_csv(aside, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` wrote; every text stays text (007, NA)."""
    try:
        flat = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise LemlightError(f"{path}: no image table can be read here ({error}); prepare the data set again") from error
    if "mask_paths" in flat:
        masks = [tuple(part for part in joined.split("|") if part) for joined in flat["mask_paths"]]
        flat["mask_paths"] = pd.Series(masks, index=flat.index, dtype=object)
    return check_table(flat, str(path))

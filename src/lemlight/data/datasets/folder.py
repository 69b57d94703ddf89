"""A folder of images and a CSV that names them: the way in for a hospital's own data, and for the phantom.

Layout: `root/images.csv` with the columns path (below root), label (1 malignant, 0 benign), patient, and, where known,
split (train, val, test), laterality (L, R), view (CC, MLO, ...), mask (a file below root for each lesion, joined with
`|`; `none`: known to have no lesion; empty: nothing is known), lesion_type (mass, calcification, distortion, asymmetry,
other; one for all masks of the image, or one for each, joined with `|`), lesion_id (one for each mask, joined with `|`:
the same in two views of a breast is one lesion), image_id (default: the path without its
suffix), and what groups images: exam (its date or number), site, vendor, density and age (in years).
Comma, semicolon or tab; UTF-8 with or without a byte order mark. A file whose name has other blanks or another
encoding on the disk is found all the same.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import list_files, read_rows, whole_numbers
from lemlight.data.preparing.lesions import TYPES, Lesion
from lemlight.data.table import FURTHER, bullet_error, check_table, clean, first_ten, table_problems
from lemlight.errors import LemlightError

NEEDED = ("path", "label", "patient")
OPTIONAL = ("split", "laterality", "view", "mask", "lesion_type", "lesion_id", "image_id", *FURTHER)
NO_LESION = "none"
REMEDY = f"needed are {', '.join(NEEDED)}, optional are {', '.join(OPTIONAL)}"
SIDES = {"left": "L", "l": "L", "right": "R", "r": "R"}


@checked
def folder(root: str | Path, csv: str = "images.csv") -> pd.DataFrame:
    """Read `root/csv` as an image table; LemlightError lists everything wrong with it, by line."""
    root = Path(os.path.abspath(root))
    file = _find_csv(root, csv)
    rows = read_rows(file, NEEDED, OPTIONAL, remedy=REMEDY, errors="strict")
    rows = rows.reindex(columns=[*NEEDED, *OPTIONAL], fill_value="")
    table = _to_table(rows, _files(rows, root))
    problems = [*table_problems(table, row="line"), *_type_problems(rows), *_path_problems(table, root)]
    if problems:
        raise bullet_error(f"{file} cannot be used", problems)
    return check_table(table, str(file))


def _find_csv(root: Path, csv: str) -> Path:
    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder that holds {csv}")
    if not any(root.iterdir()):
        raise LemlightError(f"the folder {root} is empty: put {csv} and the images there, or set dataset.root")
    if not (root / csv).is_file():
        others = first_ten(sorted(path.name for path in root.glob("*.csv"))) or "no CSV file"
        raise LemlightError(f"there is no {csv} in {root}, but {others}: set dataset.csv to the file's name")
    return root / csv


def _files(rows: pd.DataFrame, root: Path) -> dict[str, str]:
    """Give the absolute path of each path of the CSV, of a file that is not there by itself as the disk spells it.

    It is resolved lexically, so that links inside root may point anywhere; backslashes are slashes.
    """
    cells = {*rows["path"], *(part for mask in rows["mask"] for part in _parts(mask))} - {""}
    paths = {cell: os.path.normpath(root / cell.replace("\\", "/")) for cell in cells}
    absent = [cell for cell, path in paths.items() if not os.path.isfile(path)]
    there: dict[str, set[str]] = defaultdict(set)
    for path in list_files(root, "folder") if absent else ():
        for spelling in _spellings(os.path.relpath(path, root)):
            there[spelling].add(path)
    for cell in absent:
        alike = {path for spelling in _spellings(os.path.relpath(paths[cell], root)) for path in there[spelling]}
        if len(alike) == 1:
            paths[cell] = alike.pop()
    return paths


def _spellings(name: str) -> set[str]:
    """Give a name in one form of Unicode with single blanks; bytes that are no UTF-8 as Windows and DOS wrote them."""
    raw = os.fsencode(name)
    try:
        texts = [raw.decode()]
    except UnicodeDecodeError:
        texts = [raw.decode(codec, "replace") for codec in ("cp1252", "cp850")]
    return {"/".join(map(clean, unicodedata.normalize("NFKC", text).split("/"))) for text in texts}


def _to_table(rows: pd.DataFrame, files: Mapping[str, str]) -> pd.DataFrame:
    default_id = rows["path"].map(
        lambda path: str(PurePosixPath(path.replace("\\", "/")).with_suffix("")) if path else ""
    )
    marks = zip(rows["mask"], rows["lesion_type"], rows["lesion_id"], strict=True)
    lesions = [_lesions(files, *mark) for mark in marks]
    return pd.DataFrame(
        {
            "image_id": rows["image_id"].where(rows["image_id"] != "", default_id),
            "path": rows["path"].map(lambda path: files.get(path, "")),
            "label": whole_numbers(rows["label"]),
            "patient_id": rows["patient"],
            "split": rows["split"].str.lower(),
            "laterality": rows["laterality"].map(lambda side: SIDES.get(side.lower(), side)),
            "view": rows["view"].str.upper(),
            "lesions": pd.Series(lesions, index=rows.index, dtype=object),
            "lesions_known": rows["mask"] != "",
            **{column: rows[column] for column in FURTHER},
        }
    )


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split("|") if part.strip()]


def _lesions(files: Mapping[str, str], mask: str, kind: str, ids: str) -> tuple[Lesion, ...]:
    """The lesions of one image; a type that is not one, and a wrong number of types, are left to `_type_problems`."""
    paths = [] if mask.lower() == NO_LESION else _parts(mask)
    kinds = [part.lower() for part in _parts(kind)]
    kinds = kinds * len(paths) if len(kinds) == 1 else kinds
    known = kinds if len(kinds) == len(paths) and set(kinds) <= set(TYPES) else [""] * len(paths)
    names = _parts(ids) if len(_parts(ids)) == len(paths) else [""] * len(paths)
    marks = zip(paths, known, names, strict=True)
    return tuple(Lesion("mask", type, path=files[path], id=name) for path, type, name in marks)


def _type_problems(rows: pd.DataFrame) -> list[str]:
    """List lesion types that do not exist, belong to no lesion, or whose number is not that of the masks."""
    unknown, wrong, contrary, unnamed = [], [], [], []
    columns = (rows[name] for name in ("mask", "lesion_type", "lesion_id"))
    for line, mask, kind, ids in zip(rows.index, *columns, strict=True):
        kinds = [part.lower() for part in _parts(kind)]
        masks = 0 if mask.lower() == NO_LESION else len(_parts(mask))
        unnamed += [f"line {line} ({len(_parts(ids))} ids, {masks} masks)"] * (len(_parts(ids)) not in (0, masks))
        unknown += [f"line {line} ({part!r})" for part in kinds if part not in TYPES]
        if kinds and mask.lower() == NO_LESION:
            contrary.append(f"line {line} ({kind!r})")
        elif len(kinds) > 1 and len(kinds) != masks:
            wrong.append(f"line {line} ({len(kinds)} types, {masks} masks)")
    problems = {
        f"lesion_type is not one of {', '.join(filter(None, TYPES))}": unknown,
        "lesion_type needs one type for all masks, or one for each": wrong,
        "lesion_id needs one for each mask": unnamed,
        "lesion_type is given, but mask says that there is no lesion": contrary,
    }
    return [f"{what}: {first_ten(lines)}" for what, lines in problems.items() if lines]


def _path_problems(table: pd.DataFrame, root: Path) -> list[str]:
    """List paths outside root, listed twice, or of files that are not there."""
    paths = table["path"]
    named = [(line, path) for line, path in paths.items() if path]
    named += [(line, lesion.path) for line, lesions in table["lesions"].items() for lesion in lesions]
    outside = [f"line {line} ({path})" for line, path in named if not Path(path).is_relative_to(root)]
    inside = [path for _, path in named if Path(path).is_relative_to(root)]
    absent = [str(Path(path).relative_to(root)) for path in dict.fromkeys(inside) if not os.path.isfile(path)]
    twice = paths[(paths != "") & paths.duplicated(keep=False)]
    problems = []
    if outside:
        problems.append(f"paths outside {root}: {first_ten(outside)}; move the files below it or set dataset.root")
    if absent:
        problems.append(f"{len(absent)} of {len(set(inside))} files are missing below {root}: {first_ten(absent)}")
    if len(twice):
        lines = [f"line {line} ({Path(path).name})" for line, path in twice.items()]
        problems.append(f"the same image is listed more than once: {first_ten(lines)}")
    return problems

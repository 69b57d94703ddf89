"""The four tables of CBIS-DDSM: one row per abnormality, and what they say more than once."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lemlight.data.sources.download import Problems
from lemlight.data.sources.rows import note_values, read_rows
from lemlight.errors import LemlightError

TABLES = tuple(f"{kind}_case_description_{split}_set.csv" for kind in ("mass", "calc") for split in ("train", "test"))
PATHS = ("image file path", "cropped image file path", "ROI mask file path")
NEEDED = ("patient_id", "left or right breast", "image view", "abnormality id", "pathology", *PATHS)
LABELS = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
PARTS = {"train": "Training", "test": "Test"}
SIDES = {"LEFT": "L", "RIGHT": "R"}
IMAGE = ["patient_id", "laterality", "view"]
COLUMNS = [*IMAGE, "label", "kind", "official", "folder", "mask_folder", "mask_file", *PATHS]


def read_tables(paths: Iterable[str], place: Path, problems: Problems) -> pd.DataFrame:
    """Read the tables among `paths`, a row for each abnormality with COLUMNS; note all that is wrong with them.

    Copies of a table may lie about if they say the same. No rows where any table cannot be used.
    """
    frames, broken = [], []
    by_name: dict[str, list[Path]] = {name: [] for name in TABLES}
    for path in map(Path, paths):
        by_name.get(path.name, []).append(path)
    absent = [name for name, found in by_name.items() if not found]
    problems.wrong(f"tables that are not in {place}; get them from The Cancer Imaging Archive", absent)
    for name, found in by_name.items():
        try:
            copies = [read_rows(path, NEEDED) for path in found]
        except LemlightError as error:
            broken.append(error)
            continue
        if any(not copy.equals(copies[0]) for copy in copies[1:]):
            problems.wrong(f"copies of {name} with different contents", found)
        elif copies:
            frames.append(_plain(copies[0], name, problems))
    problems.wrong("tables that cannot be used", broken)
    whole = len(frames) == len(TABLES)
    return pd.concat(frames, ignore_index=True) if whole else pd.DataFrame(columns=COLUMNS)


def _plain(rows: pd.DataFrame, name: str, problems: Problems) -> pd.DataFrame:
    """Check the rows of one table, whose name says kind and split; only the good ones are kept."""
    kind, _, _, official, _ = name.removesuffix(".csv").split("_")
    rows["image view"] = rows["image view"].str.upper()
    bad = {
        "patient_id": ~rows["patient_id"].str.fullmatch(r"P_\d{5}"),
        "left or right breast": ~rows["left or right breast"].isin(list(SIDES)),
        "image view": ~rows["image view"].isin(["CC", "MLO"]),
        "abnormality id": ~rows["abnormality id"].str.fullmatch(r"\d+"),
        "pathology": ~rows["pathology"].isin(list(LABELS)),
    }
    for column, where in bad.items():
        note_values(rows, where, column, f"unknown {column} in {name}", problems)
    rows = rows[~pd.DataFrame(bad).any(axis=1)]
    image = f"{kind.capitalize()}-{PARTS[official]}_" + rows["patient_id"] + "_" + rows["left or right breast"]
    image = image + "_" + rows["image view"]
    folders = rows[list(PATHS)].apply(lambda path: path.str.split("/").str[0])
    for column, expected in zip(PATHS, (image, *[image + "_" + rows["abnormality id"]] * 2), strict=True):
        other = folders[column] != expected
        note_values(rows, other, column, f"{column} of another image than the row in {name}", problems)
    listed = image + "_" + rows["abnormality id"]
    problems.wrong(f"abnormalities that {name} lists twice", listed[listed.duplicated()])
    return pd.DataFrame(
        {
            "patient_id": rows["patient_id"],
            "laterality": rows["left or right breast"].map(SIDES),
            "view": rows["image view"],
            "label": rows["pathology"].map(LABELS).astype("int64"),
            "kind": kind,
            "official": official,
            "folder": image,
            "mask_folder": listed,
            "mask_file": rows["ROI mask file path"].str.rsplit("/", n=1).str[-1],
            **{column: rows[column] for column in PATHS},
        }
    )


def cases_by_series(descriptions: pd.DataFrame) -> dict[str, str]:
    """Give the case (an image's or an abnormality's name) that the tables put each SeriesInstanceUID into."""
    cases: dict[str, str] = {}
    for column in PATHS:
        for path in descriptions[column].str.split("/"):
            cases.setdefault(path[-2], path[0])
    return cases


def count(descriptions: pd.DataFrame) -> dict[str, int]:
    """Count what the tables hold, and what they hold on both sides."""

    def several(by: str | list[str], column: str) -> int:
        return int((descriptions.groupby(by)[column].nunique() > 1).sum())

    return {
        "abnormalities": len(descriptions),
        "image folders": descriptions["folder"].nunique(),
        "mammograms": descriptions.groupby(IMAGE).ngroups,
        "patients": descriptions["patient_id"].nunique(),
        "patients in train and test": several("patient_id", "official"),
        "patients in mass and calc": several("patient_id", "kind"),
        "mammograms in mass and calc": several(IMAGE, "kind"),
        "mammograms in train and test": several(IMAGE, "official"),
        "folders with both labels": several("folder", "label"),
        "mammograms with several abnormalities": int((descriptions.groupby(IMAGE).size() > 1).sum()),
    }


def group_images(descriptions: pd.DataFrame, patient_disjoint: bool = True) -> pd.DataFrame:
    """Make one row per image: label, split (test wins), and the names of its folders and mask folders."""
    images = descriptions.groupby(IMAGE, as_index=False).agg(
        label=("label", "max"),
        official=("official", "min"),  # "test" sorts before "train"
        folders=("folder", lambda names: tuple(dict.fromkeys(names))),
        mask_folders=("mask_folder", tuple),
        mask_files=("mask_file", tuple),
    )
    split = images.groupby("patient_id")["official"].transform("min") if patient_disjoint else images["official"]
    side = images["laterality"].map({short: side for side, short in SIDES.items()})
    return images.assign(split=split, image_id=images["patient_id"] + "_" + side + "_" + images["view"])

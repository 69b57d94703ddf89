"""CBIS-DDSM: 3,032 scanned film mammograms of 1,566 patients with a mask of each abnormality.

Layout, anywhere below root: the four tables `{mass,calc}_case_description_{train,test}_set.csv` (a row for each
abnormality; they may lie elsewhere) and the files as the download tool leaves them, in folders of cases or of UIDs, or
the JPEG copy with its `dicom_info.csv`. Of the paths in the tables only the first part, the case, can be trusted.
Image: patient, side and view, whether the tables list it as mass, as calcification or as both.
Label: pathology, malignant if any abnormality of the image is; BENIGN_WITHOUT_CALLBACK is benign, by common practice.
Lesions: a mask for each abnormality; those of an image are unknown where one of its masks cannot be used.
Split: the official one; 31 patients stand on both sides of it, and with `patient_disjoint` go to test.
Source: Lee et al., A curated mammography data set for use in computer-aided detection and diagnosis research,
Scientific Data 4, 2017; https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY. CC BY 3.0.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.cbis_files import (
    Cases,
    choose_mammogram,
    choose_mask,
    sort_files,
)
from lemlight.data.datasets.common import Header, Problems, image_table, list_files, read_rows
from lemlight.data.lesions import Lesion
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError

TABLES = tuple(f"{kind}_case_description_{split}_set.csv" for kind in ("mass", "calc") for split in ("train", "test"))
PATHS = ("image file path", "cropped image file path", "ROI mask file path")
NEEDED = ("patient_id", "left or right breast", "image view", "abnormality id", "pathology", *PATHS)
LABELS = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
PARTS = {"train": "Training", "test": "Test"}
SIDES = {"LEFT": "L", "RIGHT": "R"}
IMAGE = ["patient_id", "laterality", "view"]
COLUMNS = [*IMAGE, "label", "kind", "official", "folder", "mask_folder", *PATHS]
PUBLISHED = 3568  # abnormalities
FILES = 2  # of an abnormality: mask and crop, 10,239 files with the mammograms of 3,103 folders
LAYOUTS = {
    "folder": "folders named after cases",
    "header": "the headers of UID folders",
    "dicom_info.csv": "dicom_info.csv",
    "series": "the series of the tables",
}
# what may be odd about the files of an image or an abnormality, and the rule for it
RESCALED = "masks have another size, but the aspect of their mammogram: rescaled"
ASPECT = "masks have another aspect than their mammogram: left out"
NO_MASK = "abnormalities have files, but no mask among them"
SEVERAL_FILES = "mammograms have several files: the largest is taken"
UNKNOWN = "mammograms lack a usable mask of any of their abnormalities: lesions unknown"
MASK_MISSING = "abnormalities without a mask file that can be used"
Oddities = dict[str, list[str]]  # rule -> names of images or abnormalities

logger = logging.getLogger(__name__)


@checked
def cbis(
    root: str | Path, tables: str | Path | None = None, patient_disjoint: bool = True, allow_missing: bool = False
) -> pd.DataFrame:
    """Build the image table of CBIS-DDSM below `root`; the four tables may lie in another folder, `tables`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing or broken only without `allow_missing`.
    """
    root = Path(root)
    problems = Problems("CBIS-DDSM", root)
    paths = list_files(root, "CBIS-DDSM")
    place = Path(tables) if tables else root
    descriptions = read_tables(list_files(place, "CBIS-DDSM tables") if tables else paths, place, problems)
    cases = sort_files(paths, root, cases_by_series(descriptions), problems)
    images, odd = _locate(group_images(descriptions, patient_disjoint), cases, problems)
    if len(descriptions):
        listed = {*descriptions["folder"], *descriptions["mask_folder"]}
        problems.incomplete("cases without a row in the tables", sorted(set(cases.files) - listed))
    problems.raise_any(allow_missing, images)
    logger.info("%s", summary(descriptions, cases, odd, len(images), patient_disjoint))
    return image_table(images, problems.name, images["lesions"])


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
    problems.wrong_values(rows, bad, "unknown {} in " + name)
    rows = rows[~pd.DataFrame(bad).any(axis=1)]
    image = f"{kind.capitalize()}-{PARTS[official]}_" + rows["patient_id"] + "_" + rows["left or right breast"]
    image += "_" + rows["image view"]
    folders = rows[list(PATHS)].apply(lambda path: path.str.split("/").str[0])
    listed = image + "_" + rows["abnormality id"]
    other = {column: folders[column] != (image if column == PATHS[0] else listed) for column in PATHS}
    problems.wrong_values(rows, other, "{} of another image than the row in " + name)
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
    )
    split = images.groupby("patient_id")["official"].transform("min") if patient_disjoint else images["official"]
    side = images["laterality"].map({short: side for side, short in SIDES.items()})
    return images.assign(split=split, image_id=images["patient_id"] + "_" + side + "_" + images["view"])


def _locate(images: pd.DataFrame, cases: Cases, problems: Problems) -> tuple[pd.DataFrame, Oddities]:
    """Keep the images that have a file, with path and lesions (None: unknown); give what was odd about their files."""
    odd: Oddities = defaultdict(list)
    paths: list[str] = []
    lesions: list[tuple[Lesion, ...] | None] = []
    columns = (images[name] for name in ("image_id", "folders", "mask_folders"))
    for image, folders, mask_folders in zip(*columns, strict=True):
        files = [file for name in folders for file in cases.files.get(name, ())]
        mammogram = choose_mammogram(files)
        paths.append(mammogram.path if mammogram else "")
        lesions.append(None)
        odd[MASK_MISSING] += [name for name in mask_folders if name not in cases.files]
        if mammogram:
            odd[SEVERAL_FILES] += [image] if len(files) > len(folders) else []
            masks = [_mask(name, cases.files.get(name, []), mammogram, odd) for name in mask_folders]
            whole = tuple(mask for mask in masks if mask)
            lesions[-1] = whole if len(whole) == len(masks) else None
            odd[UNKNOWN] += [image] if lesions[-1] is None else []
    located = pd.Series([bool(path) for path in paths], index=images.index, dtype=bool)
    missing = images.loc[~located, "folders"].map(" or ".join)
    problems.incomplete("mammograms without a file that can be used", missing)
    problems.incomplete(MASK_MISSING, odd[MASK_MISSING])
    given = pd.Series(lesions, index=images.index, dtype=object)
    return images.assign(path=paths, lesions=given)[located], odd


def _mask(name: str, files: list[Header], mammogram: Header, odd: Oddities) -> Lesion | None:
    """Give the lesion of an abnormality, None without a usable mask; note what was odd about its files."""
    chosen, how = choose_mask(files, mammogram)
    if chosen is None:
        if how == "aspect":
            odd[ASPECT].append(name)
        elif files:
            odd[MASK_MISSING if len(files) < FILES else NO_MASK].append(name)
        return None
    if how == "rescaled":
        odd[RESCALED].append(name)
    return Lesion("mask", "mass" if name.startswith("Mass") else "calcification", path=chosen.path)


def summary(descriptions: pd.DataFrame, cases: Cases, odd: Oddities, images: int, patient_disjoint: bool) -> str:
    """Say how many images there are, how their files were found, and each oddity with its number and rule."""
    counts = count(descriptions)
    found = ", ".join(f"{number} by {LAYOUTS[kind]}" for kind, number in sorted(cases.found_by.items()))
    train_test = "all their images go to test" if patient_disjoint else "they stand on both sides, as published"
    rules = {
        "patients in train and test": f"patients are in train and test: {train_test}",
        "patients in mass and calc": "patients are in mass and calc: one patient each",
        "mammograms in mass and calc": "mammograms are listed as mass and as calc: one image each",
        "mammograms in train and test": "mammograms are listed in train and test: they go to test",
        "folders with both labels": "folders hold benign and malignant abnormalities: the image is malignant",
        "mammograms with several abnormalities": "mammograms have several abnormalities: a lesion for each",
    }
    lines = [
        f"CBIS-DDSM: {images} of {counts['mammograms']} mammograms ({counts['patients']} patients, "
        f"{counts['abnormalities']} abnormalities); files sorted: {found}",
        *(f"{counts[name]} {rule}" for name, rule in rules.items() if counts[name]),
    ]
    if counts["abnormalities"] != PUBLISHED:
        lines.append(f"the tables are not the published ones, which hold {PUBLISHED} abnormalities")
    for rule in (RESCALED, ASPECT, NO_MASK, SEVERAL_FILES, UNKNOWN):
        names = list(dict.fromkeys(odd[rule]))
        lines += [f"{len(names)} {rule}: {first_ten(names)}"] if names else []
    files = {
        "files are there twice: one of each is taken": cases.doubles,
        "JPEG and PNG copies beside the DICOM files are not used": cases.copies,
        "pictures of no case are not used": cases.pictures,
    }
    return "\n  - ".join([*lines, *(f"{number} {rule}" for rule, number in files.items() if number)])

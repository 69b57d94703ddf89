"""The four tables of CBIS-DDSM: one row per abnormality, and what they say more than once."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.cbis_files import (
    CaseFile,
    Cases,
    choose_mammogram,
    choose_mask,
    is_called_a_crop,
    is_named_as_in_the_table,
    sort_files,
)
from lemlight.data.datasets.common import Problems, list_files, note_values, read_rows
from lemlight.data.lesions import Lesion
from lemlight.data.table import check_table, first_ten
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


PUBLISHED = 3568  # abnormalities
LAYOUTS = {
    "folder": "folders named after cases",
    "header": "the headers of UID folders",
    "dicom_info.csv": "dicom_info.csv",
    "series": "the series of the tables",
}


@dataclass
class Oddities:
    """Names of images and abnormalities (`..._1`) by what was odd about their files."""

    called_crop: list[str] = field(default_factory=list)
    other_place: list[str] = field(default_factory=list)
    rescaled: list[str] = field(default_factory=list)
    aspect: list[str] = field(default_factory=list)
    mask_missing: list[str] = field(default_factory=list)
    no_mask: list[str] = field(default_factory=list)
    several_files: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def summary(descriptions: pd.DataFrame, cases: Cases, odd: Oddities, images: int, patient_disjoint: bool) -> str:
    """Say how many images there are, how their files were found, and each oddity with its number and rule."""
    counts = count(descriptions)
    found = ", ".join(f"{number} by {LAYOUTS[kind]}" for kind, number in sorted(cases.found_by.items()))
    lines = [
        f"CBIS-DDSM: {images} of {counts['mammograms']} mammograms ({counts['patients']} patients, "
        f"{counts['abnormalities']} abnormalities); files sorted: {found}",
        *_of_tables(counts, patient_disjoint),
        *_of_files(cases, odd),
    ]
    return "\n  - ".join(lines)


def _of_tables(counts: dict[str, int], patient_disjoint: bool) -> list[str]:
    train_test = "all their images go to test" if patient_disjoint else "they stand on both sides, as published"
    rules = (
        ("patients in train and test", f"patients are in train and test: {train_test}"),
        ("patients in mass and calc", "patients are in mass and calc: one patient each"),
        ("mammograms in mass and calc", "mammograms are listed as mass and as calc: one image each"),
        ("mammograms in train and test", "mammograms are listed in train and test: they go to test"),
        ("folders with both labels", "folders hold benign and malignant abnormalities: the image is malignant"),
        ("mammograms with several abnormalities", "mammograms have several abnormalities: a lesion for each"),
    )
    lines = [f"{counts[name]} {rule}" for name, rule in rules if counts[name]]
    if counts["abnormalities"] != PUBLISHED:
        lines.append(f"the tables are not the published ones, which hold {PUBLISHED} abnormalities")
    return lines


def _of_files(cases: Cases, odd: Oddities) -> list[str]:
    lines = [
        *_named("masks are called crops by their description: told apart by shape and pixels", odd.called_crop),
        *_named("masks stand where the table has the crop: told apart by shape and pixels", odd.other_place),
        *_named("masks have another size, but the aspect of their mammogram: rescaled", odd.rescaled),
        *_named("masks have another aspect than their mammogram: left out", odd.aspect),
        *_named("abnormalities have files, but no mask among them", odd.no_mask),
        *_named("mammograms have several files: the largest is taken", odd.several_files),
        *_named("mammograms lack a usable mask of any of their abnormalities: lesions unknown", odd.unknown),
    ]
    if cases.doubles:
        lines.append(f"{cases.doubles} files are there twice: one of each is taken")
    if cases.copies:
        lines.append(f"{cases.copies} JPEG and PNG copies beside the DICOM files are not used")
    if cases.pictures:
        lines.append(f"{cases.pictures} pictures of no case are not used")
    return lines


def _named(what: str, names: Iterable[str]) -> list[str]:
    items = list(Counter(names))
    return [f"{len(items)} {what}: {first_ten(items)}"] if items else []


FILES = 2  # of an abnormality: mask and crop, 10,239 files with the mammograms of 3,103 folders

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
    odd = Oddities()
    images = _locate(group_images(descriptions, patient_disjoint), cases, odd, problems)
    if len(descriptions):
        listed = {*descriptions["folder"], *descriptions["mask_folder"]}
        problems.incomplete("cases without a row in the tables", sorted(set(cases.files) - listed))
    problems.raise_any(allow_missing)
    if images.empty:
        raise LemlightError(f"no mammogram of CBIS-DDSM is left of {root}: check dataset.root")
    logger.info("%s", summary(descriptions, cases, odd, len(images), patient_disjoint))
    return check_table(images, "CBIS-DDSM")


def _locate(images: pd.DataFrame, cases: Cases, odd: Oddities, problems: Problems) -> pd.DataFrame:
    """Keep the images that have a file, with path, lesions and lesions_known; note those and the masks without one."""
    paths: list[str] = []
    lesions: list[tuple[Lesion, ...] | None] = []
    columns = (images[name] for name in ("image_id", "folders", "mask_folders", "mask_files"))
    for image, folders, mask_folders, mask_files in zip(*columns, strict=True):
        files = [file for name in folders for file in cases.files.get(name, ())]
        mammogram = choose_mammogram(files)
        paths.append(mammogram.path if mammogram else "")
        lesions.append(None)
        odd.mask_missing += [name for name in mask_folders if name not in cases.files]
        if mammogram:
            odd.several_files += [image] if len(files) > len(folders) else []
            pairs = zip(mask_folders, mask_files, strict=True)
            masks = [_mask(name, cases.files.get(name, []), mammogram, file, odd) for name, file in pairs]
            whole = tuple(mask for mask in masks if mask)
            lesions[-1] = whole if len(whole) == len(masks) else None
            odd.unknown += [image] if lesions[-1] is None else []
    missing = [not path for path in paths]
    problems.incomplete("mammograms without a file that can be used", images.loc[missing, "folders"].map(" or ".join))
    problems.incomplete("abnormalities without a mask file that can be used", odd.mask_missing)
    given = pd.Series([found or () for found in lesions], index=images.index, dtype=object)
    located = images.assign(path=paths, lesions=given, lesions_known=[found is not None for found in lesions])
    return located[[bool(path) for path in paths]]


def _mask(name: str, files: list[CaseFile], mammogram: CaseFile, table_name: str, odd: Oddities) -> Lesion | None:
    """Give the lesion of an abnormality, None without a usable mask; note what was odd about its files."""
    chosen, how = choose_mask(files, mammogram)
    if chosen is None:
        if how == "aspect":
            odd.aspect.append(name)
        elif files:
            (odd.mask_missing if len(files) < FILES else odd.no_mask).append(name)
        return None
    if how == "rescaled":
        odd.rescaled.append(name)
    if is_called_a_crop(chosen):
        odd.called_crop.append(name)
    if not is_named_as_in_the_table(chosen, files, table_name):
        odd.other_place.append(name)
    return Lesion("mask", "mass" if name.startswith("Mass") else "calcification", path=chosen.path)

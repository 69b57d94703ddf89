"""CBIS-DDSM: scanned film mammograms with masses and calcifications.

Layout: the four tables `{mass,calc}_case_description_{train,test}_set.csv` and the folders that the download tool
writes (`Mass-Training_P_00001_LEFT_CC/<date or UID>/<series>/*.dcm`), anywhere below root. Of the tables' paths only
the first component is trusted.
Label: an image is malignant if any of its abnormalities is; BENIGN_WITHOUT_CALLBACK is benign.
Image: one patient, side and view; listed as mass and as calc it is one image, with the masks of both.
Split: the official one; a patient of both sides goes to test with all images (patient_disjoint), or an image goes to
test if any table has it there (as published).
Source: Sawyer-Lee et al., The Cancer Imaging Archive 2016, doi 10.7937/K9/TCIA.2016.7O02S9CY, CC BY 3.0.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lemlight.data.lesions import Lesion
from lemlight.data.sources.cbis_files import find_mammogram, find_mask, read_header, scan
from lemlight.data.table import bullet_error, check_table, first_ten
from lemlight.errors import LemlightError

TABLES = tuple(f"{kind}_case_description_{split}_set.csv" for kind in ("mass", "calc") for split in ("train", "test"))
NEEDED = (
    "patient_id",
    "left or right breast",
    "image view",
    "pathology",
    "image file path",
    "ROI mask file path",
)
LABELS = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
IMAGE = ["patient_id", "laterality", "view"]

logger = logging.getLogger(__name__)


def cbis_table(
    root: Path, tables: Path | None = None, patient_disjoint: bool = True, allow_missing: bool = False
) -> pd.DataFrame:
    """Build the image table of CBIS-DDSM below `root`; the tables may lie in another folder, `tables`.

    Masks are given where every abnormality of an image has a usable one, else the image's mask is unknown.

    Raises:
        LemlightError: a table is missing or of another version, or mammograms are missing (unless `allow_missing`).
    """
    for folder in (root, tables or root):
        if not folder.is_dir():
            raise LemlightError(
                f"there is no folder {folder}: set dataset.root to the folder of the CBIS-DDSM download"
            )
    cases, files = scan(root.absolute())
    if tables is not None:
        files = sorted(tables.glob("*.csv"))
    descriptions = read_descriptions(_four_tables(files, tables or root))
    logger.info("CBIS-DDSM tables: %s", ", ".join(f"{name} {n}" for name, n in count(descriptions).items()))
    images = _locate(group_images(descriptions, patient_disjoint), cases)
    missing = images["path"] == ""
    if missing.any() and (not allow_missing or missing.all()):
        raise LemlightError(
            f"{missing.sum()} of {len(images)} mammograms are missing below {root}: "
            f"{first_ten(images.loc[missing, 'folders'].map(' or '.join))}; finish the download, or set "
            "dataset.root to the folder that holds these folders, or dataset.allow_missing=true to go on without them"
        )
    if missing.any():
        logger.warning("CBIS-DDSM: %d of %d mammograms are missing and left out", missing.sum(), len(images))
    return check_table(images[~missing], "CBIS-DDSM")


def _four_tables(files: Iterable[Path], place: Path) -> list[Path]:
    by_name: dict[str, list[Path]] = {name: [] for name in TABLES}
    for path in files:
        if path.name in by_name:
            by_name[path.name].append(path)
    problems = [f"{name} is missing" for name, found in by_name.items() if not found]
    for name, found in by_name.items():
        if len({path.read_bytes() for path in found}) > 1:
            problems.append(f"{name} is there {len(found)} times with different contents: {first_ten(found)}")
    if problems:
        raise bullet_error(
            f"the four CBIS-DDSM tables are not in {place}; get them from The Cancer Imaging Archive", problems
        )
    return [found[0] for found in by_name.values()]


def read_descriptions(paths: Iterable[Path]) -> pd.DataFrame:
    """Read description tables: a row per abnormality with kind, official split, image, label and folder names."""
    frames, problems = [], []
    for path in paths:
        kind, _, _, official, _ = path.stem.split("_")
        try:
            raw = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            problems.append(f"{path.name}: not readable ({error})")
            continue
        raw.columns = raw.columns.str.strip()
        absent = [column for column in NEEDED if column not in raw.columns]
        if absent:
            problems.append(f"{path.name}: no column {', '.join(absent)}; it has {', '.join(raw.columns)}")
            continue
        raw = raw.apply(lambda cells: cells.str.strip())
        frames.append(_plain(raw).assign(kind=kind, official=official))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    for column in ("label", "laterality", "patient_id", "view", "folder") if frames else ():
        bad = table.loc[table[column].isna() | (table[column] == ""), "folder"]
        if len(bad):
            problems.append(f"{len(bad)} rows with an unknown {column}, those of {first_ten(bad)}")
    if problems:
        raise bullet_error("the CBIS-DDSM tables are not as published; download them again", problems)
    return table.astype({"label": "int64"})


def _plain(raw: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient_id": raw["patient_id"],
            "laterality": raw["left or right breast"].map({"LEFT": "L", "RIGHT": "R"}),
            "view": raw["image view"].str.upper(),
            "label": raw["pathology"].map(LABELS),
            "folder": raw["image file path"].str.split("/").str[0],
            "mask_folder": raw["ROI mask file path"].str.split("/").str[0],
        }
    )


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
    }


def group_images(descriptions: pd.DataFrame, patient_disjoint: bool = True) -> pd.DataFrame:
    """Make one row per image: label, split (test wins), and the names of its folders and mask folders."""
    images = descriptions.groupby(IMAGE, as_index=False).agg(
        label=("label", "max"),
        official=("official", "min"),  # "test" sorts before "train"
        folders=("folder", lambda names: tuple(dict.fromkeys(names))),
        mask_folders=("mask_folder", lambda names: tuple(dict.fromkeys(names))),
    )
    split = images.groupby("patient_id")["official"].transform("min") if patient_disjoint else images["official"]
    side = images["laterality"].map({"L": "LEFT", "R": "RIGHT"})
    return images.assign(split=split, image_id=images["patient_id"] + "_" + side + "_" + images["view"])


def _locate(images: pd.DataFrame, cases: dict[str, list[Path]]) -> pd.DataFrame:
    """Add `path` ("" where no file is there), `lesions` and `lesions_known` to a table of images."""
    paths, lesions, known = [], [], []
    for folders, mask_folders in zip(images["folders"], images["mask_folders"], strict=True):
        mammogram = find_mammogram([place for name in folders for place in cases.get(name, [])])
        header = read_header(mammogram) if mammogram else None
        found = [find_mask(cases.get(name, []), header) if header else None for name in mask_folders]
        paths.append(str(mammogram or ""))
        known.append(all(found))
        lesions.append(
            tuple(_lesion(name, path) for name, path in zip(mask_folders, found, strict=True) if path and all(found))
        )
    without = sum(bool(path) and not usable for path, usable in zip(paths, known, strict=True))
    if without:
        logger.warning("CBIS-DDSM: %d mammograms have no usable mask of every abnormality: mask unknown", without)
    return images.assign(path=paths, lesions=pd.Series(lesions, index=images.index, dtype=object), lesions_known=known)


def _lesion(folder: str, path: Path) -> Lesion:
    """The lesion of a mask; its folder is named Mass-... or Calc-..."""
    return Lesion("mask", "mass" if folder.lower().startswith("mass") else "calcification", path=str(path))

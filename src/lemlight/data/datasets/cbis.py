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

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.cbis_files import Cases, choose_mammogram, choose_mask, sort_files
from lemlight.data.datasets.common import Download, Header, list_files, read_rows, whole_numbers
from lemlight.data.preparing.lesions import Lesion
from lemlight.errors import ImageError, LemlightError

TABLES = tuple(f"{kind}_case_description_{split}_set.csv" for kind in ("mass", "calc") for split in ("train", "test"))
PATHS = ("image file path", "cropped image file path", "ROI mask file path")
NEEDED = ("patient_id", "left or right breast", "image view", "abnormality id", "pathology", *PATHS)
LABELS = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
PARTS = {"train": "Training", "test": "Test"}
SIDES = {"LEFT": "L", "RIGHT": "R"}
IMAGE = ["patient_id", "laterality", "view"]
COLUMNS = [*IMAGE, "label", "density", "kind", "official", "folder", "mask_folder", *PATHS]
FILES = 2  # of an abnormality: mask and crop, 10,239 files with the mammograms of 3,103 folders
MASK_MISSING = "abnormalities without a mask file that can be used"


@checked
def cbis(
    root: str | Path, tables: str | Path | None = None, patient_disjoint: bool = True, allow_missing: bool = False
) -> pd.DataFrame:
    """Build the image table of CBIS-DDSM below `root`; the four tables may lie in another folder, `tables`."""
    download = Download("CBIS-DDSM", root)
    place = Path(tables) if tables else download.root
    descriptions = read_tables(list_files(place, "CBIS-DDSM tables") if tables else download.files, place, download)
    for rule, names in on_both_sides(descriptions, patient_disjoint).items():
        download.note(rule, names)
    cases = sort_files(download, cases_by_series(descriptions))
    images = _locate(group_images(descriptions, patient_disjoint), cases, download)
    if len(descriptions):
        listed = {*descriptions["folder"], *descriptions["mask_folder"]}
        download.incomplete("cases without a row in the tables", sorted(set(cases) - listed))
    download.check(allow_missing, images)
    return download.image_table(images, lambda row: _lesions(row.masks))


def read_tables(paths: Iterable[str], place: Path, download: Download) -> pd.DataFrame:
    """Read the tables among `paths`, a row for each abnormality with COLUMNS; note all that is wrong with them.

    Copies of a table may lie about if they say the same. No rows where any table cannot be used.
    """
    frames = []
    by_name: dict[str, list[Path]] = {name: [] for name in TABLES}
    for path in map(Path, paths):
        by_name.get(path.name, []).append(path)
    absent = [name for name, found in by_name.items() if not found]
    download.wrong(f"tables that are not in {place}; get them from The Cancer Imaging Archive", absent)
    for name, found in by_name.items():
        try:
            copies = [read_rows(path, NEEDED) for path in found]
        except LemlightError as error:
            download.wrong("tables that cannot be used", [error])
            continue
        if any(not copy.equals(copies[0]) for copy in copies[1:]):
            download.wrong(f"copies of {name} with different contents", found)
        elif copies:
            frames.append(_plain(copies[0], name, download))
    whole = len(frames) == len(TABLES)
    return pd.concat(frames, ignore_index=True) if whole else pd.DataFrame(columns=COLUMNS)


def _plain(rows: pd.DataFrame, name: str, download: Download) -> pd.DataFrame:
    """Check the rows of one table, whose name says kind and split; only the good ones are kept."""
    kind, _, _, official, _ = name.removesuffix(".csv").split("_")
    rows["image view"] = rows["image view"].str.upper()
    rows["abnormality id"] = whole_numbers(rows["abnormality id"])
    bad = {
        "patient_id": ~rows["patient_id"].str.fullmatch(r"P_\d{5}"),
        "left or right breast": ~rows["left or right breast"].isin(list(SIDES)),
        "image view": ~rows["image view"].isin(["CC", "MLO"]),
        "abnormality id": ~rows["abnormality id"].str.fullmatch(r"\d+"),
        "pathology": ~rows["pathology"].isin(list(LABELS)),
    }
    download.wrong_values(rows, bad, "unknown {} in " + name)
    rows = rows[~pd.DataFrame(bad).any(axis=1)]
    image = f"{kind.capitalize()}-{PARTS[official]}_" + rows["patient_id"] + "_" + rows["left or right breast"]
    image += "_" + rows["image view"]
    folders = rows[list(PATHS)].apply(lambda path: path.str.split("/").str[0])
    listed = image + "_" + rows["abnormality id"]
    other = {column: folders[column] != (image if column == PATHS[0] else listed) for column in PATHS}
    download.wrong_values(rows, other, "{} of another image than the row in " + name)
    download.wrong(f"abnormalities that {name} lists twice", listed[listed.duplicated()])
    return pd.DataFrame(
        {
            "patient_id": rows["patient_id"],
            "laterality": rows["left or right breast"].map(SIDES),
            "view": rows["image view"],
            "label": rows["pathology"].map(LABELS).astype("int64"),
            "density": rows.get("breast density", rows.get("breast_density", "")),
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


def on_both_sides(descriptions: pd.DataFrame, patient_disjoint: bool = True) -> dict[str, list[str]]:
    """Name what the tables hold on both sides, by the rule for it."""

    def several(by: str | list[str], column: str) -> list[str]:
        values = descriptions.groupby(by)[column].nunique()
        return [name if isinstance(name, str) else "_".join(name) for name in values.index[values > 1]]

    rule = "all their images go to test" if patient_disjoint else "they stand on both sides, as published"
    return {
        f"patients in train and test: {rule}": several("patient_id", "official"),
        "patients in mass and calc: one patient each": several("patient_id", "kind"),
        "mammograms listed as mass and as calc: one image each": several(IMAGE, "kind"),
        "mammograms listed in train and test: they go to test": several(IMAGE, "official"),
        "folders with benign and malignant abnormalities: the image is malignant": several("folder", "label"),
    }


def group_images(descriptions: pd.DataFrame, patient_disjoint: bool = True) -> pd.DataFrame:
    """Make one row per image: label, split (test wins), and the names of its folders and mask folders."""
    images = descriptions.groupby(IMAGE, as_index=False).agg(
        label=("label", "max"),
        density=("density", "first"),
        official=("official", "min"),  # "test" sorts before "train"
        folders=("folder", lambda names: tuple(dict.fromkeys(names))),
        mask_folders=("mask_folder", tuple),
    )
    split = images.groupby("patient_id")["official"].transform("min") if patient_disjoint else images["official"]
    side = images["laterality"].map({short: side for side, short in SIDES.items()})
    return images.assign(split=split, image_id=images["patient_id"] + "_" + side + "_" + images["view"])


def _locate(images: pd.DataFrame, cases: Cases, download: Download) -> pd.DataFrame:
    """Keep the images that have a file, with its path and the masks of their abnormalities, None where unusable."""
    files = images["folders"].map(lambda folders: [file for name in folders for file in cases.get(name, ())])
    images = images.assign(mammogram=files.map(choose_mammogram))
    located = images["mammogram"].notna()
    missing = images.loc[~located, "folders"].map(" or ".join)
    download.incomplete("mammograms without a file that can be used", missing)
    download.incomplete(MASK_MISSING, [name for names in images["mask_folders"] for name in names if name not in cases])
    several = located & (files.map(len) > images["folders"].map(len))
    download.note("mammograms with several files: the largest is taken", images.loc[several, "image_id"])
    images = images[located].assign(path=[file.path for file in images.loc[located, "mammogram"]])
    masks = [
        tuple(_mask(name, cases.get(name, []), file, download) for name in names)
        for names, file in zip(images["mask_folders"], images["mammogram"], strict=True)
    ]
    return images.assign(masks=pd.Series(masks, index=images.index, dtype=object))


def _mask(name: str, files: list[Header], mammogram: Header, download: Download) -> Lesion | None:
    """Give the lesion of an abnormality, None without a usable mask; note what was odd about its files."""
    chosen, how = choose_mask(files, mammogram)
    if chosen is None:
        if how == "aspect":
            download.note("masks of another aspect than their mammogram: left out", [name])
        elif 0 < len(files) < FILES:
            download.incomplete(MASK_MISSING, [name])
        elif files:
            download.note("abnormalities that have files, but no mask among them", [name])
        return None
    if how == "rescaled":
        download.note("masks of another size, but the aspect of their mammogram: rescaled", [name])
    return Lesion("mask", "mass" if name.startswith("Mass") else "calcification", path=chosen.path)


def _lesions(masks: tuple[Lesion | None, ...]) -> tuple[Lesion, ...]:
    """Give the lesions of an image; ImageError where one of its masks cannot be used: a part would pass for all."""
    whole = tuple(mask for mask in masks if mask)
    if len(whole) < len(masks):
        raise ImageError("a mask cannot be used")
    return whole

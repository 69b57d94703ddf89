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

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import DICOM, Download, ending, list_files, named, whole_numbers
from lemlight.data.preparing.lesions import Lesion, same_aspect
from lemlight.data.reading.dicom import read_stored_values
from lemlight.data.reading.headers import Header
from lemlight.data.reading.isolated import map_isolated
from lemlight.data.reading.raster import read_raster
from lemlight.errors import ImageError

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
Cases = dict[str, list[Header]]  # the files of each case in their order


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


def read_tables(paths: Sequence[str], place: Path, download: Download) -> pd.DataFrame:
    """Read the tables among `paths`, a row for each abnormality with COLUMNS; note all that is wrong with them.

    Copies of a table may lie about if they say the same. No rows where any table cannot be used.
    """
    by_name = {name: named(paths, name) for name in TABLES}
    absent = [name for name, found in by_name.items() if not found]
    download.wrong(f"tables that are not in {place}; get them from The Cancer Imaging Archive", absent)
    tables = {name: download.table(name, NEEDED, found) for name, found in by_name.items() if found}
    frames = [_plain(rows, name, download) for name, rows in tables.items() if len(rows)]
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


# The files: which case each belongs to, an image (`Mass-Training_P_00001_LEFT_CC`) or one of its abnormalities (the
# same with `_1` behind), and which of an abnormality's two files is the mask.
CASE = re.compile(r"(Mass|Calc)-(Training|Test)_P_\d{5}_(LEFT|RIGHT)_(CC|MLO)(_\d+)?")
COPIES = (".jpg", ".jpeg", ".png")
OTHERS = (".pgm",)  # of other data sets; JPEG and PNG pictures may lie about
INFO = "dicom_info.csv"  # of the JPEG copy
NEEDED_OF_INFO = ("PatientID", "image_path")
UID = re.compile(r"\d+(\.\d+){5,}")
SMALLEST_MASK = 0.5  # fraction of the mammogram's height and width; below it is a crop
MASK_BITS = 8  # of the published masks; mammograms have 16
BLACK_OR_WHITE = 0.98  # fraction of the pixels of a mask that are one of two values; JPEG blurs its edges
NEAR = 0.1  # of the range of values: what counts as one of the two


def sort_files(download: Download, by_series: Mapping[str, str]) -> Cases:
    """Sort DICOM files, or without any the JPEG and PNG copies, into their cases; note what is broken or no case's.

    A case is named by a folder, else by the header or dicom_info.csv, else by the series of the tables, `by_series`.
    """
    told = _read_info(download)

    def case_of(path: str, header: Header | None = None) -> str:
        """Name the case of a file, "" where nothing does: the folder is found by itself, as is all else."""
        *folders, name = download.show(path).split("/")
        series = [header.series if header else "", *reversed(folders)]
        return (
            _case(reversed(folders))
            or _case([header.patient if header else ""])
            or told.get("/".join([*folders[-1:], name]), "")
            or next((by_series[uid] for uid in series if uid in by_series), "")
        )

    cases = _sort(download.of_kind(DICOM), case_of, download)
    download.wrong("images of no case of CBIS-DDSM", map(download.show, download.of_kind(OTHERS)))
    copies = {path: bool(case_of(path)) for path in download.of_kind(COPIES)}
    ours = [path for path, of_case in copies.items() if of_case]
    if cases:
        download.note("JPEG and PNG copies beside the DICOM files, which are not used", map(download.show, ours))
    else:
        strange = [path for path in copies if not copies[path] and UID.fullmatch(Path(path).parent.name)]
        unlisted = f"images of no case, neither by {INFO} nor by the tables"
        download.incomplete(unlisted, map(download.show, strange))
        cases = _sort(ours, case_of, download)
        pictures = copies.keys() - {*ours, *strange}
        download.note("pictures of no case, which are not used", map(download.show, sorted(pictures)))
    return _without_doubles(cases, download)


def _case(names: Iterable[str]) -> str:
    """Give the first of the names that is a case's, as PatientID is in every file of The Cancer Imaging Archive."""
    return next((name for name in names if CASE.fullmatch(name)), "")


def _sort(paths: list[str], case_of: Callable[[str, Header], str], download: Download) -> Cases:
    """Put files into their cases by what their headers say; note the broken ones and those of no case."""
    cases: Cases = defaultdict(list)
    for path, header in download.headers(paths).items():
        case, said = case_of(path, header), _case([header.patient])
        if not case:
            download.wrong("images of no case of CBIS-DDSM", [download.show(path)])
        elif said not in ("", case) and case in download.show(path).split("/")[:-1]:
            moved = f"{download.show(path)} ({said})"
            download.wrong("images in the folder of another case than their headers name", [moved])
        else:
            cases[case].append(header)
    return cases


def mammogram_of(case: str) -> str:
    """Name the mammogram that a case, an image's or an abnormality's, belongs to: P_00001_LEFT_CC."""
    return "_".join(case.split("_")[1:5])


def _read_info(download: Download) -> dict[str, str]:
    """Read the case by `<series>/<file>` from the table of the JPEG copy; empty without one."""
    if not named(download.files, INFO):
        return {}
    rows = download.table(INFO, NEEDED_OF_INFO)
    files = rows["image_path"].str.split("/").str[-2:].str.join("/")
    cases = rows["PatientID"].where(rows["PatientID"].str.fullmatch(CASE.pattern), "")
    twice = files.duplicated(keep=False) & (cases.groupby(files).transform("nunique") > 1)
    download.wrong(f"images that {INFO} puts into several cases", sorted(set(files[twice])))
    return dict(zip(files, cases, strict=True))


def _without_doubles(cases: Cases, download: Download) -> Cases:
    """Keep one of the files that stand in a case twice; those in cases of several mammograms are wrong."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    kept = {}
    for case, files in cases.items():
        for file in files:
            if file.instance:
                places[file.instance].setdefault(mammogram_of(case), download.show(file.path))
        seen = {file.instance or file.path: file for file in reversed(files)}
        kept[case] = sorted(seen.values(), key=lambda file: file.path)
        twice = {file.path for file in files} - {file.path for file in seen.values()}
        download.note("files that are there twice: one of each is taken", map(download.show, sorted(twice)))
    doubles = [" and ".join(where.values()) for where in places.values() if len(where) > 1]
    download.wrong("images that stand in the folders of several mammograms", doubles)
    return kept


def choose_mammogram(files: Sequence[Header]) -> Header | None:
    """Choose the mammogram among the files of a mammogram's cases: the one with the most pixels that is no mask."""
    if not files:
        return None
    largest = max((_size(file), file.bits) for file in files)
    same = [file for file in files if (_size(file), file.bits) == largest]
    return same[0] if len(same) == 1 else next((file for file in same if not is_two_valued(file.path)), same[0])


def choose_mask(files: Sequence[Header], mammogram: Header) -> tuple[Header | None, str]:
    """Choose the mask of an abnormality, which tables, names and descriptions mix up with its crop.

    It is the file of the mammogram's shape; else the largest one of its aspect (within 2 %) and at least half its
    size, which can be rescaled. A file counts as such if it has two values, which is looked up in the pixels where
    the shape does not decide alone: several files fit, the size differs, or it has not 8 bits.

    Returns:
        The file, and how it was found: "" for the mammogram's shape, "rescaled" for another size. Without one, why:
        "aspect" (a mask's size, another aspect), "crop" (no file is large enough, or two-valued).
    """
    same = [file for file in files if file.shape == mammogram.shape]
    if len(same) == 1 and same[0].bits == MASK_BITS:
        return same[0], ""
    for file in same:
        if is_two_valued(file.path):
            return file, ""
    others = [file for file in files if file.shape != mammogram.shape and _is_large(file, mammogram)]
    masks = [file for file in sorted(others, key=_size, reverse=True) if is_two_valued(file.path)]
    fitting = next((file for file in masks if same_aspect(file.shape, mammogram.shape)), None)
    if fitting:
        return fitting, "rescaled"
    return None, "aspect" if masks else "crop"


def is_two_valued(path: str) -> bool:
    """Whether nearly all pixels have one of two values; False for a file that cannot be decoded."""
    (found,) = map_isolated(_has_two_values, [path], workers=1)
    return found is True


def _has_two_values(path: str) -> bool:
    values = read_stored_values(Path(path)) if ending(path) in DICOM else read_raster(Path(path)).pixels
    low, high = float(values.min()), float(values.max())
    near = NEAR * (high - low)
    return low < high and float(np.mean((values <= low + near) | (values >= high - near))) >= BLACK_OR_WHITE


def _size(file: Header) -> int:
    return file.shape[0] * file.shape[1]


def _is_large(file: Header, mammogram: Header) -> bool:
    shapes = zip(file.shape, mammogram.shape, strict=True)
    return all(side >= SMALLEST_MASK * full for side, full in shapes)

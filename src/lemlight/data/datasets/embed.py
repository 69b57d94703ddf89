"""EMBED: digital mammograms of Emory University, 22,382 patients in the open part, screening and diagnostic exams.

Layout, anywhere below root: `images/cohort_*/<patient>/<exam>/**/<file>.dcm` and in `tables` the metadata (a row for
each file) and the clinical table (a row for each finding), each whole or as `_reduced`.
Tables: joined on exam **and** side; a finding of both sides, or of none, is of both breasts.
Label, of a breast in an exam: malignant where a pathology of it is invasive or non-invasive cancer; not malignant where
there is another pathology, or where all that is said of it is BI-RADS 1 or 2. Anything else (called back, probably
benign, suspicious, known cancer, without a pathology) is unknown and left out [reading]. A pathology that was entered
with the diagnostic exam only leaves the screening exam unknown, or negative; the tables do not tell.
Lesions: the boxes that were drawn over radiologists' circles; unknown where there is none and the breast is not
negative. Split: none is official; the two cohorts share no patient.
Source: Jeong et al., The EMory BrEast imaging Dataset (EMBED), Radiology: Artificial Intelligence 5(1), 2023;
https://github.com/Emory-HITI/EMBED_Open_Data. By its licence agreement. No real file of it was at hand here.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import DICOM, Download, header_line, named, whole_numbers
from lemlight.data.preparing.lesions import Lesion
from lemlight.errors import ImageError

METADATA, CLINICAL = "EMBED_OpenData_metadata.csv", "EMBED_OpenData_clinical.csv"
EXAM = ["empi_anon", "acc_anon"]
NEEDED = (*EXAM, "anon_dicom_path", "ImageLateralityFinal", "ViewPosition", "FinalImageType", "ROI_coords")
NEEDED_CLINICAL = (*EXAM, "side", "asses", "bside", "path_severity")
SPECIAL = "spot_mag"  # 1: a spot or magnification view
CANCER, OTHER = ("0", "1"), ("2", "3", "4", "5", "6")  # path_severity; 6 is cancer of another organ
NEGATIVE = ("N", "B")  # BI-RADS 1 and 2
ASSESSMENTS = ("A", *NEGATIVE, "P", "S", "M", "K", "X", "")
UID = re.compile(r"\d+(\.\d+)+")
NUMBER = r"-?\d+(?:\.\d+)?"


@checked
def embed(
    root: str | Path,
    image_types: Sequence[Literal["2D", "cview"]] = ("2D",),
    special_views: bool = False,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of EMBED below `root`, of 2D images, of synthetic ones (C-view), or of both."""
    download = Download("EMBED", root)
    files = download.one_file_each(download.of_kind(DICOM), _name)
    images = _read_images(download)
    breasts = _read_breasts(download)
    wanted = images["type"].isin([kind.lower() for kind in image_types])
    if not special_views and SPECIAL in images:
        special = whole_numbers(images[SPECIAL]) == "1"
        download.note("spot and magnification views: left out", images.loc[wanted & special, "image"])
        wanted &= ~special
    images = download.with_files(images, files, "image", wanted)
    images = images.merge(breasts, on=[*EXAM, "laterality"], how="left")
    unnamed = images["label"].isna() & images["known"].isna()
    download.note("images of breasts that the clinical table does not name: left out", images.loc[unnamed, "image"])
    unknown = images["label"].isna() & ~unnamed
    download.note("images of breasts whose label is unknown (no pathology): left out", images.loc[unknown, "image"])
    images = images[images["label"].notna()]
    download.check(allow_missing, images)
    images = images.rename(columns={"empi_anon": "patient_id", "acc_anon": "exam", "image": "image_id"})
    images = images.assign(label=images["label"].astype(int))
    return download.image_table(images, lambda row: _lesions(row.ROI_coords, bool(row.negative)))


def _name(path: str) -> str:
    """Name an image by its file, a UID, "" where it is none of EMBED."""
    name = os.path.splitext(path.replace("\\", "/").split("/")[-1])[0]
    return name if UID.fullmatch(name) else ""


def _table(download: Download, name: str, needed: Sequence[str]) -> pd.DataFrame:
    """Read a table, the reduced one if it has the columns: the whole one is ten times as large."""
    reduced = [path for path in named(download.files, name.replace(".csv", "_reduced.csv")) if _has(path, needed)]
    return download.table(name, needed, reduced or named(download.files, name), numbers=EXAM)


def _has(path: str, needed: Sequence[str]) -> bool:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header, separator = header_line(file.readline())
    return {*needed} <= {cell.strip(' "\r\n') for cell in header.split(separator)}


def _read_images(download: Download) -> pd.DataFrame:
    """Read the metadata with columns image, type, laterality and view; note what is unknown in them."""
    rows = _table(download, METADATA, NEEDED)
    rows["image"] = rows["anon_dicom_path"].map(_name)
    rows["type"] = rows["FinalImageType"].str.lower().str.replace("-", "")
    rows["laterality"], rows["view"] = rows["ImageLateralityFinal"].str.upper(), rows["ViewPosition"].str.upper()
    mammogram = rows["type"].isin(["2d", "cview"])
    download.wrong_values(rows, {"ImageLateralityFinal": mammogram & ~rows["laterality"].isin(["L", "R"])})
    twice = rows["image"].duplicated(keep=False) & mammogram
    download.wrong("images that the metadata lists twice", rows.loc[twice, "image"].unique())
    return rows


def _read_breasts(download: Download) -> pd.DataFrame:
    """Read the label of every breast in every exam: exam, laterality, label (None: unknown), negative, known."""
    rows = _table(download, CLINICAL, NEEDED_CLINICAL)
    for column in ("side", "bside", "asses"):
        rows[column] = rows[column].str.upper()
    rows["path_severity"] = whole_numbers(rows["path_severity"])
    unknown = {
        "side": ~rows["side"].isin(["L", "R", "B", ""]),
        "asses": ~rows["asses"].isin(ASSESSMENTS),
        "path_severity": ~rows["path_severity"].isin([*CANCER, *OTHER, ""]),
    }
    download.wrong_values(rows, unknown)
    sides = []
    for side in ("L", "R"):
        of_side = rows[rows["side"].isin([side, "B", ""])].assign(laterality=side)
        # a pathology of a finding of both breasts says itself from which it was taken
        of_side["severity"] = of_side["path_severity"].where(of_side["bside"].isin([side, "B", ""]), "")
        sides.append(of_side)
    both = pd.concat(sides).assign(
        cancer=lambda rows: rows["severity"].isin(CANCER),
        other=lambda rows: rows["severity"].isin(OTHER),
        negative=lambda rows: rows["asses"].isin(NEGATIVE) & ~rows["severity"].isin([*CANCER, *OTHER]),
    )
    breasts = both.groupby([*EXAM, "laterality"], as_index=False)[["cancer", "other", "negative"]].agg(
        {"cancer": "any", "other": "any", "negative": "all"}
    )
    label = pd.Series(pd.NA, index=breasts.index, dtype="Int64")
    label[breasts["other"] | breasts["negative"]] = 0
    label[breasts["cancer"]] = 1
    return breasts.assign(label=label, known=True)


def _lesions(text: str, negative: bool) -> tuple[Lesion, ...]:
    """Make boxes of the text `((ymin, xmin, ymax, xmax), ...)`; ImageError where the lesions are not known."""
    numbers = [float(number) for number in re.findall(NUMBER, text)]
    if len(numbers) % 4:
        raise ImageError("a box without four corners")
    if not numbers and not negative:
        raise ImageError("no box, and the breast is not negative")
    boxes = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
    if any(bottom <= top or right <= left for top, left, bottom, right in boxes):
        raise ImageError("a box without extent")
    corners = [((left, top), (right, bottom)) for top, left, bottom, right in boxes]
    return tuple(Lesion("box", "other", points=points) for points in dict.fromkeys(corners))

"""RSNA Screening Mammography Breast Cancer Detection: 54,706 images of 11,913 patients of two screening sites.

Layout, anywhere below root: `train.csv` (a row for each image) and `train_images/<patient_id>/<image_id>.dcm`; without
any of these, PNG copies `<patient_id>/<image_id>.png` or `<patient_id>_<image_id>.png`. PNG beside DICOM files are not
used: two preparations of one data set would give the label away. `test_images` and `test.csv` have no labels and are
passed over. No file is opened here, one that is no image is found when the images are prepared.
Label: column `cancer`, 1 where the breast has a cancer proven by biopsy, for all images of that breast; 2.1 % are.
View: as in the table; `views` chooses, CC and MLO by default (a few images are AT, LM, ML and LMO).
Lesions: none are marked; where a cancer lies is unknown, and whether an image without cancer holds a benign lesion.
Split: the official test set is hidden, so none is given; patients are those of the column `patient_id`.
Source: Carr et al., RSNA Screening Mammography Breast Cancer Detection, 2022,
https://kaggle.com/competitions/rsna-breast-cancer-detection. For non-commercial use, by the rules of that competition.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from lemlight.arguments import checked
from lemlight.data.datasets.common import DICOM, Download, ending

NEEDED = ("patient_id", "image_id", "laterality", "view", "cancer")
NUMBERS = re.compile(r"/(\d+)[/_](\d+)\.\w+$")  # patient and image
WITHOUT_LABELS = "/test_images"


@checked
def rsna(
    root: str | Path,
    views: Annotated[Sequence[Literal["CC", "MLO", "AT", "LM", "LMO", "ML"]], Field(min_length=1)] = ("CC", "MLO"),
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of the RSNA challenge below `root`, of the images of these views."""
    download = Download("RSNA", root)
    files = _images(download)
    rows = _read(download)
    rows = download.with_files(rows, files, "image", rows["view"].isin(list(views)))
    download.check(allow_missing, rows)
    further = rows.columns.intersection(["density", "age", "site"])
    columns = ["image_id", "patient_id", "path", "laterality", "view", *further]
    return download.image_table(rows[columns].assign(label=rows["cancer"].astype(int)))


def _images(download: Download) -> dict[str, str]:
    """Find the images as `<patient>/<image>`: DICOM files, or without any of these PNG copies."""
    start = len(os.path.abspath(download.root))
    paths = [path for path in download.files if WITHOUT_LABELS not in path[start:]]
    files = download.one_file_each([path for path in paths if ending(path) in DICOM], _name)
    copies = [path for path in paths if ending(path) == ".png" and _name(path)]
    if files:
        download.note("PNG copies beside DICOM files, which are not used", map(download.show, copies))
    return files or download.one_file_each(copies, _name)


def _name(path: str) -> str:
    found = NUMBERS.search(path)
    return f"{found[1]}/{found[2]}" if found else ""


def _read(download: Download) -> pd.DataFrame:
    """Read the table, with the column image; note what is wrong with its rows."""
    rows = download.table("train.csv", NEEDED, numbers=("patient_id", "image_id", "cancer"))
    download.wrong_values(rows, {"cancer": ~rows["cancer"].isin(["0", "1"])}, "{} is neither 0 nor 1")
    download.sides_and_views(rows)
    no_number = {column: ~rows[column].str.fullmatch(r"\d+") for column in ("patient_id", "image_id")}
    download.wrong_values(rows, no_number, "{} is no number")
    download.repeated(rows, "cancer")
    return rows.assign(image=rows["patient_id"] + "/" + rows["image_id"]).rename(columns={"site_id": "site"})

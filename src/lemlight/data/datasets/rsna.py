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

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from lemlight.arguments import checked
from lemlight.data.datasets.common import (
    DICOM,
    Problems,
    below,
    ending,
    first_of_each,
    image_table,
    list_files,
    one_table,
    read_rows,
)
from lemlight.errors import LemlightError

TABLE = "train.csv"
NEEDED = ("patient_id", "image_id", "laterality", "view", "cancer")
FLAT = re.compile(r"(\d+)_(\d+)")
WITHOUT_LABELS = "/test_images"

logger = logging.getLogger(__name__)


@checked
def rsna(
    root: str | Path,
    views: Annotated[Sequence[Literal["CC", "MLO", "AT", "LM", "LMO", "ML"]], Field(min_length=1)] = ("CC", "MLO"),
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of the RSNA challenge below `root`, of the images of these views.

    Raises:
        LemlightError: all that is wrong with the download; what is missing only without `allow_missing`.
    """
    root = Path(root)
    problems = Problems("RSNA", root)
    start = len(os.path.abspath(root))
    paths = [path for path in list_files(root, "RSNA") if WITHOUT_LABELS not in path[start:]]
    files = _images(paths, root, problems)
    try:
        rows = _read(paths, root)
    except LemlightError as error:
        problems.wrong("the table", [error])
        rows = pd.DataFrame(columns=[*NEEDED, "image"], dtype=str)
    else:
        _check(rows, problems)
        problems.incomplete("images without a row in the table", sorted(set(files) - set(rows["image"])))
        rows = rows[rows["view"].isin(list(views))]
        problems.incomplete("images of the table without a file", sorted(set(rows["image"]) - set(files)))
    problems.raise_any(allow_missing)
    rows = rows[rows["image"].isin(list(files))]
    if rows.empty:
        raise LemlightError(f"no image of RSNA is left of {root}: check dataset.root and dataset.views")
    columns = ["image_id", "patient_id", "laterality", "view"]
    images = rows[columns].assign(path=rows["image"].map(files), label=rows["cancer"].astype(int))
    return image_table(images, [None] * len(images), "RSNA")


def _images(paths: Iterable[str], root: Path, problems: Problems) -> dict[str, str]:
    """Find the images as `<patient>/<image>`; note doubles and DICOM files of other data sets."""
    dicom: dict[str, list[str]] = defaultdict(list)
    copies: dict[str, list[str]] = defaultdict(list)
    strange = []
    for path in paths:
        suffix = ending(path)
        if suffix not in (*DICOM, ".png"):
            continue
        folder, stem = path.split("/")[-2], os.path.splitext(os.path.basename(path))[0]
        flat = FLAT.fullmatch(stem)
        if flat or (stem.isdecimal() and folder.isdecimal()):
            image = f"{flat[1]}/{flat[2]}" if flat else f"{folder}/{stem}"
            (dicom if suffix in DICOM else copies)[image].append(path)
        elif suffix in DICOM:
            strange.append(below(path, root))
    if dicom and copies:
        logger.info("RSNA: %d PNG copies beside DICOM files are not used", len(copies))
    problems.wrong("images whose names are not RSNA's", strange)
    return first_of_each(dicom or copies, root, problems)


def _read(paths: Iterable[str], root: Path) -> pd.DataFrame:
    tables = [path for path in paths if os.path.basename(path).lower() == TABLE]
    rows = read_rows(one_table(tables, TABLE, root), NEEDED)
    for column in ("patient_id", "image_id", "cancer"):  # spreadsheets and other programs write 1.0
        rows[column] = rows[column].str.replace(r"\.0+$", "", regex=True)
    rows["laterality"], rows["view"] = rows["laterality"].str.upper(), rows["view"].str.upper()
    return rows.assign(image=rows["patient_id"] + "/" + rows["image_id"])


def _check(rows: pd.DataFrame, problems: Problems) -> None:
    problems.wrong_values(rows, {"cancer": ~rows["cancer"].isin(["0", "1"])}, "{} is neither 0 nor 1")
    unknown = {"laterality": ~rows["laterality"].isin(["L", "R"]), "view": ~rows["view"].str.fullmatch("[A-Z]+")}
    problems.wrong_values(rows, unknown)
    no_number = {column: ~rows[column].str.fullmatch(r"\d+") for column in ("patient_id", "image_id")}
    problems.wrong_values(rows, no_number, "{} is no number")
    problems.repeated(rows, "image_id", "cancer")

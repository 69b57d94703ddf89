"""CMMD: 5,202 full-field digital mammograms of 1,775 patients with labels from biopsies, two devices.

Layout, anywhere below root: `CMMD/<ID1>/**/*.dcm`, the patient also in the headers, and the clinical table
`CMMD_clinicaldata_revision` with a row for each breast that was biopsied: ID1 (patient), LeftRight, classification.
Side and view stand in the headers only. Names of images: patient, side and view, numbered where several are alike.
Label: that of the breast; breasts without a row have no biopsy: left out, or with `normal_images` not malignant.
Lesions: none are marked. Split: none is official.
Source: Cui et al., The Chinese Mammography Database, The Cancer Imaging Archive, 2021,
https://doi.org/10.7937/tcia.eqde-4b16. CC BY 4.0.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import DICOM, SHEETS, Download, ending, header_line, read_text, whole_numbers

PATIENT = re.compile(r"D[12]-\d{4}")
TABLE = "CMMD_clinicaldata_revision.csv"
NEEDED = ("ID1", "LeftRight", "classification")
LABELS = {"benign": 0, "malignant": 1}
COUNT = "number"  # images of the patient [reading]


@checked
def cmmd(root: str | Path, normal_images: bool = False, allow_missing: bool = False) -> pd.DataFrame:
    """Build the image table of CMMD below `root`; `normal_images` takes in the breasts that the table does not name."""
    download = Download("CMMD", root)
    images = _images(download)
    rows = download.table(TABLE, NEEDED, [path for path in download.files if _is_table(path)])
    labels = _labels(rows, download)
    of_images = list(zip(images["patient_id"], images["laterality"], strict=True))
    images["label"] = pd.array([labels.get(breast) for breast in of_images], dtype="Int64")
    if len(rows):
        patients = set(rows["ID1"].str.upper())
        absent = set(labels) - set(of_images)
        download.incomplete("breasts of the table without an image", sorted(map(" ".join, absent)))
        download.incomplete("patients without a row in the table", sorted(set(images["patient_id"]) - patients))
        images = images[images["patient_id"].isin(patients)]
        _compare_counts(images, rows, download)
    normal = images["label"].isna()
    left_out = images[normal]
    what = f"breasts without a row, whose images are {'not malignant' if normal_images else 'left out'}"
    download.note(what, (left_out["patient_id"] + " " + left_out["laterality"]).unique())
    images = images.assign(label=images["label"].fillna(0)) if normal_images else images[~normal]
    download.check(allow_missing, images)
    images = images.sort_values(["patient_id", "laterality", "view", "path"])
    names = (images["patient_id"] + "_" + images["laterality"] + "_" + images["view"]).str.rstrip("_")
    further = names.groupby(names).cumcount()
    names += further.map(lambda number: f"_{number + 1}" if number else "")
    return download.image_table(images.assign(image_id=names, label=images["label"].astype(int)))


def _images(download: Download) -> pd.DataFrame:
    """Read patient, side and view of every image; note what is broken, twice there, or of another data set."""
    rows = []
    twice: dict[str, list[str]] = defaultdict(list)
    for path, header in download.headers(download.of_kind(DICOM)).items():
        name = download.show(path)
        said = header.patient.upper() if PATIENT.fullmatch(header.patient.upper()) else ""
        patient = next((part for part in name.split("/")[:-1] if PATIENT.fullmatch(part)), said)
        twice[header.instance or name].append(name)
        if not patient:
            download.wrong("images that belong to no patient of CMMD", [name])
        elif said not in ("", patient):
            download.wrong("images in the folder of another patient than their headers name", [name])
        elif not header.side:
            download.incomplete("images whose headers do not name the side", [name])
        else:
            rows.append((path, patient, header.side, header.view))
            download.note("images whose headers do not name the view", [] if header.view else [name])
    download.wrong("images that are there twice", [" and ".join(same) for same in twice.values() if len(same) > 1])
    return pd.DataFrame(rows, columns=["path", "patient_id", "laterality", "view"], dtype=str)


def _is_table(path: str) -> bool:
    """Whether it is the clinical table by its name, or a CSV under another one that has a column ID1."""
    name = os.path.basename(path).lower()
    if "clinical" in name:
        return ending(path) in (".csv", *SHEETS) and not name.startswith("~$")
    if ending(path) != ".csv":
        return False
    header, separator = header_line(read_text(Path(path)))
    return "ID1" in [cell.strip(' "') for cell in header.strip().split(separator)]


def _labels(rows: pd.DataFrame, download: Download) -> dict[tuple[str, str], int]:
    """Give the label of every breast (ID1, side); a row for each of its abnormalities does no harm."""
    rows = rows.assign(
        ID1=rows["ID1"].str.upper(),
        LeftRight=rows["LeftRight"].str.upper(),
        classification=rows["classification"].str.lower(),
    )
    bad = {
        "ID1": ~rows["ID1"].str.fullmatch(PATIENT.pattern),
        "LeftRight": ~rows["LeftRight"].isin(["L", "R"]),
        "classification": ~rows["classification"].isin(list(LABELS)),
    }
    download.wrong_values(rows, bad)
    rows = rows[~pd.DataFrame(bad).any(axis=1)]
    classes = rows.groupby(["ID1", "LeftRight"])["classification"].nunique()
    both = [" ".join(breast) for breast in classes.index[classes > 1]]
    download.wrong("breasts that the table calls benign and malignant", both)
    breasts = zip(rows["ID1"], rows["LeftRight"], strict=True)
    return dict(zip(breasts, rows["classification"].map(LABELS), strict=True))


def _compare_counts(images: pd.DataFrame, rows: pd.DataFrame, download: Download) -> None:
    """Note the patients with fewer images on the disk than the table says."""
    if COUNT in rows.columns:
        said = pd.to_numeric(whole_numbers(rows[COUNT]), errors="coerce").groupby(rows["ID1"].str.upper()).max()
        there = images.groupby("patient_id").size().reindex(said.index, fill_value=0)
        download.note("patients with fewer images than the table says", said.index[(there > 0) & (there < said)])

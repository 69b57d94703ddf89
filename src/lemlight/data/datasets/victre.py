"""VICTRE: 2,994 simulated digital mammograms of the FDA's in-silico trial, with and without an inserted lesion.

Layout, anywhere below root: the DICOM files as the Imaging Data Commons leave them; those of tomosynthesis
(projections, slices) are passed over by their description.
Label: whether a lesion was inserted, as the series' description says: `pcl` with, `pc` without [reading: the archive's
list has 1,944 and 1,050 of them, the trial 1,944 with cancer]. Patient: PatientID, one breast each.
Lesions: none without one; unknown with one, since the archive holds no places. Split: none is official.
The images are "for processing": raw detector values, which a note says when they are prepared.
Source: Badano et al., Evaluation of Digital Breast Tomosynthesis as Replacement of Full-Field Digital Mammography Using
an In Silico Imaging Trial, JAMA Network Open 1(7), 2018; https://doi.org/10.7937/TCIA.2019.ho23nxaw. CC BY 3.0. No real
file of it was at hand here, but the archive's list of them.
"""

import re
from pathlib import Path

import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import DICOM, Download
from lemlight.errors import ImageError

DESCRIPTION = re.compile(r"mcgpu_image_(pcl?)_-?\d+_", re.IGNORECASE)
TOMOSYNTHESIS = re.compile(r"projection|dbt|slices", re.IGNORECASE)


@checked
def victre(root: str | Path, allow_missing: bool = False) -> pd.DataFrame:
    """Build the image table of the mammograms of VICTRE below `root`."""
    download = Download("VICTRE", root)
    rows = []
    for path, header in download.headers(download.of_kind(DICOM)).items():
        name, found = download.show(path), DESCRIPTION.search(header.description)
        if TOMOSYNTHESIS.search(header.description):
            download.note("files of tomosynthesis: passed over", [name])
        elif not found or not header.patient:
            download.wrong("images whose description is none of VICTRE's", [f"{name} ({header.description!r})"])
        else:
            rows.append((path, header.patient, int(found[1].lower() == "pcl")))
    images = pd.DataFrame(rows, columns=["path", "patient_id", "label"])
    download.wrong("patients with several mammograms", images["patient_id"][images["patient_id"].duplicated()].unique())
    download.check(allow_missing, images)
    return download.image_table(images.assign(image_id=images["patient_id"]), lambda row: _lesions(row.label))


def _lesions(label: int) -> tuple[()]:
    if label:
        raise ImageError("the archive does not say where it is")
    return ()

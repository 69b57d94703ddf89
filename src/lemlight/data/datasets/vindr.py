"""VinDr-Mammo: 20,000 full-field digital mammograms of 5,000 examinations, with boxes around the findings.

Layout, anywhere below root: `images/<study_id>/<image_id>.dicom`, `breast-level_annotations.csv` (a row for each image)
and `finding_annotations.csv` (a row for each box, or one that says "No Finding"). No image is opened here.
Label: BI-RADS of the breast, malignant from `malignant_from` on; no pathology is known.
Patient: the study. Split: the official one, training and test.
Lesions: boxes, cut at the edge of the image; those of an image are unknown where the tables contradict each other,
where a finding has no box, and where a box lies outside the image.
Source: Nguyen et al., VinDr-Mammo: A large-scale benchmark dataset for computer-aided diagnosis in full-field digital
mammography, Scientific Data 10, 2023; https://physionet.org/content/vindr-mammo. By PhysioNet's data use agreement.
"""

import ast
import math
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import Field

from lemlight.arguments import checked
from lemlight.data.datasets.common import DICOM, Download, moved_inside, named, whole_numbers
from lemlight.data.preparing.lesions import Lesion
from lemlight.errors import ImageError

BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
NOTHING = "No Finding"
TYPES = {
    "Mass": "mass",
    "Suspicious Calcification": "calcification",
    "Architectural Distortion": "distortion",
    "Asymmetry": "asymmetry",
    "Focal Asymmetry": "asymmetry",
    "Global Asymmetry": "asymmetry",
    "Suspicious Lymph Node": "other",
    "Nipple Retraction": "other",
    "Skin Retraction": "other",
    "Skin Thickening": "other",
}
ORDER = ("mass", "calcification", "distortion", "asymmetry", "other")  # a box of several categories has the first
NEEDED = ("study_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads", "split")
NEEDED_OF_FINDINGS = ("image_id", "breast_birads", "finding_categories", *CORNERS)
IN_BOTH = ("study_id", "laterality", "view_position", "height", "width", "breast_birads", "split")
NAMES = {"study_id": "patient_id", "view_position": "view", "breast_density": "density"}
SPLITS = {"training": "train", "test": "test"}
HASH = r"[0-9a-f]{32}"


class Finding(NamedTuple):
    """A row of the table: its categories, and the text of its box (xmin, ymin, xmax, ymax), "" where it has none."""

    categories: tuple[str, ...]
    box: tuple[str, str, str, str]


@checked
def vindr(
    root: str | Path,
    malignant_from: Annotated[int, Field(ge=2, le=5)] = 4,
    leave_out: Sequence[Literal[1, 2, 3, 4, 5]] = (),
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of VinDr-Mammo below `root`, without the BI-RADS categories in `leave_out`."""
    download = Download("VinDr-Mammo", root)
    files = download.one_file_each(download.of_kind(DICOM), _name)
    rows = _read_images(download)
    findings = _read_findings(rows, download)
    wanted = ~rows["birads"].isin([str(category) for category in leave_out])
    rows = download.with_files(rows, files, "image", wanted)
    download.check(allow_missing, rows)
    images = rows.rename(columns=NAMES).assign(
        split=rows["split"].map(SPLITS),
        label=(rows["birads"].astype(int) >= malignant_from).astype(int),
    )

    def lesions(row: Any) -> tuple[Lesion, ...]:
        found, beyond = lesions_of(findings.get(row.image_id, ()), (int(row.height), int(row.width)))
        download.note("images with a box that is cut at the edge", [row.image_id] * beyond)
        return found

    return download.image_table(images, lesions)


def _name(path: str) -> str:
    """Name an image `<study>/<image>`, "" where it is none of VinDr-Mammo."""
    image = os.path.splitext("/".join(path.split("/")[-2:]))[0]
    return image if re.fullmatch(f"{HASH}/{HASH}", image) else ""


def _read_images(download: Download) -> pd.DataFrame:
    """Read the table of images, with columns image and birads; without rows where it cannot be used."""
    rows = download.table(BREASTS, NEEDED, numbers=("height", "width"))
    rows["split"] = rows["split"].str.lower()
    rows["birads"] = rows["breast_birads"].str.extract(r"(?i)^BI-RADS ([1-5])$", expand=False).fillna("")
    download.wrong_values(rows, {"breast_birads": rows["birads"] == ""}, "unknown BI-RADS")
    download.sides_and_views(rows, view="view_position")
    download.wrong_values(rows, {"split": ~rows["split"].isin(list(SPLITS))})
    lengths = {column: ~rows[column].str.fullmatch(r"0*[1-9]\d{0,5}") for column in ("height", "width")}
    download.wrong_values(rows, lengths, "impossible {}")
    ids = {column: ~rows[column].str.fullmatch(HASH) for column in ("study_id", "image_id")}
    download.wrong_values(rows, ids, "{} is none of VinDr-Mammo")
    download.repeated(rows, "birads")
    parts = rows[rows["split"].isin(list(SPLITS))].groupby("study_id")["split"].nunique()
    download.wrong("studies in training and in test", parts.index[parts > 1])
    return rows.assign(image=rows["study_id"] + "/" + rows["image_id"])


def _read_findings(images: pd.DataFrame, download: Download) -> dict[str, list[Finding]]:
    """Read the findings by image_id; none where the table cannot be used."""
    if not named(download.files, FINDINGS):
        download.incomplete("the findings are missing", [FINDINGS])
        return {}
    rows = download.table(FINDINGS, NEEDED_OF_FINDINGS)
    categories = [read_categories(text) for text in rows["finding_categories"]]
    unknown = pd.Series([names is None for names in categories], index=rows.index, dtype=bool)
    download.wrong_values(rows, {"finding_categories": unknown}, "unknown finding categories")
    contradicting = _compare(rows, images, download) if len(images) else set()
    findings: dict[str, list[Finding]] = defaultdict(list)
    boxes = zip(*(rows[corner] for corner in CORNERS), strict=True)
    for image, names, box in zip(rows["image_id"], categories, boxes, strict=True):
        if image not in contradicting:
            findings[image].append(Finding(names or (), box))
    return findings


def _compare(rows: pd.DataFrame, images: pd.DataFrame, download: Download) -> set[str]:
    """Note where the two tables disagree; give the images whose findings contradict the table of images."""
    told = images.drop_duplicates("image_id").set_index("image_id")
    listed = rows["image_id"].isin(told.index)
    strangers = sorted(set(rows.loc[~listed, "image_id"]))
    download.incomplete("images with findings, but without a row in the table of images", strangers)
    contradicting: set[str] = set()
    for column in (name for name in IN_BOTH if name in rows):
        other = listed & (whole_numbers(rows[column]).str.lower() != rows["image_id"].map(told[column]).str.lower())
        here = set(rows.loc[other, "image_id"])
        download.incomplete(f"findings of images whose {column} is another in {BREASTS}", sorted(here))
        contradicting |= here
    return contradicting


def read_categories(text: str) -> tuple[str, ...] | None:
    """Read a list of category names from its text, `['Mass', 'Skin Retraction']`; None where it is none of them."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if {*names} <= {*TYPES, NOTHING} else None


def lesions_of(findings: Sequence[Finding], shape: tuple[int, int]) -> tuple[tuple[Lesion, ...], bool]:
    """Make lesions of the findings of one image of `shape` (H, W) px, and tell whether a box was cut at its edge.

    "No Finding" by itself is no lesion; a box that is given twice counts once. Raises ImageError where the lesions are
    not known: no row at all, a finding without a box, a box without extent or wholly outside the image, a finding
    beside "No Finding".
    """
    if not findings:
        raise ImageError("no row of findings")
    if any(NOTHING in finding.categories for finding in findings):
        if any(finding.categories != (NOTHING,) or any(finding.box) for finding in findings):
            raise ImageError(f"a finding beside {NOTHING!r}")
        return (), False
    lesions, cut = [], False
    for categories, box in findings:
        corners = _corners(box, shape)
        inside = moved_inside(corners, shape)
        kind = min((TYPES[name] for name in categories), key=ORDER.index)
        lesions.append(Lesion("box", kind, points=inside, size=shape))
        cut |= any(x < 0 or y < 0 or x > shape[1] or y > shape[0] for x, y in corners)
    return tuple(dict.fromkeys(lesions)), cut


def _corners(box: Sequence[str], shape: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    if not all(box):
        raise ImageError("a finding without a box")
    try:
        left, top, right, bottom = (float(corner.replace(",", ".")) for corner in box)
    except ValueError as error:
        raise ImageError("a box whose corners are no numbers") from error
    if not (0 < right - left < math.inf and 0 < bottom - top < math.inf):  # refuses NaN as well
        raise ImageError("a box without extent")
    if not (right > 0 and left < shape[1] and bottom > 0 and top < shape[0]):
        raise ImageError("a box outside the image")
    return (left, top), (right, bottom)

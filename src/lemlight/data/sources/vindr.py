"""VinDr-Mammo: 5,000 full-field digital screening and diagnostic exams of two hospitals in Hanoi, 20,000 images.

Layout, anywhere below root: `images/<study_id>/<image_id>.dicom` (or .dcm), `breast-level_annotations.csv` (a row for
each image) and `finding_annotations.csv` (a row for each box, or one that says "No Finding"). The files themselves are
not opened here, one that is no image is found when the images are prepared.
Label: malignant from BI-RADS `malignant_from` of the breast upwards, by common practice 4 (4 and 5 against 1, 2 and 3);
it is the assessment of two radiologists, not pathology. `leave_out` drops categories, for example the 3.
Patient: the study, as the release names no patients: two exams of one patient would count as two patients.
Lesions: the boxes of an image; one with several categories is one lesion, of the first of mass, calcification,
distortion, asymmetry and other (lymph nodes, skin and nipple). Only what is not benign is marked: an image of
"No Finding" is known to hold no suspicious lesion, it may hold a benign one. A box that overlaps the image is cut at
its edge. Unknown are the lesions of an image that has a finding without a box, a box wholly outside or without extent,
"No Finding" beside a finding, no row at all, or (with `allow_missing`) rows that contradict the table of images.
Split: the official one, training (4,000 exams) and test (1,000); val is cut from training by patient.
Source: Nguyen et al., VinDr-Mammo: a large-scale benchmark dataset for computer-aided diagnosis in full-field digital
mammography, Scientific Data 10, 2023, doi 10.1038/s41597-023-02100-7; PhysioNet, doi 10.13026/br2v-7517, to those who
sign its data use agreement (restricted access).
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from lemlight.data.lesions import Lesion
from lemlight.data.sources.download import Problems
from lemlight.data.sources.listing import IMAGES, below, ending, list_files
from lemlight.data.sources.rows import note_repeated, note_values, one_table, read_rows
from lemlight.data.sources.vindr_findings import CORNERS, Finding, lesions_of, reaches_beyond, read_categories
from lemlight.data.table import check_table, first_ten
from lemlight.errors import ImageError, LemlightError

BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
NEEDED = ("study_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads", "split")
NEEDED_OF_FINDINGS = ("image_id", "breast_birads", "finding_categories", *CORNERS)
IN_BOTH = ("study_id", "laterality", "view_position", "height", "width", "breast_birads", "split")
CATEGORIES = ("1", "2", "3", "4", "5")
SPLITS = {"training": "train", "test": "test"}
HASH = r"[0-9a-f]{32}"

logger = logging.getLogger(__name__)


def vindr_table(
    root: Path, malignant_from: int = 4, leave_out: Sequence[str | int] = (), allow_missing: bool = False
) -> pd.DataFrame:
    """Build the image table of VinDr-Mammo below `root`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing only without `allow_missing`.
    """
    problems = Problems("VinDr-Mammo", root)
    left_out = {str(category) for category in leave_out}
    problems.wrong("no BI-RADS category to leave out", sorted(left_out - set(CATEGORIES)))
    paths = list_files(root, "VinDr-Mammo")
    files = _images(paths, root, problems)
    images = _read_images(paths, root, problems)
    findings = _read_findings(paths, root, images, problems)
    if len(images):
        problems.incomplete("images without a row in the table", sorted(set(files) - set(images["image"])))
    images = images[~images["birads"].isin(left_out)]
    problems.incomplete("images of the table without a file", sorted(set(images["image"]) - set(files)))
    problems.raise_any(allow_missing)
    images = images[images["image"].isin(list(files))]
    if images.empty:
        raise LemlightError(f"no image of VinDr-Mammo is left of {root}: check dataset.root and dataset.leave_out")
    return _build(images, files, findings, malignant_from)


def _images(paths: Iterable[str], root: Path, problems: Problems) -> dict[str, str]:
    """Find the images as `<study>/<image>`; note doubles and images of other data sets."""
    found: dict[str, list[str]] = defaultdict(list)
    strange = []
    for path in paths:
        if ending(path) in IMAGES:
            image = os.path.splitext("/".join(path.rsplit("/", 2)[-2:]))[0]
            if all(len(part) == 32 and not set(part) - set("0123456789abcdef") for part in image.split("/")):
                found[image].append(path)
            else:
                strange.append(below(path, root))
    doubles = [" and ".join(below(path, root) for path in same) for same in found.values() if len(same) > 1]
    problems.wrong("images that are there twice", doubles)
    problems.wrong("images whose names are not VinDr-Mammo's", strange)
    return {image: same[0] for image, same in found.items()}


def _read_images(paths: Iterable[str], root: Path, problems: Problems) -> pd.DataFrame:
    """Read the table of images, with columns image, birads and shape; without rows where it cannot be used."""
    tables = [path for path in paths if os.path.basename(path).lower() == BREASTS]
    try:
        rows = read_rows(one_table(tables, BREASTS, root), NEEDED)
    except LemlightError as error:
        problems.wrong("the table of images", [error])
        return pd.DataFrame(columns=[*NEEDED, "image", "birads"], dtype=str)
    rows["laterality"], rows["view_position"] = rows["laterality"].str.upper(), rows["view_position"].str.upper()
    rows["split"] = rows["split"].str.lower()
    rows["birads"] = rows["breast_birads"].str.extract(r"(?i)^BI-RADS ([1-5])$", expand=False).fillna("")
    note_values(rows, rows["birads"] == "", "breast_birads", "unknown BI-RADS", problems)
    note_values(rows, ~rows["laterality"].isin(["L", "R"]), "laterality", "unknown laterality", problems)
    note_values(rows, ~rows["view_position"].str.fullmatch("[A-Z]+"), "view_position", "unknown view", problems)
    note_values(rows, ~rows["split"].isin(list(SPLITS)), "split", "unknown split", problems)
    for column in ("height", "width"):
        note_values(rows, ~rows[column].str.fullmatch(r"0*[1-9]\d{0,5}"), column, f"impossible {column}", problems)
    for column in ("study_id", "image_id"):
        note_values(rows, ~rows[column].str.fullmatch(HASH), column, f"{column} is none of VinDr-Mammo", problems)
    note_repeated(rows, "image_id", "birads", "images", problems)
    parts = rows[rows["split"].isin(list(SPLITS))].groupby("study_id")["split"].nunique()
    problems.wrong("studies in training and in test", parts.index[parts > 1])
    return rows.assign(image=rows["study_id"] + "/" + rows["image_id"])


def _read_findings(
    paths: Iterable[str], root: Path, images: pd.DataFrame, problems: Problems
) -> dict[str, list[Finding]]:
    """Read the findings by image_id; none where the table cannot be used."""
    tables = [path for path in paths if os.path.basename(path).lower() == FINDINGS]
    if not tables:
        problems.incomplete("the findings are missing", [FINDINGS])
        return {}
    try:
        rows = read_rows(one_table(tables, FINDINGS, root), NEEDED_OF_FINDINGS)
    except LemlightError as error:
        problems.wrong("the table of findings", [error])
        return {}
    categories = [read_categories(text) for text in rows["finding_categories"]]
    unknown = pd.Series([names is None for names in categories], index=rows.index)
    note_values(rows, unknown, "finding_categories", "unknown finding categories", problems)
    contradicting = _compare(rows, images, problems) if len(images) else set()
    findings: dict[str, list[Finding]] = defaultdict(list)
    boxes = zip(*(rows[corner] for corner in CORNERS), strict=True)
    for image, names, box in zip(rows["image_id"], categories, boxes, strict=True):
        if image not in contradicting:
            findings[image].append(Finding(names or (), box))
    return findings


def _compare(rows: pd.DataFrame, images: pd.DataFrame, problems: Problems) -> set[str]:
    """Note where the two tables disagree; give the images whose findings contradict the table of images."""
    told = images.drop_duplicates("image_id").set_index("image_id")
    listed = rows["image_id"].isin(told.index)
    strangers = sorted(set(rows.loc[~listed, "image_id"]))
    problems.incomplete("images with findings, but without a row in the table of images", strangers)
    contradicting: set[str] = set()
    for column in (name for name in IN_BOTH if name in rows):
        other = listed & (rows[column].str.lower() != rows["image_id"].map(told[column]).str.lower())
        here = set(rows.loc[other, "image_id"])
        problems.incomplete(f"findings of images whose {column} is another in {BREASTS}", sorted(here))
        contradicting |= here
    return contradicting


def _build(
    images: pd.DataFrame, files: dict[str, str], findings: dict[str, list[Finding]], malignant_from: int
) -> pd.DataFrame:
    shapes = zip(images["height"].astype(int), images["width"].astype(int), strict=True)
    lesions: list[tuple[Lesion, ...] | None] = []
    unknown, cut = [], []
    for image, shape in zip(images["image_id"], shapes, strict=True):
        found = findings.get(image, ())
        try:
            lesions.append(lesions_of(found, shape))
        except ImageError as error:
            lesions.append(None)
            unknown.append(f"{image} ({error})")
        else:
            if any(reaches_beyond(finding, shape) for finding in found):
                cut.append(image)
    if cut:
        logger.warning("VinDr-Mammo: boxes of %d images are cut at the edge: %s", len(cut), first_ten(cut))
    if unknown:
        logger.warning("VinDr-Mammo: the lesions of %d images are unknown: %s", len(unknown), first_ten(unknown))
    table = pd.DataFrame(
        {
            "image_id": images["image_id"],
            "path": images["image"].map(files),
            "label": (images["birads"].astype(int) >= malignant_from).astype(int),
            "patient_id": images["study_id"],
            "split": images["split"].map(SPLITS),
            "laterality": images["laterality"],
            "view": images["view_position"],
            "lesions": pd.Series([found or () for found in lesions], index=images.index, dtype=object),
            "lesions_known": [found is not None for found in lesions],
        }
    )
    return check_table(table, "VinDr-Mammo")

"""VinDr-Mammo's boxes: the rows of finding_annotations.csv as the lesions of every image."""

import ast
import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from lemlight.arguments import checked
from lemlight.data.datasets.common import (
    IMAGES,
    Problems,
    below,
    ending,
    list_files,
    note_repeated,
    note_values,
    one_table,
    read_rows,
)
from lemlight.data.lesions import Lesion
from lemlight.data.table import check_table, first_ten
from lemlight.errors import ImageError, LemlightError

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


@dataclass(frozen=True)
class Finding:
    """A row of the table: its categories, and the text of its box (xmin, ymin, xmax, ymax), "" where it has none."""

    categories: tuple[str, ...]
    box: tuple[str, str, str, str]


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


def lesions_of(findings: Sequence[Finding], shape: tuple[int, int]) -> tuple[Lesion, ...]:
    """Make lesions of the findings of one image of `shape` (H, W) px.

    "No Finding" by itself is no lesion; a box that is given twice counts once. Raises ImageError where the lesions are
    not known: no row at all, a finding without a box, a box without extent or wholly outside the image, a finding
    beside "No Finding". A box that reaches beyond the image is cut at the edge.
    """
    if not findings:
        raise ImageError("no row of findings")
    if any(NOTHING in finding.categories for finding in findings):
        if any(finding.categories != (NOTHING,) or any(finding.box) for finding in findings):
            raise ImageError(f"a finding beside {NOTHING!r}")
        return ()
    return tuple(dict.fromkeys(_lesion(finding, shape) for finding in findings))


def reaches_beyond(finding: Finding, shape: tuple[int, int]) -> bool:
    """Whether a finding has a box that `lesions_of` cuts at the edge of the image (H, W)."""
    if not any(finding.box):
        return False
    left, top, right, bottom = _corners(finding)
    return left < 0 or top < 0 or right > shape[1] or bottom > shape[0]


def _corners(finding: Finding) -> tuple[float, float, float, float]:
    if not all(finding.box):
        raise ImageError("a finding without a box")
    try:
        left, top, right, bottom = (float(corner) for corner in finding.box)
    except ValueError as error:
        raise ImageError("a box whose corners are no numbers") from error
    if not (0 < right - left < math.inf and 0 < bottom - top < math.inf):  # refuses NaN as well
        raise ImageError("a box without extent")
    return left, top, right, bottom


def _lesion(finding: Finding, shape: tuple[int, int]) -> Lesion:
    left, top, right, bottom = _corners(finding)
    height, width = shape
    if not (right > 0 and left < width and bottom > 0 and top < height):
        raise ImageError("a box outside the image")
    corners = tuple(
        (min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)) for x, y in ((left, top), (right, bottom))
    )
    return Lesion("box", min((TYPES[name] for name in finding.categories), key=ORDER.index), points=corners)


BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
NEEDED = ("study_id", "image_id", "laterality", "view_position", "height", "width", "breast_birads", "split")
NEEDED_OF_FINDINGS = ("image_id", "breast_birads", "finding_categories", *CORNERS)
IN_BOTH = ("study_id", "laterality", "view_position", "height", "width", "breast_birads", "split")
SPLITS = {"training": "train", "test": "test"}
HASH = r"[0-9a-f]{32}"

logger = logging.getLogger(__name__)


@checked
def vindr(
    root: str | Path,
    malignant_from: Annotated[int, Field(ge=2, le=5)] = 4,
    leave_out: Sequence[Literal[1, 2, 3, 4, 5]] = (),
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of VinDr-Mammo below `root`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing only without `allow_missing`.
    """
    root = Path(root)
    problems = Problems("VinDr-Mammo", root)
    left_out = {str(category) for category in leave_out}
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

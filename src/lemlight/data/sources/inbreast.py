"""INbreast: 410 full-field digital mammograms of 115 cases with outlines of their lesions.

Layout, anywhere below root: `AllDICOMs/<image>_<hash>_MG_<L|R>_<CC|ML>_ANON.dcm`, `AllXML/<image>.xml` (OsiriX property
lists) and `INbreast.csv` (a row for each image; `;`, comma or tab). ML in a file name stands for MLO.
Label: malignant from BI-RADS `malignant_from` upwards, by common practice 4 (4a, 4b, 4c, 5 and 6 against 1, 2 and 3);
it is a radiologist's assessment, not pathology. `leave_out` drops categories, "4" all of 4a to 4c.
Patient: the `<hash>` of the file name, as the table has the word "removed" there and the first number names an image.
Where a PatientID of the DICOM headers joins two hashes, they count as one patient, so that no patient stands on both
sides of a split; a PatientID that is a word like "removed", or that more than half of the hashes share, says nothing.
Lesions: every region of an image's XML but the pectoral muscle; regions under OsiriX's default names (Unnamed,
Point 1) have no type. Without an XML an image of BI-RADS 1 is known to hold no lesion (the release annotates all
others), and of any other image the lesions are unknown; so they are where a region lies outside the image.
Split: none is official. The published experiments drew images, not patients (`dataset.split.scheme=image`), so that
views of one patient stood on both sides; by patient is lemlight's default.
Source: Moreira et al., INbreast: toward a full-field digital mammographic database, Academic Radiology 19(2), 2012,
doi 10.1016/j.acra.2011.09.014. Given out by its authors for research, on request; no open licence is known.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lemlight.data.lesions import Lesion
from lemlight.data.sources.download import Problems, files_of
from lemlight.data.sources.inbreast_files import (
    IMAGE_NAME,
    Files,
    Header,
    read_header,
    read_images,
    sort_files,
    view_of,
)
from lemlight.data.sources.inbreast_xml import Region, lesions_in, read_annotations
from lemlight.data.table import check_table, first_ten
from lemlight.errors import ImageError, LemlightError

CATEGORIES = ("1", "2", "3", "4", "4a", "4b", "4c", "5", "6")
NO_PATIENT = {"", "removed", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none"}
MOST_CONTRADICTIONS = 0.1  # share of the images; above, the table is not that of these images

logger = logging.getLogger(__name__)


def inbreast_table(
    root: Path, malignant_from: int = 4, leave_out: Sequence[str | int] = (), allow_missing: bool = False
) -> pd.DataFrame:
    """Build the image table of INbreast below `root`.

    Raises:
        LemlightError: all that is wrong with the download; what is missing or broken only without `allow_missing`.
    """
    problems = Problems("INbreast", root)
    files = sort_files(files_of(root, "INbreast"))
    left_out = {str(category).lower() for category in leave_out}
    problems.wrong("no BI-RADS category to leave out", sorted(left_out - set(CATEGORIES)))
    headers = _check_files(files, problems)
    annotations = _read_all_annotations(files, problems)
    try:
        images = read_images(files.tables, root)
    except LemlightError as error:
        problems.wrong("the table", [error])
        images = pd.DataFrame(columns=["side", "view", "image", "birads"], dtype=str)
    else:
        _check_rows(images, files, problems)
        images = images[~images["birads"].map(lambda category: bool({category, category[:1]} & left_out))]
        absent = images.loc[~images["image"].isin(list(files.images)), "image"]
        problems.incomplete("images of the table without a file", absent)
        images = images[images["image"].isin(list(headers))]
    problems.raise_any(allow_missing)
    if images.empty:
        raise LemlightError(f"no image of INbreast is left of {root}: check dataset.root and dataset.leave_out")
    return _build(images, files, headers, annotations, malignant_from)


def _check_files(files: Files, problems: Problems) -> dict[str, Header]:
    """Read the headers of all images; note files of other data sets, doubles, and what is no whole DICOM file."""
    problems.wrong("images whose names are not INbreast's", files.strange)
    problems.wrong("images that are there twice", [image for image, paths in files.images.items() if len(paths) > 1])
    headers, broken = {}, []
    for image, paths in sorted(files.images.items()):
        try:
            headers[image] = read_header(paths[0])
        except ImageError as error:
            broken.append(f"{image}: {error}")
    problems.incomplete("broken images", broken)
    return headers


def _read_all_annotations(files: Files, problems: Problems) -> dict[str, list[Region] | None]:
    """Read the regions by image, None where its XML is broken."""
    if not files.annotations:
        problems.incomplete("the annotations are missing", ["AllXML"])
    doubles = [image for image, paths in files.annotations.items() if len(paths) > 1]
    problems.wrong("annotations that are there twice", doubles)
    annotations: dict[str, list[Region] | None] = {}
    broken = []
    for image, paths in sorted(files.annotations.items()):
        try:
            annotations[image] = read_annotations(paths[0])
        except ImageError as error:
            annotations[image] = None
            broken.append(error)
    problems.incomplete("broken annotations", broken)
    return annotations


def _check_rows(images: pd.DataFrame, files: Files, problems: Problems) -> None:
    """Note rows that cannot be read, files without a row, and a table that contradicts the file names."""

    def wrong(what: str, bad: "pd.Series[bool]", column: str) -> None:
        problems.wrong(what, [f"line {line} ({value!r})" for line, value in images.loc[bad, column].items()])

    wrong("unknown BI-RADS", ~images["birads"].isin(CATEGORIES), "birads")
    wrong("unknown laterality", ~images["side"].isin(["L", "R"]), "side")
    wrong("unknown view", ~images["view"].str.fullmatch("[A-Z]+"), "view")
    wrong("File Name is no image number", ~images["image"].str.fullmatch(r"\d+"), "image")
    wrong("images that the table lists twice", images["image"].duplicated(keep=False), "image")
    listed = set(images["image"])
    problems.incomplete("images without a row in the table", sorted(set(files.images) - listed))
    problems.incomplete("annotations without a row in the table", sorted(set(files.annotations) - listed))
    contradicting = []
    for image, side, view in zip(images["image"], images["side"], images["view"], strict=True):
        name = IMAGE_NAME.fullmatch(files.images[image][0].name) if image in files.images else None
        if name and (name["side"].upper(), view_of(name["view"])) != (side, view):
            contradicting.append(image)
    if len(contradicting) > MOST_CONTRADICTIONS * len(images):
        problems.wrong("images whose side or view is another in the table than in their names", contradicting)
    elif contradicting:
        logger.warning(
            "INbreast: side or view differ in table and file name, the table's: %s", first_ten(contradicting)
        )


def _build(
    images: pd.DataFrame,
    files: Files,
    headers: dict[str, Header],
    annotations: dict[str, list[Region] | None],
    malignant_from: int,
) -> pd.DataFrame:
    paths = images["image"].map(lambda image: files.images[image][0])
    hashes = paths.map(lambda path: path.name.split("_")[1].lower())
    lesions = [
        _lesions(image, birads, headers[image], annotations)
        for image, birads in zip(images["image"], images["birads"], strict=True)
    ]
    unknown = [image for image, found in zip(images["image"], lesions, strict=True) if found is None]
    if unknown:
        logger.warning("INbreast: the lesions of %d images are unknown: %s", len(unknown), first_ten(unknown))
    table = pd.DataFrame(
        {
            "image_id": images["image"],
            "path": paths.map(str),
            "label": (images["birads"].str[0].astype(int) >= malignant_from).astype(int),
            "patient_id": patients(hashes, images["image"].map(lambda image: headers[image].patient_id)),
            "split": "",
            "laterality": images["side"],
            "view": images["view"],
            "lesions": pd.Series([found or () for found in lesions], index=images.index, dtype=object),
            "lesions_known": [found is not None for found in lesions],
        }
    )
    return check_table(table, "INbreast")


def _lesions(
    image: str, birads: str, header: Header, annotations: dict[str, list[Region] | None]
) -> tuple[Lesion, ...] | None:
    """Give the lesions of an image, None where they are unknown."""
    if image not in annotations:
        return () if birads == "1" else None
    regions = annotations[image]
    if regions is None:
        return None
    try:
        return lesions_in(regions, header.shape)
    except ImageError as error:
        logger.warning("INbreast: %s.xml: %s", image, error)
        return None


def patients(hashes: "pd.Series[str]", header_ids: "pd.Series[str]") -> "pd.Series[str]":
    """Name the patient of each image: the hash of its file name, one for hashes that a PatientID of a header joins."""
    said = header_ids.where(~header_ids.str.lower().isin(NO_PATIENT))
    sharing = hashes.groupby(said).nunique()
    total = hashes.nunique()
    said = said.where(~said.isin(sharing.index[sharing > max(2, total / 2)]))
    of_hash, names = pd.factorize(hashes, sort=True)
    of_header, ids = pd.factorize(said)
    both = of_header >= 0
    edges = (np.ones(both.sum()), (of_hash[both], len(names) + of_header[both]))
    size = len(names) + len(ids)
    _, part = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    first = pd.Series(names).groupby(part[: len(names)]).transform("first")
    if first.nunique() < len(names):
        logger.info("INbreast: the headers join %d hashes of file names in %d patients", len(names), first.nunique())
    return pd.Series(first.to_numpy()[of_hash], index=hashes.index)

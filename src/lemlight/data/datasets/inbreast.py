"""INbreast: 410 full-field digital mammograms of 115 women, with the outlines of all findings.

Layout, anywhere below root: `AllDICOMs/<image>_<hash>_MG_<L|R>_<CC|ML>_ANON.dcm`, `AllXML/<image>.xml` (only of images
with findings) and `INbreast.csv`: Laterality, View, File Name (the image's number), Bi-Rads.
Label: BI-RADS, malignant from `malignant_from` on; no pathology is known.
Patient: the hash of the file name, one patient for hashes that the PatientID of a header joins.
Lesions: polygons, or points where there are up to two; pectoral muscles are left out. An image of BI-RADS 1 without XML
is known to hold none; those of another one without XML, or with a broken one, are unknown.
Copies of another size: the XML gives none, and the release has two, FULL. Outlines are scaled from the one of the same
aspect (within 2 %), else unknown; or taken as they are where far more of them lie inside the copies than by chance.
Split: none is official.
Source: Moreira et al., INbreast: toward a full-field digital mammographic database, Academic Radiology 19, 2012,
236-248. On request, for research only.
"""

import logging
import math
import os
import plistlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lemlight.arguments import checked
from lemlight.data.datasets.common import Download, moved_inside, whole_numbers
from lemlight.data.preparing.lesions import Lesion, same_aspect
from lemlight.errors import ImageError

FULL = ((4084, 3328), (3328, 2560))  # (H, W) px of the release
NEEDED = ("Laterality", "View", "File Name", "Bi-Rads")
IMAGE_NAME = re.compile(r"(?P<image>\d+)_(?P<patient>[0-9a-f]+)_MG_(?P<side>[LR])_(?P<view>[A-Z]+)_ANON\.dcm", re.I)
OTHERS = (".dcm", ".dicom", ".pgm")  # of other data sets; PNG copies of INbreast may lie about
CATEGORIES = ("1", "2", "3", "4", "4a", "4b", "4c", "5", "6")
NO_PATIENT = {"", "removed", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none"}
MOST_CONTRADICTIONS = 0.1  # fraction of the images; above, the table is not that of these images
TYPES = {
    "mass": "mass",
    "spiculated region": "mass",
    "espiculated region": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "calcification",
    "distortion": "distortion",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",
    "": "",
    "unnamed": "",
    "point": "",  # "Point 1", "Point 3"
}
MUSCLE = "pectoral muscle"
LARGEST = 64 * 2**20  # bytes; a property list is read as a whole
BEYOND = 0.01  # of the image's side: so far may an outline be drawn over the edge by hand
NUMBER = r"\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*"
Region = tuple[str, tuple[tuple[float, float], ...]]  # name in lower case, points (x, y) in px

POINT = re.compile(rf"\({NUMBER},{NUMBER}(?:,{NUMBER})?\)")
logger = logging.getLogger(__name__)


@checked
def inbreast(
    root: str | Path,
    malignant_from: Annotated[int, Field(ge=2, le=6)] = 4,
    leave_out: Sequence[Literal[1, 2, 3, 4, 5, 6, "4a", "4b", "4c"]] = (),
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Build the image table of INbreast below `root`, without the BI-RADS categories in `leave_out`."""
    download = Download("INbreast", root, show=_without_patient)
    files = download.one_file_each(download.of_kind(OTHERS), _number)
    headers = download.headers(list(files.values()))
    annotations = _annotations(download)
    rows = _read_table(download)
    if len(rows):
        _check(rows, files, annotations, download)
    left_out = {str(category) for category in leave_out}
    wanted = ~(rows["birads"].isin(left_out) | rows["birads"].str[:1].isin(left_out))
    rows = download.with_files(rows, files, "image_id", wanted)
    images = rows[rows["path"].isin(list(headers))]
    download.check(allow_missing, images)
    hashes = images["path"].map(lambda path: os.path.basename(path).split("_")[1].lower())
    said = images["path"].map(lambda path: headers[path].patient)
    label = (images["birads"].str[0].astype(int) >= malignant_from).astype(int)
    images = images.assign(label=label, patient_id=patients(hashes, said))
    shapes = {image: headers[path].shape for image, path in zip(images["image_id"], images["path"], strict=True)}
    copies = {image: shape for image, shape in shapes.items() if shape not in FULL and annotations.get(image)}
    own = _in_own_pixels(copies, annotations)
    download.note("copies of another size, on which the outlines seem to be drawn", copies if own else ())

    def lesions(row: Any) -> tuple[Lesion, ...]:
        regions = annotations.get(row.image_id)
        if regions is not None:
            shape = shapes[row.image_id]
            return lesions_in(regions, shape, shape if own or row.image_id not in copies else _full(shape))
        if row.birads == "1" and row.image_id not in annotations:
            return ()
        raise ImageError("no annotation that can be read")

    return download.image_table(images, lesions)


def _file_name(path: str) -> re.Match[str] | None:
    return IMAGE_NAME.fullmatch(os.path.basename(path))


def _without_patient(path: str) -> str:
    return re.sub(r"_[0-9a-f]{8,}(?=_)", "_*", os.path.basename(path), flags=re.I)


def _number(path: str) -> str:
    """Give the image's number that a file is named after, "" where it is no image of INbreast."""
    name = _file_name(path)
    return name["image"] if name else ""


def _annotations(download: Download) -> dict[str, list[Region] | None]:
    """Read the regions by image from the XML files in a folder AllXML, None where one is broken."""
    files = [path for path in download.files if re.search(r"/allxml/[^/]*\.xml$", path, re.I)]
    if not files:
        download.incomplete("the annotations are missing", ["AllXML"])
    annotations: dict[str, list[Region] | None] = {}
    for image, path in download.one_file_each(files, lambda path: Path(path).stem, "annotations").items():
        try:
            annotations[image] = read_annotations(Path(path))
        except ImageError as error:
            annotations[image] = None
            download.incomplete("broken annotations", [error])
    return annotations


def _read_table(download: Download) -> pd.DataFrame:
    """Read INbreast.csv: a row for each image with image_id, laterality, view and birads; the index is the line."""
    tables = [path for path in download.files if re.search(r"/inbreast\.(csv|xlsx?)$", path, re.I)]
    rows = download.table("INbreast.csv", NEEDED, tables)
    return pd.DataFrame(
        {
            "image_id": whole_numbers(rows["File Name"].str.removesuffix(".dcm")),
            "laterality": rows["Laterality"],
            "birads": whole_numbers(rows["Bi-Rads"].str.lower()),
            "view": rows["View"].map(_view),
            "exam": rows.get("Acquisition date", ""),
            "density": rows.get("ACR", ""),
        }
    )


def _view(name: str) -> str:
    return "MLO" if name.upper() == "ML" else name.upper()  # ML stands for MLO in INbreast


def _check(images: pd.DataFrame, files: Mapping[str, str], annotated: Iterable[str], download: Download) -> None:
    """Note rows that cannot be read, files without a row, and a table that contradicts the file names."""
    download.wrong_values(images, {"birads": ~images["birads"].isin(CATEGORIES)}, "unknown BI-RADS")
    download.sides_and_views(images)
    ids = images["image_id"]
    download.wrong_values(images, {"image_id": ~ids.str.fullmatch(r"\d+")}, "File Name is no image number")
    download.wrong_values(images, {"image_id": ids.duplicated(keep=False)}, "images that the table lists twice")
    download.incomplete("annotations without a row in the table", sorted(set(annotated) - set(ids)))
    contradicting = []
    for image, side, view in zip(ids, images["laterality"], images["view"], strict=True):
        name = _file_name(files[image]) if image in files else None
        if name and (name["side"].upper(), _view(name["view"])) != (side, view):
            contradicting.append(image)
    if len(contradicting) > MOST_CONTRADICTIONS * len(images):
        download.wrong("images whose side or view is another in the table than in their names", contradicting)
    else:
        download.note(
            "images whose side or view is another in their names than in the table, which counts", contradicting
        )


def read_annotations(path: Path) -> list[Region]:
    """Read the name in lower case and the points (x, y) in px of every region but the pectoral muscle.

    Raises ImageError where the file is no property list, or not one of a single annotated image.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("larger than any annotation")
        with path.open("rb") as file:
            images = plistlib.load(file, fmt=plistlib.FMT_XML)["Images"]
        if len(images) != 1:
            raise ValueError(f"{len(images)} images")
        regions = [(_name(region), _points(region)) for region in images[0]["ROIs"]]
    except MemoryError:
        raise
    except Exception as error:  # plistlib raises whatever broken XML makes Python raise
        raise ImageError(f"{path.name} is no property list of an INbreast image ({type(error).__name__})") from error
    return [(name, points) for name, points in regions if not name.startswith(MUSCLE)]


def _in_own_pixels(copies: Mapping[str, tuple[int, int]], annotations: Mapping[str, list[Region] | None]) -> bool:
    """Whether the outlines of copies of another size were drawn on them, as far as those tell that lie inside.

    A small copy is a corner of what the release's outlines were drawn on: these lie inside with the probability of its
    part of the area, its own ones nearly always. Own ones have to be 100 times as likely.
    """
    odds = 0.0
    for image, (height, width) in copies.items():
        points = [point for _, outline in annotations[image] or () for point in outline]
        inside = all(x <= (1 + BEYOND) * width and y <= (1 + BEYOND) * height for x, y in points)
        chance = min(0.99, height * width / (FULL[0][0] * FULL[0][1]))
        odds += math.log(0.99 / chance if inside else 0.01 / (1 - chance))
    return odds > math.log(100)


def _full(shape: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) in the release of a copy of `shape`; ImageError where it has another aspect."""
    for full in FULL:
        if same_aspect(shape, full):
            return full
    raise ImageError(f"{shape[0]} x {shape[1]} px, which is neither a size of INbreast nor has the aspect of one")


def lesions_in(
    regions: list[Region], shape: tuple[int, int], size: tuple[int, int] | None = None
) -> tuple[Lesion, ...]:
    """Turn regions into lesions of an image of `shape` (H, W) px; `size` is that of what they were drawn on.

    A vertex up to 1 % of the side beyond the edge is moved onto it. Raises ImageError where a region lies farther
    outside, or has no point: the lesions of that image are not known, a part of them would pass for all.
    """
    lesions = tuple(_lesion(name, points, size or shape) for name, points in regions)
    return lesions if size in (None, shape) else tuple(replace(lesion, size=size) for lesion in lesions)


def _lesion(name: str, points: tuple[tuple[float, float], ...], shape: tuple[int, int]) -> Lesion:
    height, width = shape
    if not points:
        raise ImageError("a region without points")
    for x, y in points:
        beyond = max(-x / width, (x - width + 1) / width, -y / height, (y - height + 1) / height)
        if beyond > BEYOND:
            raise ImageError("a region outside the image")
    inside = moved_inside(points, shape)
    kind = TYPES.get(re.sub(r"^point \d+$", "point", name), "other")
    return Lesion("polygon" if len(inside) > 2 else "points", type=kind, points=inside)


def _name(region: dict[str, Any]) -> str:
    return " ".join(str(region.get("Name") or "").lower().split())


def _points(region: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    points = []
    for text in region.get("Point_px") or ():
        match = POINT.fullmatch(text.strip())
        if match is None:
            raise ValueError("a point that is no pair of numbers")
        points.append((float(match[1]), float(match[2])))
    return tuple(points)


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

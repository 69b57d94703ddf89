"""What localize leaves of single images: their rows, overlays, maps and segmentations; without torch.

The processes that write import this module: what they get are arrays.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import lemlight
from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.reading.io import FoundImage
from lemlight.errors import ImageError, LemlightError
from lemlight.files import read_plain, write_csv, write_json, written_aside
from lemlight.localization.regions import Region, regions_to_rows
from lemlight.plots.overlays import OverlayItem, overlay_figure
from lemlight.reporting.dicom_seg import write_dicom_seg

COLUMNS = (
    "image_id", "path", "probability", "prediction", "n_maxima", "n_minima", "regions", "lost_importance", "note",
    "error",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Localized:
    """What a network says of one image.

    `picture` (h, w) in [0, 1], the original made smaller; `strength` and `location_map` (H, W) as prepared; `score_map`
    of cells; `regions` in px of the original; the rest as in predictions.csv.
    """

    item: FoundImage
    picture: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None
    notes: Sequence[str]
    geometry: BreastGeometry
    strength: NDArray[np.float32]
    location_map: NDArray[np.float32]
    score_map: NDArray[np.float32]
    regions: list[Region]
    probability: float
    prediction: str
    n_maxima: int
    n_minima: int
    lost: float


@dataclass(frozen=True)
class Wanted:
    """Which files are written, into which folder; `algorithm` is named in segmentations."""

    folder: Path
    overlays: bool
    maps: bool
    dicom_seg: bool
    algorithm: str


def write_files(found: Localized | dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Write what is wanted of one image and give its row of predictions.csv; a row, of one without, is handed on."""
    if isinstance(found, dict):
        return found
    image_id, strength = found.item.image_id, found.geometry.map_to_original(found.strength)
    if wanted.maps:
        _write_maps(found, strength, wanted.folder / "maps" / f"{image_id}.npz")
    if wanted.overlays:
        picture = OverlayItem(
            image=found.picture,
            strength=strength,
            regions=found.regions,
            probability=found.probability,
            prediction=found.prediction,
            image_id=image_id,
            spacing=found.spacing_mm,
        )
        overlay_figure(picture, wanted.folder / "overlays" / f"{image_id}.png")
    error = ""
    if wanted.dicom_seg and found.item.is_dicom:
        try:
            _write_segmentation(found, wanted.folder / "segmentations" / f"{image_id}.dcm", wanted.algorithm)
        except ImageError as reason:  # the probability and the regions hold all the same
            error = f"no segmentation: {reason}"
    return {
        "image_id": image_id,
        "path": str(found.item.path),
        "probability": found.probability,
        "prediction": found.prediction,
        "n_maxima": found.n_maxima,
        "n_minima": found.n_minima,
        "regions": json.dumps(regions_to_rows(found.regions)),
        "lost_importance": found.lost,
        "note": "; ".join(found.notes),
        "error": error,
    }


def write_row(row: Mapping[str, Any], path: Path) -> None:
    """Add the row of an image to predictions.csv, so that it is there whatever the next image brings.

    Bytes of a file's name that are no UTF-8 are written as `\\udcfc`. Raises LemlightError where it cannot be written.
    """
    table = pd.DataFrame([row], columns=list(COLUMNS))
    try:
        table.to_csv(path, mode="a", header=not path.exists(), index=False, errors="backslashreplace")
    except OSError as error:
        why = error.strerror or error
        raise LemlightError(f"cannot write {path}: {why}; check that folder and the room on its disk") from error


def start_rows(path: Path, settings: Mapping[str, Any], paths: Sequence[Path], resume: bool) -> set[Path]:
    """Begin predictions.csv, or with `resume` keep the rows of an earlier run that have no error; which of `paths`.

    Raises:
        LemlightError: that run had other settings, or what it left is damaged.
    """
    beside = path.with_name("localize.json")
    plain = json.loads(json.dumps(settings))
    kept = pd.DataFrame()
    if resume and path.is_file() and path.stat().st_size and beside.is_file():  # a kill may leave it empty
        try:
            before = read_plain(beside)
            changed = [name for name in plain if before.get(name) != plain[name]]
            rows = pd.read_csv(path, dtype=str, keep_default_na=False, on_bad_lines="skip")  # or cut the last row
            whole = rows[rows["error"].eq("") & rows["path"].isin([_written(one) for one in paths])]
        except (ValueError, KeyError, AttributeError) as error:
            raise LemlightError(f"{path} or {beside.name} is damaged: leave out resume=true to begin anew") from error
        if changed:
            raise LemlightError(
                f"{path} was written with other settings ({', '.join(changed)}): give the same ones or another output, "
                "or leave out resume=true to begin anew"
            )
        kept = whole.drop_duplicates("path")
    path.unlink(missing_ok=True) if kept.empty else write_csv(kept, path)
    write_json(plain, beside)
    done = set() if kept.empty else set(kept["path"])
    return {one for one in paths if _written(one) in done}


def sort_rows(path: Path, paths: Sequence[Path]) -> None:
    """Bring the rows into the order of the images, after an earlier run's were kept."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    order = {_written(one): place for place, one in enumerate(paths)}
    write_csv(rows.iloc[rows["path"].map(order).argsort(kind="stable")], path)


def _written(path: Path) -> str:
    """A path as it stands in predictions.csv."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _write_segmentation(found: Localized, path: Path, algorithm: str) -> None:
    """Write the regions that speak for malignancy, numbered as in predictions.csv: the others are no lesions."""
    suspicious = {number: region for number, region in enumerate(found.regions, start=1) if region.score is not None}
    if not suspicious:
        return
    write_dicom_seg(
        found.item.path,
        np.stack([found.geometry.mask_to_original(region.mask) for region in suspicious.values()]),
        [f"Region {number}" for number in suspicious],
        path,
        algorithm=algorithm,
        version=lemlight.__version__,
        scores=[region.score for region in suspicious.values() if region.score is not None],
    )


def _write_maps(found: Localized, strength: NDArray[np.float32], path: Path) -> None:
    """Keep the location map as it came from the network and as it lies on the original, with the way between them."""
    half = np.zeros(strength.shape, dtype=np.float16)
    x, y, width, height = cv2.boundingRect((strength > 0).astype(np.uint8))  # numpy makes halves slowly
    half[y : y + height, x : x + width] = strength[y : y + height, x : x + width]
    arrays: dict[str, NDArray[Any]] = {
        "location_map": found.location_map,  # (H, W) as prepared, sums to the extrema
        "strength": half,  # original px, [0, 1]
        "score_map": found.score_map,
        "geometry": np.array(json.dumps(found.geometry.to_dict())),
    }
    write_arrays(path, arrays)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an npz; maps are mostly 0, of which the fastest level makes nearly as little as numpy's does."""
    with written_aside(path) as aside, ZipFile(aside, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

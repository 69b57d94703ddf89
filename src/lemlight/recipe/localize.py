"""The localization recipe: a checkpoint or its export, and images from anywhere -> probabilities, maps, pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import lemlight
from lemlight.config.commands import LocalizeConfig
from lemlight.data.io import FoundImage, find_images
from lemlight.errors import ImageError, LemlightError
from lemlight.files import written_aside
from lemlight.localization.predictor import Reader, Reading, build_exported_reader, build_reader, read_mammogram
from lemlight.localization.regions import regions_to_rows
from lemlight.models.exported import is_exported
from lemlight.plots.overlays import OverlayItem, overlay_figure
from lemlight.reporting.dicom_seg import check_highdicom, write_dicom_seg

COLUMNS = ("image_id", "path", "probability", "call", "n_maxima", "n_minima", "regions", "lost_importance", "error")


def localize(config: LocalizeConfig) -> pd.DataFrame:
    """Localize in every image of `config.input`, write the run folder, and return what predictions.csv holds.

    An image that cannot be read is a row with its error, and does not stop the rest.

    Raises:
        LemlightError: a checkpoint that cannot be used, no image at all, or none that can be read.
    """
    if config.dicom_seg:
        check_highdicom()
    exported = is_exported(Path(config.checkpoint))
    reader = build_exported_reader(config) if exported else build_reader(config)
    found = find_images(Path(config.input))
    folder = Path(config.output)
    rows = []
    for item in tqdm(found, "localizing", unit="image"):
        try:
            rows.append(_row(item, reader, config, folder))
        except ImageError as error:
            rows.append({"image_id": item.image_id, "path": str(item.path), "error": str(error)})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    with written_aside(folder / "predictions.csv") as aside:
        table.to_csv(aside, index=False)
    _report(table, folder)
    return table


def _row(item: FoundImage, reader: Reader, config: LocalizeConfig, folder: Path) -> dict[str, Any]:
    reading = read_mammogram(item.path, reader)
    call = reader.label_names[int(reading.probability > reader.maps.threshold)]
    if config.maps:
        _write_maps(reading, folder / "maps" / f"{item.image_id}.npz")
    if config.overlays:
        picture = OverlayItem(
            image=reading.image.pixels,
            strength=reading.geometry.map_to_original(reading.strength),
            regions=reading.regions,
            probability=reading.probability,
            call=call,
            image_id=item.image_id,
            spacing=reading.image.spacing_mm,
        )
        overlay_figure(picture, folder / "overlays" / f"{item.image_id}.png")
    error = ""
    if config.dicom_seg and reading.regions and item.is_dicom:
        try:
            _write_segmentation(reading, item, reader, folder / "segmentations" / f"{item.image_id}.dcm")
        except ImageError as reason:  # the probability and the regions hold all the same
            error = f"no segmentation: {reason}"
    return {
        "image_id": item.image_id,
        "path": str(item.path),
        "probability": reading.probability,
        "call": call,
        "n_maxima": int(reading.explanation.maxima.sum()),
        "n_minima": int(reading.explanation.minima.sum()),
        "regions": json.dumps(regions_to_rows(reading.regions)),
        "lost_importance": float(reading.explanation.lost[0]),
        "error": error,
    }


def _write_segmentation(reading: Reading, item: FoundImage, reader: Reader, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom_seg(
        item.path,
        np.stack([reading.geometry.mask_to_original(region.mask) for region in reading.regions]),
        [f"Region {number}" for number in range(1, len(reading.regions) + 1)],
        path,
        algorithm=f"lemlight {reader.maps.method}",
        version=lemlight.__version__,
        scores=[region.score for region in reading.regions],
    )


def _write_maps(reading: Reading, path: Path) -> None:
    """Keep the location map as it came from the network and as it lies on the original, with the way between them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "location_map": reading.explanation.maps[0].cpu().numpy(),  # (H, W) of the prepared image, sums to the extrema
        "strength": reading.geometry.map_to_original(reading.strength).astype(np.float16),  # original px, in [0, 1]
        "score_map": reading.explanation.score_map[0].cpu().numpy(),
        "geometry": np.array(json.dumps(reading.geometry.to_dict())),
    }
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stub takes every name for allow_pickle


def _report(table: pd.DataFrame, folder: Path) -> None:
    """Say what came out and where it lies; LemlightError where no image could be read."""
    failed = table[table["error"] != ""]
    for row in failed.itertuples():
        print(f"left out: {row.error}")
    if len(failed) == len(table):
        raise LemlightError(f"none of the {len(table)} images could be read: see {folder / 'predictions.csv'}")
    print(f"{len(table) - len(failed)} of {len(table)} images read; research only, not for clinical use")
    print(f"probabilities and regions: {folder / 'predictions.csv'}")
    for name in ("overlays", "maps", "segmentations"):
        if (folder / name).is_dir():
            print(f"{name + ':':<26} {folder / name}")

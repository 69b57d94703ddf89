"""What localization leaves in a run folder: figures and tables of a split, examples, and files for single images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import lemlight
from lemlight.data.geometry import BreastGeometry
from lemlight.data.io import FoundImage
from lemlight.errors import ImageError, LemlightError
from lemlight.files import write_csv, written_aside
from lemlight.localization.attribution import regions_of
from lemlight.localization.choice import Chosen, RegionSettings, settings_of
from lemlight.localization.evaluation import Localizing, Survey, locate, survey
from lemlight.localization.pooled import tried_path, write_tried
from lemlight.localization.predictor import Prediction, Predictor
from lemlight.localization.regions import cutoff_in, regions_to_rows
from lemlight.metrics.location_maps import FIGURES
from lemlight.models.lem import local_extrema
from lemlight.plots.curves import froc_figure
from lemlight.plots.overlays import OverlayItem, choose_overlays, overlay_figure, overlay_sheet, type_of
from lemlight.plots.style import CLASS_NAMES
from lemlight.reporting.dicom_seg import write_dicom_seg
from lemlight.reporting.runs import FOLDER, LIST
from lemlight.settings import LocalizeSettings

MALIGNANT, BENIGN = 4, 2  # examples of each class
SEED = 0  # of the draw: the same test images give the same examples in every run
COLUMNS = (
    "image_id",
    "path",
    "probability",
    "prediction",
    "n_maxima",
    "n_minima",
    "regions",
    "lost_importance",
    "note",
    "error",
)


def choose_settings(place: Localizing, folder: Path | None, split: str = "val") -> dict[str, Chosen]:
    """Choose keep, smoothing and cutoff of every method by the mean Dice on a split; nothing without lesions there.

    Every process of a training must call it; in a folder it leaves what was tried, see `lemlight.localization.pooled`.
    """
    ids = place.with_a_lesion(split)
    if not ids:
        return {}
    chosen = {}
    surveys = {method: survey(place, method, ids) for method in place.settings.names}
    if folder is not None:
        write_tried({method: found.tried for method, found in surveys.items()}, tried_path(folder, split))
    for method, found in surveys.items():
        settings, dice = found.best()
        if found.is_shown():
            chosen[method] = Chosen(**settings.model_dump(), dsc=dice, images=len(ids), split=split)
    return chosen


def measure_localization(
    place: Localizing, chosen: Mapping[str, Chosen], split: str, folder: Path | None, resamples: int
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Measure every method on a split; write localization.csv, localization_images.csv, what was tried, FROC, overlays.

    Returns what goes into metrics.json, and the pictures by name.

    `chosen` are the settings of the validation split; the oracle, the best on these very images, stands beside them.
    Every process of a training must call it; without a folder it helps measuring and has no results.
    """
    with_lesion = place.with_a_lesion(split)
    ids = with_lesion + [image_id for image_id in place.known(split) if image_id not in set(with_lesion)]
    settings = {
        method: settings_of(method, chosen, place.settings.given, place.output_stride, place.settings.cutoff_by)
        for method in place.settings.names
    }
    surveys = {method: survey(place, method, ids, settings[method]) for method in place.settings.names}
    if folder is None:
        return {}, {}
    sections = {
        method: {
            "method": method,
            **settings[method].model_dump(),
            "chosen_on": _source(method, chosen, place.settings.given),
            **_summary(surveys[method], resamples),
        }
        for method in place.settings.names
    }
    first = place.settings.method
    figures = _figures(place, surveys[first], settings[first], sections[first], folder / "figures")
    write_examples(place, settings[first], split, folder)
    if ids:
        write_csv(localization_table(sections), folder / "localization.csv")
        per_image = [one.meter.per_image().assign(method=method) for method, one in surveys.items()]
        write_csv(pd.concat(per_image), folder / "localization_images.csv")
        write_tried({method: found.tried for method, found in surveys.items()}, tried_path(folder, split))
    top = {name: sections[first][name] for name in (*FIGURES, "froc")}
    rest = {name: value for name, value in sections[first].items() if name not in top}
    others = {method: section for method, section in sections.items() if method != first}
    return {**top, "localization": rest, "localization_compared": others}, figures


def localization_table(sections: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row per method: its settings, and each figure with the bounds of its 95 % interval."""
    rows = []
    for method, section in sections.items():
        row: dict[str, Any] = {"method": method}
        row |= {
            name: section[name]
            for name in ("keep", "smoothing", "cutoff", "cutoff_by", "chosen_on", "images", "lesions")
        }
        for name, figure in [*((name, section[name]) for name in FIGURES), ("froc", section["froc"]["mean"])]:
            row |= {name: figure["value"], f"{name}_low": figure.get("low"), f"{name}_high": figure.get("high")}
        row["dsc_oracle"] = section.get("oracle", {}).get("dsc")
        rows.append(row)
    return pd.DataFrame(rows)


def _summary(found: Survey, resamples: int) -> dict[str, Any]:
    summary = found.meter.summary(resamples=resamples)
    if summary["images_with_lesion"]:
        best, dice = found.best()
        summary["oracle"] = {**best.model_dump(), "dsc": dice, "what": "the best settings for these very images"}
    return summary


def _source(method: str, chosen: Mapping[str, Chosen], given: Mapping[str, float | None]) -> str:
    """Where the settings come from: given, a split, or the defaults, joined where it is several."""
    sources = ["given"] if any(value is not None for value in given.values()) else []
    if any(value is None for value in given.values()):
        sources.append(f"{chosen[method].split} split" if method in chosen else "defaults")
    return " and ".join(sources)


def _figures(
    place: Localizing, found: Survey, settings: RegionSettings, section: Mapping[str, Any], folder: Path
) -> dict[str, Path]:
    if not section["images_with_lesion"]:
        return {}
    folder.mkdir(exist_ok=True)
    images, store = found.meter.per_image(), place.store
    images["type"] = [type_of(store.lesion_types(store.index_of(image_id))) for image_id in images["image_id"]]
    titles = choose_overlays(images)
    items = _items(place, settings, list(titles))
    sheet = overlay_sheet([items[image_id] for image_id in titles], folder / "overlays.png", list(titles.values()))
    return {"overlays": sheet, "froc": froc_figure(section["froc"], folder / "froc.png")}


def _items(place: Localizing, settings: RegionSettings, image_ids: list[str]) -> dict[str, OverlayItem]:
    """The overlays of some images, drawn on the prepared image: the original is not read again."""
    items = {}
    for one in locate(place, image_ids, settings):
        mask, shape = place.lesions(one.image_id), one.strength.shape
        unchanged = BreastGeometry(shape, False, (0, 0, *shape), (1.0, 1.0), shape)
        items[one.image_id] = OverlayItem(
            image=place.store.image(place.store.index_of(one.image_id)).astype(np.float32) / np.float32(65535),
            strength=one.strength,
            regions=regions_of(
                one.explanation, one.number, one.strength, cutoff_in(one.strength, settings), unchanged, None
            ),
            probability=one.probability,
            prediction=CLASS_NAMES[int(one.explanation.malignant[one.number])],
            image_id="",
            spacing=None,
            lesions=None if mask is None else mask > 0,
        )
    return items


def write_examples(place: Localizing, settings: RegionSettings, split: str, folder: Path) -> None:
    """Write examples/ into the run folder: image, location map and lesions of a few images of a split, as grey PNG.

    Beside them the score map with its extrema, as npz. Which images does not depend on the network. The files are
    named by number; examples.csv says which images they are, with probability, prediction and cutoff.
    """
    table = place.table
    rows, folder, lines = draw_examples(table[table["split"] == split]), folder / FOLDER, []
    for number, one in enumerate(locate(place, rows["image_id"].tolist(), settings), start=1):
        image, lesions = place.store.image(place.store.index_of(one.image_id)), place.lesions(one.image_id)
        _write_png(np.asarray(image >> 8), folder / f"{number}_image.png")
        _write_png(np.round(one.strength * 255), folder / f"{number}_map.png")
        if lesions is not None:
            _write_png((lesions > 0) * 255, folder / f"{number}_lesions.png")
        score_map = one.explanation.score_map[one.number].cpu()
        valid = None if one.explanation.valid is None else one.explanation.valid[one.number][None].cpu()
        maxima, minima = (kind[0].numpy() for kind in local_extrema(score_map[None], place.classifier.ties, valid))
        scores = {"score_map": score_map.numpy(), "maxima": maxima, "minima": minima}
        _write_arrays(folder / f"{number}_scores.npz", scores)
        prediction = CLASS_NAMES[int(one.probability > place.threshold)]
        lines.append((number, one.image_id, one.probability, prediction, cutoff_in(one.strength, settings)))
    if lines:
        columns = ["number", "image_id", "probability", "prediction", "cutoff"]
        write_csv(pd.DataFrame(lines, columns=columns), folder / LIST)


def draw_examples(rows: pd.DataFrame) -> pd.DataFrame:
    """Draw up to four malignant and two benign images of an image table, of as many patients as possible."""
    shuffled = rows.sort_values("image_id").sample(frac=1, random_state=SEED)
    order = shuffled.groupby("patient_id").cumcount().sort_values(kind="stable").index
    apart = shuffled.loc[order]
    return pd.concat([apart[apart["label"] == 1][:MALIGNANT], apart[apart["label"] == 0][:BENIGN]])


def write_prediction(
    prediction: Prediction, item: FoundImage, predictor: Predictor, config: LocalizeSettings, folder: Path
) -> dict[str, Any]:
    """Write map, overlay and segmentation of one image, as far as they are wanted; its row of predictions.csv."""
    explanation = prediction.explanation
    if config.maps:
        _write_maps(prediction, folder / "maps" / f"{item.image_id}.npz")
    if config.overlays:
        overlay_figure(prediction.overlay(item.image_id), folder / "overlays" / f"{item.image_id}.png")
    error = ""
    if config.dicom_seg and item.is_dicom:
        try:
            _write_segmentation(prediction, item, predictor, folder / "segmentations" / f"{item.image_id}.dcm")
        except ImageError as reason:  # the probability and the regions hold all the same
            error = f"no segmentation: {reason}"
    return {
        "image_id": item.image_id,
        "path": str(item.path),
        "probability": prediction.probability,
        "prediction": prediction.label,
        "n_maxima": int(explanation.maxima.sum()),
        "n_minima": int(explanation.minima.sum()),
        "regions": json.dumps(regions_to_rows(prediction.regions)),
        "lost_importance": float(explanation.lost[0]),
        "note": "; ".join(prediction.image.notes),
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


def _write_segmentation(prediction: Prediction, item: FoundImage, predictor: Predictor, path: Path) -> None:
    """Write the regions that speak for malignancy, numbered as in predictions.csv: the others are no lesions."""
    suspicious = {
        number: region for number, region in enumerate(prediction.regions, start=1) if region.score is not None
    }
    if not suspicious:
        return
    write_dicom_seg(
        item.path,
        np.stack([prediction.geometry.mask_to_original(region.mask) for region in suspicious.values()]),
        [f"Region {number}" for number in suspicious],
        path,
        algorithm=f"lemlight {predictor.method}",
        version=lemlight.__version__,
        scores=[region.score for region in suspicious.values() if region.score is not None],
    )


def _write_maps(prediction: Prediction, path: Path) -> None:
    """Keep the location map as it came from the network and as it lies on the original, with the way between them."""
    arrays = {
        "location_map": prediction.explanation.maps[0].cpu().numpy(),  # (H, W) as prepared, sums to the extrema
        # original px, [0, 1]; numpy's astype takes ten times as long
        "strength": torch.from_numpy(prediction.location_map).half().numpy(),
        "score_map": prediction.explanation.score_map[0].cpu().numpy(),
        "geometry": np.array(json.dumps(prediction.geometry.to_dict())),
    }
    _write_arrays(path, arrays)


def _write_png(pixels: NDArray[np.generic], path: Path) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an npz; maps are mostly 0, of which the fastest level makes nearly as little as numpy's does."""
    with written_aside(path) as aside, ZipFile(aside, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

"""What localization leaves in a run folder: figures and tables of a split, examples, and files for single images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import lemlight
from lemlight.config.commands import LocalizeConfig
from lemlight.data.geometry import BreastGeometry
from lemlight.data.io import FoundImage
from lemlight.errors import ImageError
from lemlight.files import written_aside
from lemlight.localization.evaluation import (
    Chosen,
    Localizing,
    RegionSettings,
    images_with_a_lesion,
    images_with_known_lesions,
    locate,
    settings_of,
    survey,
)
from lemlight.localization.predictor import Prediction, Predictor
from lemlight.localization.regions import find_regions, regions_to_rows
from lemlight.metrics.localization import LocalizationMeter
from lemlight.models.lem import local_extrema
from lemlight.plots.curves import froc_figure
from lemlight.plots.overlays import OverlayItem, choose_overlays, overlay_figure, overlay_sheet, type_of
from lemlight.reporting.dicom_seg import write_dicom_seg
from lemlight.reporting.runs import FOLDER, LIST

MALIGNANT, BENIGN = 4, 2
SEED = 0  # of the draw: the same test images give the same examples in every training


def write_examples(place: Localizing, settings: RegionSettings, split: str, folder: Path) -> None:
    """Write examples/ into the run folder: image, location map and lesions of a few images of a split, as grey PNG.

    Beside them the score map with its extrema, as npz. Which images does not depend on the network. The files are
    named by number; examples.csv says which images they are, with probability, call and cut-off.
    """
    table = place.prepared.table
    rows = draw_examples(table[table["split"] == split])
    store, lines = place.prepared.store, []
    for number, (image_id, probability, strength, score_map) in enumerate(
        locate(place, place.config.method, rows["image_id"].tolist(), settings), start=1
    ):
        position = store.index_of(image_id)
        lesions = store.mask(position)
        _write(np.asarray(store.image(position) >> 8), folder / FOLDER / f"{number}_image.png")
        _write(np.round(strength * 255), folder / FOLDER / f"{number}_map.png")
        maxima, minima = (kind[0].numpy() for kind in local_extrema(score_map[None], place.classifier.pooling.ties))
        with written_aside(folder / FOLDER / f"{number}_scores.npz") as aside, aside.open("wb") as file:
            np.savez_compressed(file, score_map=score_map.numpy(), maxima=maxima, minima=minima)
        if lesions is not None:
            _write((lesions > 0) * 255, folder / FOLDER / f"{number}_lesions.png")
        lines.append((number, image_id, probability, probability > place.threshold, settings.cutoff))
    columns = ["number", "image_id", "probability", "called_malignant", "cutoff"]
    if lines:
        with written_aside(folder / FOLDER / LIST) as aside:
            pd.DataFrame(lines, columns=columns).to_csv(aside, index=False)


def draw_examples(rows: pd.DataFrame) -> pd.DataFrame:
    """Draw up to four malignant and two benign images of an image table, of as many patients as possible."""
    shuffled = rows.sort_values("image_id").sample(frac=1, random_state=SEED)
    order = shuffled.groupby("patient_id").cumcount().sort_values(kind="stable").index
    apart = shuffled.loc[order]
    return pd.concat([apart[apart["label"] == 1][:MALIGNANT], apart[apart["label"] == 0][:BENIGN]])


def _write(pixels: NDArray[np.generic], path: Path) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())


FIGURES = ("dsc", "dsc_pooled", "pixel_recall", "lesion_recall", "pxap", "max_box_acc_v2", "pointing")


@dataclass(frozen=True)
class LocalizationResults:
    """`summary` goes into metrics.json, `figures` are pictures by name."""

    summary: dict[str, Any]
    figures: dict[str, Path]


def choose_settings(place: Localizing, split: str = "val") -> dict[str, Chosen]:
    """Choose keep, smoothing and cut-off of every method by the mean Dice on a split; nothing without lesions there."""
    ids = images_with_a_lesion(place.prepared, split)
    if not ids:
        return {}
    chosen = {}
    for method in place.config.methods:
        settings, dice = survey(place, method, ids).best()
        chosen[method] = Chosen(**settings.to_dict(), dsc=dice, images=len(ids), split=split)
    return chosen


def measure_localization(
    place: Localizing, chosen: Mapping[str, Chosen], split: str, folder: Path, resamples: int
) -> LocalizationResults:
    """Measure every method on a split; write localization.csv and localization_images.csv, FROC and overlays.

    `chosen` are the settings of the validation split; the oracle, the best on these very images, stands beside them.
    """
    with_lesion = images_with_a_lesion(place.prepared, split)
    known = images_with_known_lesions(place.prepared, split)
    ids = with_lesion + [image_id for image_id in known if image_id not in set(with_lesion)]
    sections, per_image = {}, []
    for method in place.config.methods:
        settings = settings_of(method, chosen, place.given, place.output_stride)
        result = survey(place, method, ids, settings)
        section = {"method": method, **settings.to_dict(), "chosen_on": _source(method, chosen, place.given)}
        section |= result.meter.summary(resamples=resamples)
        if section["images_with_lesion"]:
            best, dice = result.best()
            section["oracle"] = {**best.to_dict(), "dsc": dice, "what": "the best settings for these very images"}
        sections[method] = section
        per_image.append(result.meter.per_image().assign(method=method))
        if method == place.config.method:
            figures = _figures(place, result.meter, settings, section, folder / "figures")
            write_examples(place, settings, split, folder)
    if ids:
        _write_localization_results(localization_table(sections), folder / "localization.csv")
        _write_localization_results(pd.concat(per_image), folder / "localization_images.csv")
    first = sections[place.config.method]
    top = {name: first[name] for name in (*FIGURES, "froc")}
    rest = {name: value for name, value in first.items() if name not in top}
    others = {method: section for method, section in sections.items() if method != place.config.method}
    return LocalizationResults({**top, "localization": rest, "localization_compared": others}, figures)


def localization_table(sections: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row per method: its settings, and each figure with the bounds of its 95 % interval."""
    rows = []
    for method, section in sections.items():
        row: dict[str, Any] = {"method": method}
        row |= {name: section[name] for name in ("keep", "smoothing", "cutoff", "chosen_on", "images", "lesions")}
        for name in FIGURES:
            row |= {name: section[name]["value"], f"{name}_low": section[name].get("low")}
            row[f"{name}_high"] = section[name].get("high")
        mean = section["froc"]["mean"]
        row |= {"froc": mean["value"], "froc_low": mean.get("low"), "froc_high": mean.get("high")}
        row["dsc_oracle"] = section.get("oracle", {}).get("dsc")
        rows.append(row)
    return pd.DataFrame(rows)


def _write_localization_results(table: pd.DataFrame, path: Path) -> None:
    with written_aside(path) as aside:
        table.to_csv(aside, index=False)


def _source(method: str, chosen: Mapping[str, Chosen], given: Mapping[str, float | None]) -> str:
    """Where the settings come from: given, a split, or the defaults, joined where it is several."""
    sources = ["given"] if any(value is not None for value in given.values()) else []
    if any(value is None for value in given.values()):
        sources.append(f"{chosen[method].split} split" if method in chosen else "defaults")
    return " and ".join(sources)


def _figures(
    place: Localizing, meter: LocalizationMeter, settings: RegionSettings, section: Mapping[str, Any], folder: Path
) -> dict[str, Path]:
    if not section["images_with_lesion"]:
        return {}
    folder.mkdir(exist_ok=True)
    images, store = meter.per_image(), place.prepared.store
    images["type"] = [type_of(store.lesion_types(store.index_of(image_id))) for image_id in images["image_id"]]
    titles = choose_overlays(images)
    items = _items(place, settings, list(titles))
    sheet = overlay_sheet([items[image_id] for image_id in titles], folder / "overlays.png", list(titles.values()))
    return {"overlays": sheet, "froc": froc_figure(section["froc"], folder / "froc.png")}


def _items(place: Localizing, settings: RegionSettings, image_ids: list[str]) -> dict[str, OverlayItem]:
    """The overlays of some images, drawn on the prepared image: the original is not read again."""
    store = place.prepared.store
    items = {}
    for image_id, probability, strength, _ in locate(place, place.config.method, image_ids, settings):
        position = store.index_of(image_id)
        mask = store.mask(position)
        geometry = _unchanged(strength.shape)
        confidence = max(probability, 1 - probability)
        items[image_id] = OverlayItem(
            image=store.image(position).astype(np.float32) / np.float32(65535),
            strength=strength,
            regions=find_regions(
                strength, settings.cutoff, geometry, spacing=None, confidence=confidence, extrema=np.zeros((0, 2))
            ),
            probability=probability,
            call="malignant" if probability > place.threshold else "benign",
            image_id="",
            spacing=None,
            lesions=None if mask is None else mask > 0,
        )
    return items


def _unchanged(shape: tuple[int, int]) -> BreastGeometry:
    """The geometry of a prepared image onto itself."""
    return BreastGeometry(shape, False, (0, 0, *shape), (1.0, 1.0), shape)


COLUMNS = ("image_id", "path", "probability", "call", "n_maxima", "n_minima", "regions", "lost_importance", "error")


def write_prediction(
    prediction: Prediction, item: FoundImage, predictor: Predictor, config: LocalizeConfig, folder: Path
) -> dict[str, Any]:
    """Write map, overlay and segmentation of one image, as far as they are wanted; its row of predictions.csv."""
    predicted = predictor.label_names[int(prediction.probability > predictor.maps.threshold)]
    if config.maps:
        _write_maps(prediction, folder / "maps" / f"{item.image_id}.npz")
    if config.overlays:
        picture = OverlayItem(
            image=prediction.image.pixels,
            strength=prediction.geometry.map_to_original(prediction.strength),
            regions=prediction.regions,
            probability=prediction.probability,
            call=predicted,
            image_id=item.image_id,
            spacing=prediction.image.spacing_mm,
        )
        overlay_figure(picture, folder / "overlays" / f"{item.image_id}.png")
    error = ""
    if config.dicom_seg and prediction.regions and item.is_dicom:
        try:
            _write_segmentation(prediction, item, predictor, folder / "segmentations" / f"{item.image_id}.dcm")
        except ImageError as reason:  # the probability and the regions hold all the same
            error = f"no segmentation: {reason}"
    return {
        "image_id": item.image_id,
        "path": str(item.path),
        "probability": prediction.probability,
        "call": predicted,
        "n_maxima": int(prediction.explanation.maxima.sum()),
        "n_minima": int(prediction.explanation.minima.sum()),
        "regions": json.dumps(regions_to_rows(prediction.regions)),
        "lost_importance": float(prediction.explanation.lost[0]),
        "error": error,
    }


def write_predictions(rows: Sequence[Mapping[str, Any]], path: Path) -> pd.DataFrame:
    """Write predictions.csv, a row per image, and return it."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    _write_localization_results(table, path)
    return table


def _write_segmentation(prediction: Prediction, item: FoundImage, predictor: Predictor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom_seg(
        item.path,
        np.stack([prediction.geometry.mask_to_original(region.mask) for region in prediction.regions]),
        [f"Region {number}" for number in range(1, len(prediction.regions) + 1)],
        path,
        algorithm=f"lemlight {predictor.maps.method}",
        version=lemlight.__version__,
        scores=[region.score for region in prediction.regions],
    )


def _write_maps(prediction: Prediction, path: Path) -> None:
    """Keep the location map as it came from the network and as it lies on the original, with the way between them."""
    arrays = {
        "location_map": prediction.explanation.maps[0].cpu().numpy(),  # (H, W) as prepared, sums to the extrema
        "strength": prediction.geometry.map_to_original(prediction.strength).astype(np.float16),  # original px, [0, 1]
        "score_map": prediction.explanation.score_map[0].cpu().numpy(),
        "geometry": np.array(json.dumps(prediction.geometry.to_dict())),
    }
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stub takes every name for allow_pickle

"""What a tested network leaves about its localization: figures for metrics.json, tables, a sheet of overlays."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lemlight.data.geometry import BreastGeometry
from lemlight.files import written_aside
from lemlight.localization.regions import find_regions
from lemlight.metrics.localization import LocalizationMeter
from lemlight.recipe.examples import write_examples
from lemlight.recipe.localization import Localizing, images_with_a_lesion, images_with_known_lesions, locate, survey
from lemlight.recipe.region_settings import Chosen, RegionSettings, settings_of
from lemlight.reporting.figures.froc import froc_figure
from lemlight.reporting.figures.overlay import OverlayItem, overlay_sheet
from lemlight.reporting.figures.overlay_choice import choose_overlays, type_of

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
        _write(localization_table(sections), folder / "localization.csv")
        _write(pd.concat(per_image), folder / "localization_images.csv")
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


def _write(table: pd.DataFrame, path: Path) -> None:
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

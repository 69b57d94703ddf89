"""What localization leaves in a run folder: figures and tables of a split, and examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.files import write_csv, written_aside
from lemlight.localization.attribution import regions_of
from lemlight.localization.choice import Chosen, RegionSettings, settings_of
from lemlight.localization.evaluation import Localizing, Survey, locate, survey
from lemlight.localization.faithfulness import measure_faithfulness
from lemlight.localization.pooled import tried_path, write_tried
from lemlight.localization.regions import cutoff_in
from lemlight.metrics import FAITHFULNESS_NAMES
from lemlight.metrics.location_maps import FIGURES
from lemlight.models.lem import local_extrema
from lemlight.plots.curves import froc_figure
from lemlight.plots.overlays import OverlayItem, choose_overlays, overlay_sheet, type_of
from lemlight.plots.style import CLASS_NAMES
from lemlight.reporting.comparison.runs import FOLDER, LIST
from lemlight.reporting.prediction_files import write_arrays
from lemlight.text import in_columns

MALIGNANT, BENIGN = 4, 2  # examples of each class
SEED = 0  # of the draw: the same test images give the same examples in every run


def choose_settings(place: Localizing, folder: Path | None, split: str = "val") -> dict[str, Chosen]:
    """Choose keep, smoothing and cutoff of every method by the mean Dice on a split; nothing without lesions there.

    Every process of a training must call it; in a folder it leaves what was tried, see `lemlight.localization.pooled`.
    """
    ids = place.with_a_lesion(split)
    if not ids:
        return {}
    chosen = {}
    surveys = survey(place, place.settings.names, ids)
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
    surveys = survey(place, place.settings.names, ids, settings)
    asked = with_lesion or [str(image_id) for image_id in place.table.loc[place.table["split"] == split, "image_id"]]
    faithful = {
        method: {"faithfulness": measure_faithfulness(place, method, settings[method], asked, resamples)}
        for method in place.settings.names
        if place.settings.faithfulness and asked
    }
    if folder is None:
        return {}, {}
    sections = {
        method: {
            "method": method,
            **settings[method].model_dump(),
            "chosen_on": _source(method, chosen, place.settings.given),
            **_summary(surveys[method], resamples),
            **faithful.get(method, {}),
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
            row |= in_columns(name, figure)
        row["dsc_oracle"] = section.get("oracle", {}).get("dsc")
        for name in FAITHFULNESS_NAMES if "faithfulness" in section else ():
            row |= in_columns(name, section["faithfulness"][name])
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
        write_arrays(folder / f"{number}_scores.npz", scores)
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


def _write_png(pixels: NDArray[np.generic], path: Path) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())

"""The page that compares the methods of some runs: one file that asks for nothing, and names no patient and no file."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from lemlight.files import read_arrays
from lemlight.metrics import LOCALIZATION_NAMES, METRIC_NAMES, Level
from lemlight.metrics.comparison import Comparison
from lemlight.plots.overlays import HEAT
from lemlight.plots.panels import curve_panels, forest_plot, reliability_panels, score_map_panels, training_overlay
from lemlight.plots.sheets import SheetItem
from lemlight.plots.style import CLASS_NAMES, SKY
from lemlight.reporting.comparison.methods import ABSENT, CLASS, ComparedRuns, differing_keys, method_settings
from lemlight.reporting.comparison.runs import FOLDER, TrainingRun
from lemlight.reporting.comparison.tables import COLUMNS, POOLED_NAMES, cells, metrics_of, pooled_rows
from lemlight.reporting.page import TEMPLATES, base64_of, public_command, write_page
from lemlight.sweeps.names import WITHOUT_EFFECT
from lemlight.text import heading
from lemlight.training.trainer import versions

QUESTION = "Which method tells malignant from benign mammograms better, and which finds the lesions better?"


def plotted(compared: ComparedRuns) -> dict[str, Comparison]:
    """Return the comparison that answers for AUC, that of the primary level, and the one for Dice, that of images."""
    levels = {"auroc": compared.primary, "dsc": "image"}
    return {metric: compared.levels[level] for metric, level in levels.items() if level in compared.levels}


def shown_differences(compared: ComparedRuns) -> list[str]:
    """Return a sentence for each difference in AUC and in Dice that is shown, the largest first."""
    sentences = []
    for metric, comparison in plotted(compared).items():
        pairs = [pair for pair in comparison.pairs if pair.shown and pair.metric == metric]
        pairs.sort(key=lambda pair: -abs(pair.difference.estimate.value or 0))
        by = "" if metric == "dsc" or compared.primary == "image" else f"by {compared.primary}: "
        sentences += [f"{by}{pair.sentence}" for pair in pairs]
    return sentences


def notes_of(compared: ComparedRuns) -> list[str]:
    """Warn of what the comparison cannot say."""
    notes = []
    if compared.methods.besides:
        besides = ", ".join(compared.methods.besides)
        notes.append(f"The methods also differ in {besides}: a difference may come from there.")
    runs, counts = compared.done, Counter(compared.method_of[run.number] for run in compared.done)
    if len(counts) == 1:
        notes.append(f"There is one {'run' if len(runs) == 1 else 'method'} only: nothing to compare it with.")
    elif compared.repeat == "seed" and 1 in counts.values():
        single = [method for method, count in counts.items() if count == 1]
        notes.append(
            f"One run (one seed) only of {'every method' if len(single) == len(counts) else ', '.join(single)}: a "
            "difference speaks of these networks, not of the methods. Another seed may turn it round."
        )
    if chosen_by := sum(run.summary.get("split") == "val" for run in runs):
        notes.append(
            f"{chosen_by} of the {len(runs)} runs report the validation split (split=val), by which their best epoch "
            "was chosen: such metrics flatter, and say nothing of new images."
        )
    return [*notes, *compared.notes]


def differing_settings(runs: Sequence[TrainingRun]) -> tuple[list[int], dict[str, list[str]]]:
    """Return the numbers of the runs whose config is known, and each setting in which they differ with all values."""
    known = [run for run in runs if run.config]
    settings = [method_settings(run.config, without=WITHOUT_EFFECT) for run in known]
    keys = differing_keys(settings)
    shown = [key for key in keys if not key.endswith(CLASS) or key.removesuffix(CLASS) not in keys]
    return [run.number for run in known], {key: [own.get(key, ABSENT) for own in settings] for key in shown}


def leak_reports(runs: Sequence[TrainingRun]) -> dict[tuple[str, Sequence[str]], list[int]]:
    """Return each leak report, without names, and its warnings, with the numbers of its runs."""
    reports: dict[tuple[str, Sequence[str]], list[int]] = {}
    for run in runs:
        if run.leaks:
            text = replace(run.leaks, warnings=()).text(names=False)
            reports.setdefault((text, run.leaks.warnings), []).append(run.number)
    return reports


LONGEST = 400  # px of a picture on the page
LEVELS = 64  # colours of a location map
DASH, GAP = 6, 4  # px across and down, along an outline

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Example:
    """What one method says of one image; nothing in it names a patient.

    `item` holds the image with its lesions and score map, `malignant` the prediction at the run's threshold. `strength`
    is the location map (H, W), 0 to 255, whose regions lie at or above `cutoff` (of 1).
    """

    item: SheetItem
    malignant: bool
    strength: Pixels
    cutoff: float


def read_examples(groups: Mapping[str, Sequence[TrainingRun]]) -> list[dict[str, Example]]:
    """Return the images that the first run of every method left in its folder examples/, each by method.

    Methods that left none are passed over; only images that all others share are returned, in their order.
    """
    lists = {method: _list(runs[0]) for method, runs in groups.items()}
    known = {method: rows for method, rows in lists.items() if len(rows)}
    if not known:
        return []
    rows, *others = known.values()
    shared = [image_id for image_id in rows.index if all(image_id in other.index for other in others)]
    found = []
    for image_id in shared:
        examples = {method: _example(groups[method][0], *rows.loc[image_id]) for method, rows in known.items()}
        found.append({method: example for method, example in examples.items() if example is not None})
    return [examples for examples in found if examples]


def _list(run: TrainingRun) -> pd.DataFrame:
    """The examples that a run lists, by image, with the true label."""
    if run.examples.empty:
        return pd.DataFrame()
    return run.examples.join(run.predictions.set_index("image_id")["label"], how="inner")


def _example(run: TrainingRun, number: float, probability: float, cutoff: float, label: float) -> Example | None:
    """Read one image with its maps; None where a file is missing or damaged, or of another size."""
    start = run.folder / FOLDER / f"{number:.0f}"
    lesions = Path(f"{start}_lesions.png")
    try:
        image, strength = _grey(Path(f"{start}_image.png")), _grey(Path(f"{start}_map.png"))
        arrays = read_arrays(Path(f"{start}_scores.npz"))
        scores = {name: arrays[name] for name in ("score_map", "maxima", "minima")}
        mask = _grey(lesions) > 127 if lesions.is_file() else None
        item = SheetItem(image=image / 255, **scores, mask=mask, label=int(label), probability=float(probability))
        if not item.is_sound() or strength.shape != image.shape:
            return None
    except Exception:  # a damaged file makes zipfile, zlib and numpy raise whatever there is
        return None
    drawn = 0.5 if run.summary["threshold"] is None else run.summary["threshold"]
    return Example(item, bool(probability > drawn), strength, cutoff)


def _grey(path: Path) -> Pixels:
    """Read a grey PNG, made smaller where it is large."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f"{path} is missing or damaged")
    factor = min(1.0, LONGEST / max(pixels.shape))
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def map_layer(strength: Pixels, cutoff: float) -> Pixels:
    """Return a location map (H, W) as RGBA (H, W, 4), see-through at 0, with the borders of its regions in blue."""
    levels = np.round(strength / 255 * (LEVELS - 1)) / (LEVELS - 1)
    layer = HEAT[np.round(levels * 255).astype(np.uint8)]
    return _outlined(layer, strength >= max(1.0, cutoff * 255), to_rgb(SKY))


def lesion_layer(lesions: NDArray[np.bool_]) -> Pixels:
    """Return the outlines of lesions (H, W) in white dashes, see-through elsewhere, as RGBA (H, W, 4)."""
    layer = _outlined(np.zeros((*lesions.shape, 4), np.uint8), lesions, (1.0, 1.0, 1.0))
    layer[np.indices(lesions.shape).sum(axis=0) % (DASH + GAP) >= DASH] = 0
    return layer


def _outlined(layer: Pixels, inside: NDArray[np.bool_], colour: tuple[float, float, float]) -> Pixels:
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(layer, contours, -1, (0, 0, 0, 255), 3)  # a black edge: seen on white tissue, too
    cv2.drawContours(layer, contours, -1, [round(255 * part) for part in (*colour, 1.0)], 1)
    return layer


def png(pixels: Pixels) -> str:
    """Return grey (H, W) or RGBA (H, W, 4) pixels as PNG in base64."""
    written = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1]
    return base64_of(written.tobytes())


def write_comparison_page(
    compared: ComparedRuns,
    tables: Mapping[Level, pd.DataFrame],
    pooled: pd.DataFrame,
    question: str,
    path: Path,
) -> Path:
    """Write the page that answers a question and return its path; LemlightError if it cannot be written.

    The tables are those of `tables_of`, the localization settings those of `pooled_table`.
    """
    examples = read_examples(compared.groups)
    with TemporaryDirectory() as folder:
        figures = _figures(compared, examples, Path(folder))
    script = (TEMPLATES / "comparison.js").read_text(encoding="utf-8")
    settings_runs, settings = differing_settings(compared.runs)
    primary = compared.primary
    commands = [public_command("train", run.overrides) for run in compared.runs if run.overrides is not None]
    return write_page(
        path,
        "comparison.html.j2",
        title="Comparison of methods",
        question=question,
        compared=compared,
        comparison=compared.comparison,
        datasets=sorted({method_settings(run.config).get("dataset", "unknown") for run in compared.done}),
        notes=notes_of(compared),
        differences=shown_differences(compared),
        tables=_tables(tables),
        pooled=pooled_rows(pooled),
        pooled_names=list(POOLED_NAMES.values()),
        figures=figures,
        forests={"auroc": heading(f"{primary}/auroc".removeprefix("image/")), "dsc": METRIC_NAMES["dsc"]},
        mammograms=[_mammogram(image) for image in examples],
        settings_runs=[f"Run {number}" for number in settings_runs],
        settings=settings,
        leaks=leak_reports(compared.runs),
        commands=list(dict.fromkeys(commands)),
        versions=versions(),
        script=script,
        script_hash=base64_of(hashlib.sha256(script.encode()).digest()),
    )


def _tables(tables: Mapping[Level, pd.DataFrame]) -> list[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """The heading and the cells by metric of every table: classification at every level, then localization."""
    shown = {}
    for level, table in tables.items():
        by = f" by {level}" if len(tables) > 1 else ""
        names = [name for name in metrics_of(table) if name not in LOCALIZATION_NAMES]
        shown[f"Classification{by}"] = {COLUMNS[name]: cells(table, name) for name in names}
    images = tables["image"]
    found = {COLUMNS[name]: cells(images, name) for name in metrics_of(images) if name in LOCALIZATION_NAMES}
    return [*shown.items(), ("Localization", found)]


def _figures(compared: ComparedRuns, examples: Sequence[Mapping[str, Example]], folder: Path) -> dict[str, str]:
    """Draw everything; PNG as base64 by the name of the figure."""
    groups = compared.groups
    items = [{method: example.item for method, example in image.items()} for image in examples]
    drawn = {"scores": score_map_panels(items, folder / "scores.png")}
    if groups:
        drawn["curves"] = curve_panels(groups, folder / "curves.png")
        drawn["training"] = training_overlay(groups, folder / "training.png")
        drawn["reliability"] = reliability_panels(groups, folder / "reliability.png")
    for metric, comparison in plotted(compared).items():
        drawn[f"forest_{metric}"] = forest_plot(comparison, metric, folder / f"{metric}.png")
    return {name: base64_of(path.read_bytes()) for name, path in drawn.items() if path}


def _mammogram(examples: Mapping[str, Example]) -> dict[str, Any]:
    """One image under the location maps of all methods, its layers as PNG."""
    item = next(iter(examples.values())).item
    pixels = (item.image * 255).round().astype("uint8")
    return {
        "label": CLASS_NAMES[item.label],
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "image": png(pixels),
        "lesions": "" if item.mask is None or not item.mask.any() else png(lesion_layer(item.mask)),
        "overlays": [
            {
                "method": method,
                "prediction": CLASS_NAMES[one.malignant],
                "probability": one.item.probability,
                "png": png(map_layer(one.strength, one.cutoff)),
            }
            for method, one in examples.items()
        ],
    }

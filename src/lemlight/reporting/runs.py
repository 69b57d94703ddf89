"""Sentences for a page that may be sent to others: without names of patients, images and files."""

import base64
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import yaml  # type: ignore[import-untyped]
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from lemlight.errors import LemlightError
from lemlight.metrics import CLASSIFICATION_NAMES, METRIC_NAMES
from lemlight.metrics.comparison import Comparison, compare_methods
from lemlight.plots.overlays import HEAT, lesion_outlines
from lemlight.plots.style import SKY
from lemlight.sweeps.names import WITHOUT_EFFECT, short_numbers
from lemlight.sweeps.table import STATE, JobState, read_state
from lemlight.training.privacy import public_config

HIDDEN = "…"
LISTED = re.compile(r"(\d+ (?:images?|patients?|files?)) \([^()]*\)")
# Words of a message that can be no name: lower-case words, small numbers, errors of Python, a few acronyms.
PLAIN = re.compile(
    r"[a-z]+|\d{1,4}(?:\.\d+)?%?|[a-z_]+(?:\.[a-z_]+)*=\d{1,4}(?:\.\d+)?|[A-Z]\w*(?:Error|Exception)|CUDA|GPU|CPU|MPS|"
    r"NaN|AUC|MiB|GiB|GB|MB|Dice|Lightning|PyTorch"
)
MARKS = "()[]{},.;:!?'\"`"

Groups = Mapping[str, Sequence["TrainingRun"]]
"""Method -> its finished trainings."""


def hide(text: str, names: Iterable[str]) -> str:
    """Take known names, and lists of images behind their number, out of a sentence."""
    found = sorted({name for name in names if name and name in text}, key=len, reverse=True)
    for name in found:
        text = text.replace(name, HIDDEN)
    return LISTED.sub(r"\1", text)


def plain_words(text: str) -> str:
    """Keep of an error message only the words that can be no name of a patient, an image or a file.

    For messages whose names are not known: a failed training leaves no list of its images.
    """
    kept = [word if PLAIN.fullmatch(word.strip(MARKS)) or not word.strip(MARKS) else HIDDEN for word in text.split()]
    return re.sub(rf"{HIDDEN}(?: {HIDDEN})+", HIDDEN, " ".join(kept))


FOLDER, LIST = "examples", "examples.csv"
LONGEST = 400  # px of a picture on the page
LEVELS = 64  # of a location map
EDGE, REGION, WHITE = LEVELS, LEVELS + 1, LEVELS + 2  # further colours of a picture
DASH, GAP = 12, 10  # points of an outline, about half a px apart

Pixels = NDArray[np.uint8]
Examples = Mapping[str, tuple[Path, pd.DataFrame]]
"""Method -> folder of its first training, and the list of its examples by image_id."""


@dataclass(frozen=True)
class Overlay:
    """What one method says of a mammogram; `png` (base64) lies over the image and is see-through elsewhere."""

    method: str
    probability: float
    called: str
    png: str


@dataclass(frozen=True)
class Mammogram:
    """One image under all methods; nothing in it names a patient. `image` and `lesions` are PNG as base64."""

    label: int
    width: int
    height: int
    image: str
    lesions: str
    """Empty where no lesion is known."""
    overlays: tuple[Overlay, ...]


def read_mammograms(groups: Groups) -> list[Mammogram]:
    """Return the images that the first training of every method left in its folder examples/, in their order.

    Methods that left none are passed over; only images that all others share are shown.
    """
    known, labels = known_examples(groups)
    read = [_mammogram(image_id, label, known) for image_id, label in labels.items()]
    return [mammogram for mammogram in read if mammogram is not None]


def known_examples(groups: Groups) -> tuple[Examples, dict[str, int]]:
    """Return what the first training of every method lists, by method, and the images that all share with labels."""
    lists = {method: (runs[0].folder, _list(runs[0].folder / FOLDER / LIST)) for method, runs in groups.items()}
    known = {method: (folder, rows) for method, (folder, rows) in lists.items() if rows is not None}
    if not known:
        return {}, {}
    shared = set.intersection(*(set(rows.index) for _, rows in known.values()))
    _, rows = next(iter(known.values()))
    labels = next(iter(groups.values()))[0].predictions.set_index("image_id")["label"]
    return known, {name: int(labels[name]) for name in rows.index if name in shared and name in labels.index}


def overlay_pixels(strength: Pixels, cutoff: float) -> Pixels:
    """Return a map (H, W) of 0 to 255 as indices of the palette, the borders of its regions drawn into it."""
    pixels = np.round(strength / 255 * (LEVELS - 1)).astype(np.uint8)
    inside = (strength >= max(1.0, cutoff * 255)).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(pixels, contours, -1, EDGE, 3)
    cv2.drawContours(pixels, contours, -1, REGION, 1)
    return pixels


def lesion_pixels(lesions: NDArray[np.bool_]) -> Pixels:
    """Return the dashed outlines of lesions (H, W) as indices of the palette."""
    pixels = np.zeros(lesions.shape, dtype=np.uint8)
    for outline in lesion_outlines(lesions):
        points = np.round(outline).astype(np.int32)
        for colour, thickness in ((EDGE, 3), (WHITE, 1)):
            for start in range(0, len(points), DASH + GAP):
                cv2.polylines(pixels, [points[start : start + DASH + 1]], False, colour, thickness)
    return pixels


def _mammogram(image_id: str, label: int, known: Examples) -> Mammogram | None:
    overlays: list[Overlay] = []
    image = lesions = None
    for method, (folder, rows) in known.items():
        row = dict(rows.loc[image_id])
        start = folder / FOLDER / str(row["number"])
        strength = read_grey(start.with_name(f"{row['number']}_map.png"))
        image = read_grey(start.with_name(f"{row['number']}_image.png")) if image is None else image
        lesions = read_grey(start.with_name(f"{row['number']}_lesions.png")) if lesions is None else lesions
        if strength is None or image is None or strength.shape != image.shape:
            continue
        called = "malignant" if row["called_malignant"] else "benign"
        overlays.append(
            Overlay(method, float(row["probability"]), called, _palette(overlay_pixels(strength, row["cutoff"])))
        )
    if image is None or not overlays:
        return None
    outlines = "" if lesions is None or not lesions.any() else _palette(lesion_pixels(lesions > 127))
    return Mammogram(label, image.shape[1], image.shape[0], _png(Image.fromarray(image)), outlines, tuple(overlays))


def _list(path: Path) -> pd.DataFrame | None:
    try:
        rows = pd.read_csv(path, dtype={"image_id": str, "number": str}).set_index("image_id")
    except (OSError, ValueError, KeyError):
        return None
    wanted = {"number", "probability", "called_malignant", "cutoff"}
    right = wanted <= set(rows.columns) and rows.index.is_unique and rows["number"].str.fullmatch(r"\d+").all()
    return rows if right else None


def read_grey(path: Path) -> Pixels | None:
    """Read a grey PNG, made smaller where it is large; None where there is none, or a damaged one."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    if pixels is None:
        return None
    factor = LONGEST / max(pixels.shape)
    if factor >= 1:
        return np.asarray(pixels, np.uint8)
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _palette(pixels: Pixels) -> str:
    heat = np.round(np.asarray(HEAT(np.linspace(0, 1, LEVELS))) * 255).astype(np.uint8)
    marks = [(0, 0, 0, 255), (*(round(255 * part) for part in to_rgb(SKY)), 255), (255, 255, 255, 255)]
    colours = np.concatenate([heat, np.array(marks, dtype=np.uint8)])
    image = Image.fromarray(pixels, mode="P")
    image.putpalette(colours[:, :3].tobytes())
    return _png(image, transparency=colours[:, 3].tobytes())


def _png(image: Image.Image, **options: bytes) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


PREDICTION_COLUMNS = ("image_id", "patient_id", "label", "probability")
AS_TEXT = {"image_id": str, "patient_id": str}


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what metrics.json holds; LemlightError if it is not what a training writes."""
    try:
        summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LemlightError("metrics.json cannot be read: it is damaged; train again") from error
    if not isinstance(summary, dict) or not all(_is_figure(summary.get(name)) for name in CLASSIFICATION_NAMES):
        raise LemlightError("metrics.json lacks figures of a training: it is damaged, or of another version")
    if not isinstance(summary.get("threshold"), int | float):
        raise LemlightError("metrics.json lacks the threshold: it is damaged, or of another version")
    return summary


def read_predictions(folder: Path) -> pd.DataFrame:
    """Return predictions.csv with identifiers as text; LemlightError if it is not what a training writes."""
    table = _table(folder / "predictions.csv")
    if table is None or table.empty or not set(PREDICTION_COLUMNS) <= set(table.columns):
        raise LemlightError("predictions.csv cannot be read, is empty or lacks columns: train again")
    numbers = table[["label", "probability"]].apply(pd.to_numeric, errors="coerce")
    if not (numbers["label"].isin([0, 1]).all() and numbers["probability"].between(0, 1).all()):
        raise LemlightError("predictions.csv holds labels or probabilities that are none: it is damaged; train again")
    if table[["image_id", "patient_id"]].isna().any(axis=None) or table["image_id"].duplicated().any():
        raise LemlightError("predictions.csv has rows without an image, or an image twice: it is damaged; train again")
    return table.assign(**numbers)


def read_dice(folder: Path, method: str) -> "pd.Series[float] | None":
    """Return the Dice of every image (index image_id) under one localization method; None where nothing was left."""
    table = _table(folder / "localization_images.csv")
    if table is None or not {"image_id", "dsc", "method"} <= set(table.columns):
        return None
    own = table[table["method"] == method].drop_duplicates("image_id").set_index("image_id")["dsc"]
    return pd.to_numeric(own, errors="coerce") if len(own) else None


def read_log(folder: Path) -> pd.DataFrame:
    """Return logs/metrics.csv, empty where there is none."""
    table = _table(folder / "logs" / "metrics.csv")
    return pd.DataFrame() if table is None else table


def read_leaks(folder: Path) -> dict[str, Any]:
    """Return leaks.json, empty where there is none."""
    try:
        leaks = json.loads((folder / "leaks.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return leaks if isinstance(leaks, dict) else {}


def _table(path: Path) -> pd.DataFrame | None:
    try:
        return pd.read_csv(path, dtype=AS_TEXT)
    except (OSError, ValueError):  # pandas' own errors of reading are ValueErrors
        return None


def _is_figure(figure: Any) -> bool:
    return isinstance(figure, dict) and isinstance(figure.get("value", ""), int | float | None)


RunState = Literal["done", "failed", "unfinished", "damaged"]
CONFIG = "config.yaml"
NOT_LOOKED_INTO = ("replaced", "checkpoints", "figures", "logs", "examples")  # a sweep sets old results aside
OF_A_TRAINING = ("backbone", "pooling", "dataset", "seed", "trainer")  # sections that only a training's config has
UNFINISHED = "it has no metrics.json: it is still running, or was killed; the command that started it goes on"


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One run folder of `lemlight.train`.

    `number` counts from 1 and is how a page may name it; `name` is its folder, relative to where was searched, and
    `reason` says why it is not done: both may hold names that must not leave the machine. `config` is empty where it
    cannot be read; `overrides` None where the command line is not known. Only a run that is done has `summary`
    (metrics.json) and `predictions` (predictions.csv).
    """

    number: int
    name: str
    folder: Path
    state: RunState
    reason: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)


def find_runs(root: Path) -> list[TrainingRun]:
    """Return every training in or below `root`, sorted by its folder; what is no training is passed over.

    Raises:
        LemlightError: there is no such folder, or no training in it.
    """
    if not root.is_dir():
        raise LemlightError(f"{root} is no folder: set runs=DIR to the folder that holds the run folders")
    folders = sorted(_folders(root))
    runs = [_read(number, folder, root) for number, folder in enumerate(folders, start=1)]
    if not runs:
        raise LemlightError(
            f"no training in or below {root}: set runs=DIR to a folder that holds run folders of lemlight.train "
            "(each has a config.yaml and a metrics.json)"
        )
    return runs


def _folders(root: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(root):
        folder = Path(name)
        if STATE in files or (CONFIG in files and _is_training(_config(folder), files)):
            folders.clear()  # a run folder holds no other
            yield folder
        else:
            folders[:] = [child for child in folders if not child.startswith(".") and child not in NOT_LOOKED_INTO]


def _is_training(config: Mapping[str, Any], files: list[str]) -> bool:
    return all(name in config for name in OF_A_TRAINING) or (not config and "predictions.csv" in files)


def _read(number: int, folder: Path, root: Path) -> TrainingRun:
    job = read_state(folder)
    config = _config(folder) or (job.config if job else {})
    name = "." if folder == root else folder.relative_to(root).as_posix()
    run = TrainingRun(number, name, folder, "done", config=config, overrides=_overrides(folder, job))
    state, reason = _state(folder, job, config)
    if state == "done":
        try:
            results = _results(folder, config)
            return _with(run, summary=read_summary(results), predictions=read_predictions(results))
        except LemlightError as error:
            state, reason = "damaged", str(error)
    return _with(run, state=state, reason=reason)


def _with(run: TrainingRun, **changes: Any) -> TrainingRun:
    return TrainingRun(**{**vars(run), **changes})


def _state(folder: Path, job: JobState | None, config: Mapping[str, Any]) -> tuple[RunState, str]:
    if job is None and (folder / STATE).exists():
        return "damaged", f"{STATE} cannot be read"
    if job is not None and job.state == "failed":
        return "failed", " ".join((job.error or "it does not say why").split())
    if not config:
        return "damaged", f"{CONFIG} cannot be read"
    if not (_results(folder, config) / "metrics.json").is_file() or (job is not None and job.state == "running"):
        return "unfinished", UNFINISHED
    return "done", ""


def _results(folder: Path, config: Mapping[str, Any]) -> Path:
    """Where the results are: in the run folder unless the user set output=DIR for a job of a sweep."""
    elsewhere = Path(str(config.get("output") or folder))
    return elsewhere if not (folder / CONFIG).is_file() and elsewhere.is_dir() else folder


def _config(folder: Path) -> dict[str, Any]:
    values = _yaml(folder / CONFIG)
    return values if isinstance(values, dict) else {}


def _overrides(folder: Path, job: JobState | None) -> tuple[str, ...] | None:
    if job is not None:
        return tuple(job.overrides)
    values = _yaml(folder / ".hydra" / "overrides.yaml")
    return tuple(map(str, values)) if isinstance(values, list) else None


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


REPEATS = ("seed", "dataset.split.fold")
# settings that change no network: of the machine, of what is shown, of how lesions are drawn and measured
NO_METHOD = (*WITHOUT_EFFECT, "bootstrap", "resume", "label_names", "localization", "trainer.accelerator")
SECTIONS = ("pooling", "backbone", "loss", "dataset", "augmentation", "optimizer", "scheduler")
ABSENT = "(none)"
NAMES = {
    **{name: name.upper() for name in ("lem", "gap", "gmp", "rgp", "ggp", "lse")},
    "max_min": "max-min",
    "sparse_mil": "sparse MIL",
    "attention_mil": "attention MIL",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "densenet121": "DenseNet-121",
    "densenet169": "DenseNet-169",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
}

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Methods:
    """The methods of some trainings, in the order of these.

    `names` is the method of every training; `keys` are the settings that tell the methods apart; `besides` are further
    settings that change with them, so that a difference may come from these.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    besides: tuple[str, ...]

    def sentence(self) -> str:
        """Say what a method is here."""
        if not self.keys:
            return "All trainings have the same settings apart from seed and fold: there is one method."
        return f"A method is a value of {' and '.join(self.keys)}; trainings that differ in seed or fold repeat it."

    def warning(self) -> str:
        """Say what else differs between the methods, empty where nothing does."""
        if not self.besides:
            return ""
        return f"The methods also differ in {', '.join(self.besides)}: a difference may come from there."


def find_methods(configs: Sequence[Mapping[str, Any]]) -> Methods:
    """Name the method of every configuration of a training."""
    settings = [flat_settings(config) for config in configs]
    varying = [key for key in differing_keys(settings) if key not in REPEATS and not _within(key, NO_METHOD)]
    keys: list[str] = []
    for key in sorted(varying, key=_importance):
        if _varies_within(settings, keys, key):
            keys.append(key)
    named = {key.removesuffix(".name") for key in keys if key.endswith(".name")}
    besides = [key for key in varying if key not in keys and not _within(key, named)]
    names = tuple(_name(own, settings, keys) for own in settings)
    short = tuple(short_numbers(name) for name in names)
    return Methods(short if len(set(short)) == len(set(names)) else names, tuple(keys), tuple(besides))


def flat_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the public settings of a configuration (no path) as text, by key with dots."""
    return dict(_flat(public_config(config), ""))


def differing_keys(settings: Sequence[Settings]) -> list[str]:
    """List the keys in which settings differ, in their order in the configuration."""
    keys = dict.fromkeys(key for own in settings for key in own)
    return [key for key in keys if len({own.get(key, ABSENT) for own in settings}) > 1]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)


def _within(key: str, sections: Iterable[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _importance(key: str) -> tuple[int, int]:
    """The choices come first, and among them the pooling; sorting keeps the order of the others."""
    section = key.partition(".")[0]
    place = SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)
    return (0 if key == f"{section}.name" else 1, place)


def _varies_within(settings: Sequence[Settings], keys: Sequence[str], key: str) -> bool:
    """Whether a key still differs between settings that agree in `keys`."""
    values: dict[tuple[str, ...], set[str]] = {}
    for own in settings:
        values.setdefault(_values(own, keys), set()).add(own.get(key, ABSENT))
    return any(len(group) > 1 for group in values.values())


def _values(own: Settings, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(own.get(key, ABSENT) for key in keys)


def _name(own: Settings, settings: Sequence[Settings], keys: Sequence[str]) -> str:
    """Name a method by the values of the keys, each only where it still tells methods apart."""
    parts = []
    for place, key in enumerate(keys):
        before = keys[:place]
        alike = [other for other in settings if _values(other, before) == _values(own, before)]
        if len({other.get(key, ABSENT) for other in alike}) > 1:
            parts.append(_part(key, own.get(key, ABSENT)))
    if not any(key.endswith(".name") for key in keys):
        parts.insert(0, _part("pooling.name", own.get("pooling.name", "trained network")))
    return ", ".join(parts)


def _part(key: str, value: str) -> str:
    return NAMES.get(value, value) if key.endswith(".name") else f"{key} = {value}"


def compare_runs(
    runs: Sequence[TrainingRun], methods: Sequence[str], resamples: int
) -> tuple[Comparison | None, list[str]]:
    """Compare finished trainings (their methods in the same order); what cannot be compared is said, never raised.

    Returns:
        The comparison, or None; and sentences that name no image and no patient: why there is none, or no Dice.
    """
    if problems := _problems(runs, methods):
        return None, problems
    frame = _frame(runs, methods)
    names = [*frame["image_id"], *frame["patient_id"]]
    notes = []
    if "dsc" not in frame:
        lacking = [str(run.number) for run in runs if _dice(run) is None]
        notes.append(
            f"Dice is not compared: run {', '.join(lacking)} left none (no known lesion, or an older version)."
        )
    try:
        return compare_methods(frame, resamples=resamples), notes
    except LemlightError as error:
        reason = hide(str(error), names)
    if "dsc" not in frame:
        return None, [reason]
    try:
        return compare_methods(frame.drop(columns="dsc"), resamples=resamples), [f"Dice is not compared: {reason}"]
    except LemlightError as error:
        return None, [hide(str(error), names)]


def repeat_of(runs: Sequence[TrainingRun]) -> str:
    """Return what repeats a method: fold where the trainings are folds of one split, else seed."""
    return "fold" if len({_fold(run) for run in runs}) > 1 else "seed"


def repeat_name(run: TrainingRun, repeat: str) -> str:
    """Return the seed or the fold of a training as text."""
    return _fold(run) if repeat == "fold" else str(run.config.get("seed", "unknown"))


def _fold(run: TrainingRun) -> str:
    split = (run.config.get("dataset") or {}).get("split") or {}
    return str(split.get("fold", "unknown")) if split.get("scheme") == "kfold" else "none"


def _problems(runs: Sequence[TrainingRun], methods: Sequence[str]) -> list[str]:
    if not runs:
        return ["No training is finished: there is nothing to compare."]
    repeat = repeat_of(runs)
    problems = []
    if repeat == "fold" and len({run.config.get("seed") for run in runs}) > 1:
        problems.append("Both seed and fold differ between the trainings: compare one seed, or one fold, at a time.")
    numbers: dict[tuple[str, str], list[int]] = {}
    for run, method in zip(runs, methods, strict=True):
        numbers.setdefault((method, repeat_name(run, repeat)), []).append(run.number)
    for (method, name), same in numbers.items():
        if len(same) > 1:
            listed = " and ".join(map(str, same))
            problems.append(f"Runs {listed} are both {method} with {repeat} {name}: leave one of them in the folder.")
    return problems + _other_images(runs, methods, repeat)


def _other_images(runs: Sequence[TrainingRun], methods: Sequence[str], repeat: str) -> list[str]:
    """Say in numbers which trainings were tested on other images; with folds only whole methods can be compared."""
    tested: dict[str, set[str]] = {}
    for run, method in zip(runs, methods, strict=True):
        unit = method if repeat == "fold" else f"run {run.number} ({method}, seed {repeat_name(run, repeat)})"
        tested.setdefault(unit, set()).update(run.predictions["image_id"])
    shared = set.intersection(*tested.values())
    if all(images == shared for images in tested.values()):
        return []
    listed = ", ".join(f"{unit} on {len(images)}" for unit, images in tested.items())
    return [
        f"The trainings were tested on different images ({listed}; {len(shared)} of these in all of them), so their "
        "figures are not compared: test them on the same split of the same data set."
    ]


def _frame(runs: Sequence[TrainingRun], methods: Sequence[str]) -> pd.DataFrame:
    repeat = repeat_of(runs)
    dices = [_dice(run) for run in runs]
    frames = []
    for run, method, dice in zip(runs, methods, dices, strict=True):
        rows = run.predictions[["image_id", "patient_id", "label", "probability"]].assign(method=method)
        rows[repeat] = repeat_name(run, repeat)
        rows["prediction"] = (rows["probability"] > run.summary["threshold"]).astype(int)
        if all(other is not None for other in dices) and dice is not None:
            rows["dsc"] = rows["image_id"].map(dice)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def _dice(run: TrainingRun) -> "pd.Series[float] | None":
    return read_dice(run.folder, str((run.config.get("localization") or {}).get("method")))


def compared_metrics(comparison: Comparison | None) -> list[str]:
    """List the metrics that were compared, in the order of a table."""
    found = {figure.metric for figure in comparison.figures} if comparison else set()
    return [metric for metric in METRIC_NAMES if metric in found]

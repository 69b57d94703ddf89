"""The run folders of `lemlight.train`: which there are below a folder, in which state, and what each of them left."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml  # type: ignore[import-untyped]

from lemlight.errors import LemlightError
from lemlight.metrics import CLASSIFICATION_NAMES
from lemlight.sweeps.table import STATE, JobState, read_state

RunState = Literal["done", "failed", "unfinished", "damaged"]
CONFIG = "config.yaml"
FOLDER, LIST = "examples", "examples.csv"  # the pictures of a few test images, and what they are
NOT_LOOKED_INTO = ("replaced", "checkpoints", "figures", "logs", FOLDER)  # a sweep sets old results aside
UNFINISHED = "it has no metrics.json: it is still running, or was killed; the command that started it goes on"


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One run of `lemlight.train`.

    `number` counts from 1 and is how a page may name it. `name` is its folder, relative to where was searched, and
    `reason` says why it is not done: both may hold names that must not leave the machine. `folder` holds its results.
    `config` is empty where it cannot be read; `overrides` None where the command line is not known. Only a run that is
    done has `summary` (metrics.json) and `predictions` (predictions.csv).
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

    @property
    def seed(self) -> str:
        """The seed of the training, as text."""
        return str(self.config.get("seed", "unknown"))

    @property
    def fold(self) -> str:
        """The fold of a k-fold split, as text; `none` for other splits."""
        split = (self.config.get("dataset") or {}).get("split") or {}
        return str(split.get("fold", "unknown")) if split.get("scheme") == "kfold" else "none"

    def dice(self) -> "pd.Series[float] | None":
        """Read the Dice of every image (index image_id) under the run's localization method; None if there is none."""
        table = _read_csv(self.folder / "localization_images.csv")
        if not {"image_id", "dsc", "method"} <= set(table.columns):
            return None
        own = table[table["method"] == (self.config.get("localization") or {}).get("method")]
        dice = own.drop_duplicates("image_id").set_index("image_id")["dsc"]
        return pd.to_numeric(dice, errors="coerce") if len(dice) else None

    def log(self) -> pd.DataFrame:
        """Read what was logged, a row per epoch (the index); empty where nothing was."""
        table = _read_csv(self.folder / "logs" / "metrics.csv").apply(pd.to_numeric, errors="coerce")
        return table.groupby("epoch").mean() if "epoch" in table else pd.DataFrame()

    def leaks(self) -> dict[str, Any]:
        """Read leaks.json; empty where there is none."""
        try:
            leaks = json.loads((self.folder / "leaks.json").read_text(encoding="utf-8"))
            wanted = {"split", "images", "malignant", "patients"}
            return leaks if all(wanted <= part.keys() for part in leaks["splits"]) else {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}


def find_runs(root: Path) -> list[TrainingRun]:
    """Return every training in or below `root`, sorted by its folder; what is no training is passed over.

    Raises:
        LemlightError: there is no such folder, or no training in it.
    """
    if not root.is_dir():
        raise LemlightError(f"{root} is no folder: set runs=DIR to the folder that holds the run folders")
    runs = [_read(number, folder, root) for number, folder in enumerate(sorted(_folders(root)), start=1)]
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
    return {"pooling", "trainer", "seed"} <= config.keys() or (not config and "predictions.csv" in files)


def _read(number: int, folder: Path, root: Path) -> TrainingRun:
    job = read_state(folder)
    config = _config(folder) or (job.config if job else {})
    overrides = job.overrides if job else _yaml(folder / ".hydra" / "overrides.yaml")
    run = TrainingRun(
        number,
        folder.relative_to(root).as_posix(),
        _results(folder, config),
        "done",
        config=config,
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else None,
    )
    state, reason = _state(folder, run.folder, job, config)
    if state != "done":
        return replace(run, state=state, reason=reason)
    try:
        return replace(run, summary=_summary(run.folder), predictions=_predictions(run.folder))
    except LemlightError as error:
        return replace(run, state="damaged", reason=str(error))


def _state(folder: Path, results: Path, job: JobState | None, config: Mapping[str, Any]) -> tuple[RunState, str]:
    if job is None and (folder / STATE).exists():
        return "damaged", f"{STATE} cannot be read"
    if job is not None and job.state == "failed":
        return "failed", " ".join((job.error or "it does not say why").split())
    if not config:
        return "damaged", f"{CONFIG} cannot be read"
    if not (results / "metrics.json").is_file() or (job is not None and job.state == "running"):
        return "unfinished", UNFINISHED
    return "done", ""


def _results(folder: Path, config: Mapping[str, Any]) -> Path:
    """Where the results are: in the run folder unless the user set output=DIR for a job of a sweep."""
    elsewhere = Path(str(config.get("output") or folder))
    return elsewhere if not (folder / CONFIG).is_file() and elsewhere.is_dir() else folder


def _summary(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        values = [summary[name]["value"] for name in CLASSIFICATION_NAMES]
        threshold = summary["threshold"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LemlightError("metrics.json cannot be read or lacks metrics: it is damaged; train again") from error
    if not isinstance(threshold, int | float) or not all(isinstance(value, int | float | None) for value in values):
        raise LemlightError("metrics.json holds metrics that are no numbers: it is damaged; train again")
    return dict(summary)


def _predictions(folder: Path) -> pd.DataFrame:
    table = _read_csv(folder / "predictions.csv")
    if table.empty or not {"image_id", "patient_id", "label", "probability"} <= set(table.columns):
        raise LemlightError("predictions.csv cannot be read, is empty or lacks columns: train again")
    numbers = table[["label", "probability"]].apply(pd.to_numeric, errors="coerce")
    if not (numbers["label"].isin([0, 1]).all() and numbers["probability"].between(0, 1).all()):
        raise LemlightError("predictions.csv holds labels or probabilities that are none: it is damaged; train again")
    if table[["image_id", "patient_id"]].isna().any(axis=None) or table["image_id"].duplicated().any():
        raise LemlightError("predictions.csv has rows without an image, or an image twice: it is damaged; train again")
    return table.assign(**numbers)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a table with identifiers as text; empty where there is none that can be read."""
    try:
        return pd.read_csv(path, dtype={"image_id": str, "patient_id": str})
    except (OSError, ValueError):  # pandas' own errors of reading are ValueErrors
        return pd.DataFrame()


def _config(folder: Path) -> dict[str, Any]:
    values = _yaml(folder / CONFIG)
    return values if isinstance(values, dict) else {}


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None

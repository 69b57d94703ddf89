"""The trainings below a folder: finished, failed, unfinished or damaged."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml  # type: ignore[import-untyped]

from lemlight.errors import LemlightError
from lemlight.reporting.comparison.results_files import read_predictions, read_summary
from lemlight.sweeps.state import STATE, JobState, read_state

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

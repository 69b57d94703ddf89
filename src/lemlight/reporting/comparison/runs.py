"""The run folders of `lemlight.train`: which there are below a folder, in which state, and what each of them left."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, model_validator

from lemlight.data.splits import LeakReport, Scheme, leak_warnings
from lemlight.errors import LemlightError
from lemlight.files import open_file, read_plain
from lemlight.metrics import CLASSIFICATION_NAMES, METRIC_NAMES, Level, LevelRule
from lemlight.metrics.classification import check_scored
from lemlight.sweeps.state import STATE, read_state

RunState = Literal["done", "failed", "unfinished", "damaged"]
SplitName = Literal["train", "val", "test", "all", ""]
SPLIT_NAMES = set(get_args(SplitName))
CONFIG = "config.yaml"
FOLDER, LIST = "examples", "examples.csv"  # the pictures of a few test images, and what they are
NOT_LOOKED_INTO = ("replaced", "checkpoints", "figures", "logs", FOLDER)  # a sweep sets old results aside
UNFINISHED = "it has no metrics.json: it is still running, or was killed; the command that started it goes on"


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """One run of `lemlight.train`.

    `number` counts from 1 and is how a page may name it. `name` is its folder, relative to where was searched, and
    `reason` says why it is not done: both may hold names that must not leave the machine. `folder` holds its results.
    `config` is empty where it cannot be read; `overrides` None where the command line is not known.

    Only a run that is done has `summary` (metrics.json), `predictions` (predictions.csv), and, where there are any,
    `leaks` (leaks.json), `log` (what was logged, a row per epoch, the index), `localized` (localization_images.csv)
    and `examples` (examples.csv).
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
    leaks: LeakReport | None = None
    log: pd.DataFrame = field(default_factory=pd.DataFrame)
    localized: pd.DataFrame | None = None
    examples: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def seed(self) -> str:
        """The seed of the run, as text."""
        return str(self.config.get("seed", "unknown"))

    @property
    def located(self) -> pd.DataFrame | None:
        """What the run's localization method gave, see `localized_by`; None where there is none."""
        return None if self.localized is None else self.localized_by(self.config["localization"]["method"])

    def localized_by(self, method: str) -> pd.DataFrame:
        """What one localization method gave for every image_id, with `dsc` and `pointing`."""
        assert self.localized is not None
        return self.localized[self.localized["method"] == method].set_index("image_id")

    @property
    def fold(self) -> str:
        """The fold of a k-fold split, as text; `none` for other splits."""
        split = (self.config.get("dataset") or {}).get("split") or {}
        return str(split.get("fold", "unknown")) if split.get("scheme") == "kfold" else "none"


class Config(BaseModel, extra="allow"):
    """What a comparison takes from config.yaml: sections that are sections."""

    choices: dict[str, Any] = {}
    dataset: dict[str, Any] = {}
    localization: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError("no sections")
        split = values["dataset"].get("split") if isinstance(values.get("dataset"), dict) else None
        if not isinstance(split, dict | None) or not all(isinstance(key, str) for key in values):
            raise ValueError("dataset.split is no section")
        localization = values.get("localization")
        if isinstance(localization, dict) and not isinstance(localization.get("method", ""), str):
            raise ValueError("localization.method is no name")
        return values


class Figure(BaseModel, extra="allow", strict=True):
    """A figure of metrics.json with its interval; None is undefined."""

    value: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None

    @model_validator(mode="after")
    def _both_ends(self) -> "Figure":
        if (self.low is None) != (self.high is None):
            raise ValueError("half an interval")
        return self


class Curve(BaseModel, strict=True):
    """A FROC curve of metrics.json."""

    false_positives_per_image: list[float]
    sensitivity: list[float]


class Froc(BaseModel, extra="allow"):
    """The FROC section of metrics.json."""

    mean: Figure = Figure()
    curve: Curve | None = None


class Calibration(BaseModel, extra="allow"):
    """The section of metrics.json on calibration."""

    bins: list[dict[str, float | None]] = []
    slope: Figure = Figure()
    intercept: Figure = Figure()
    ece: float | None = None


class Section(BaseModel, extra="allow"):
    """The figures of a level in metrics.json, or the reason why there are none."""

    threshold: float | None = None
    rule: LevelRule = "mean_logit"
    froc: Froc = Froc()
    calibration: Calibration = Calibration()

    @model_validator(mode="before")
    @classmethod
    def _figures(cls, values: Any) -> Any:
        for name in METRIC_NAMES:
            needed = name in CLASSIFICATION_NAMES and "reason" not in values
            Figure.model_validate(values[name] if needed else values.get(name, {}))
        return values


class Metrics(Section):
    """What a comparison takes from metrics.json."""

    threshold: float | None
    levels: dict[Level, Section] = {}
    primary_level: Level = "image"
    split: SplitName = ""


class Example(BaseModel):
    """A line of examples.csv."""

    number: int
    image_id: str
    probability: float = Field(ge=0, le=1)
    cutoff: FiniteFloat


def find_runs(root: Path) -> list[TrainingRun]:
    """Return every run of lemlight.train in or below `root`, sorted by its folder; other folders are passed over.

    Raises:
        LemlightError: there is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise LemlightError(f"{root} is no folder: set runs=DIR to the folder that holds the run folders")
    runs = [_read(number, folder, root) for number, folder in enumerate(sorted(_folders(root)), start=1)]
    if not runs:
        raise LemlightError(
            f"no run in or below {root}: set runs=DIR to a folder that holds run folders of lemlight.train "
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
    overrides = job.overrides if job else read_yaml(folder / ".hydra" / "overrides.yaml")
    elsewhere = Path(str(config.get("output") or folder))  # the user's own output= for a job of a sweep
    results = elsewhere if not (folder / CONFIG).is_file() and elsewhere.is_dir() else folder
    run = TrainingRun(
        number,
        folder.relative_to(root).as_posix(),
        results,
        "done",
        config=config,
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else None,
    )
    if job is not None and job.state == "failed":
        return replace(run, state="failed", reason=" ".join((job.error or "it does not say why").split()))
    unreadable = STATE if job is None and (folder / STATE).exists() else "" if config else CONFIG
    if unreadable:
        return replace(run, state="damaged", reason=f"{unreadable} cannot be read")
    if not (results / "metrics.json").is_file() or (job is not None and job.state == "running"):
        return replace(run, state="unfinished", reason=UNFINISHED)
    try:
        return replace(run, **_results(run))
    except LemlightError as error:
        return replace(run, state="damaged", reason=str(error))


def _results(run: TrainingRun) -> dict[str, Any]:
    """What a finished run left; LemlightError, which names the file, where one is damaged."""
    found: dict[str, Any] = {}
    found["summary"] = read_metrics(run.folder)
    found["predictions"] = read_predictions(run.folder)
    with _whole(run.folder / "leaks.json") as path:
        if path.is_file():
            leaks = TypeAdapter(LeakReport).validate_python(read_plain(path))
            if leaks.scheme not in ("", *get_args(Scheme)) or not {one.split for one in leaks.splits} <= SPLIT_NAMES:
                raise ValueError
            warnings = leak_warnings(leaks.scheme, leaks.splits, leaks.leaking_patients, leaks.leaking_files)
            found["leaks"] = replace(leaks, warnings=tuple(warnings))  # not its words, which may be anyone's
    with _whole(run.folder / "logs" / "metrics.csv") as path:
        if path.is_file():
            found["log"] = _table(path).groupby("epoch").mean()
    with _whole(run.folder / "localization_images.csv") as path:
        if path.is_file():
            found["localized"] = table = _table(path).astype({"dsc": float, "pointing": float})
            if not {"method", "image_id"} <= set(table) or "method" not in run.config["localization"]:
                raise ValueError
    with _whole(run.folder / FOLDER / LIST) as path:
        if path.is_file():
            columns = list(Example.model_fields)
            rows = [Example.model_validate(row).model_dump() for row in _table(path)[columns].to_dict("records")]
            found["examples"] = pd.DataFrame(rows, columns=columns).set_index("image_id")
    return found


def read_metrics(folder: Path, schema: type[Metrics] = Metrics) -> dict[str, Any]:
    """Read the metrics.json of a run; LemlightError, which names the file, where it is damaged."""
    with _whole(folder / "metrics.json") as path:
        values: dict[str, Any] = read_plain(path)
        schema.model_validate(values)
    return values


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read the predictions.csv of a run; LemlightError, which names the file, where it is damaged."""
    with _whole(folder / "predictions.csv") as path:
        table = _table(path)
        check_scored(table["label"], table["probability"])
        nameless = table[["image_id", "patient_id"]].isna().any(axis=None)
        if table.empty or nameless or table["image_id"].duplicated().any():
            raise ValueError
    return table


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (OSError, ValueError, TypeError, KeyError, AttributeError, LemlightError) as error:
        raise LemlightError(f"{path.name} is missing or damaged: train again") from error


def _table(path: Path) -> pd.DataFrame:
    texts = ("image_id", "patient_id", "laterality", "view", "exam")
    with open_file(path) as file:
        return pd.read_csv(file, dtype=dict.fromkeys(texts, str))


def _config(folder: Path) -> dict[str, Any]:
    try:
        return Config.model_validate(read_yaml(folder / CONFIG)).model_dump(exclude_unset=True)
    except ValueError:
        return {}


def read_yaml(path: Path) -> Any:
    """Read plain values of YAML; None where the file cannot be read."""
    try:
        return read_plain(path, yaml.safe_load, most=2**20)  # it reads a MB in seconds
    except (OSError, ValueError, yaml.YAMLError):
        return None

"""What is known of a job of a sweep: state.json in its folder, there from its start on."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lemlight.files import write_json, written_aside
from lemlight.sweeps.names import WITHOUT_EFFECT, short_numbers, without_effect

STATE = "state.json"
LOCK = ".lock"  # held as long as the job runs
State = Literal["running", "done", "failed"]


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class JobState:
    """A job of a sweep.

    `state` is running, done or failed (a job that is running and whose lock nobody holds was killed), `overrides` are
    the job's, `config` is the whole configuration it stands for (empty if that could not be used), `error` the
    sentence that it failed with, `result` the metric that it returned, `version` that of lemlight. Times are UTC.
    """

    state: State
    overrides: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=now)
    ended: str | None = None
    error: str | None = None
    result: float | None = None
    version: str = ""

    def done(self, result: float | None) -> "JobState":
        """Give the state after the job's last step."""
        return replace(self, state="done", ended=now(), result=result)

    def failed(self, error: str) -> "JobState":
        """Give the state after an error."""
        return replace(self, state="failed", ended=now(), error=error, result=None)

    def write(self, folder: Path) -> None:
        """Write state.json, whole or not at all; LemlightError if it cannot be written."""
        write_json(asdict(self), folder / STATE)


def read_state(folder: Path) -> JobState | None:
    """Read the state of the job in `folder`; None where there is none, or none that can be read."""
    try:
        return JobState(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the keys, with dots, in which two configurations differ and that change a figure."""
    old, new = _flat(before), _flat(wanted)
    return sorted(key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if path in WITHOUT_EFFECT:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{path}.")
        else:
            flat[path] = value
    return flat


FIGURES = {
    "auroc": "AUC",
    "acc": "ACC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "dsc": "DSC",
}
WITH_INTERVAL = ("auroc",)
UNKNOWN = "-"


@dataclass(frozen=True)
class Row:
    """A job: its folder's name (empty if it never started), its overrides, its state, error and metrics.json.

    `state` is done, failed, running (somewhere else), unfinished (it was killed) or missing (it never started).
    `validation` is the monitored figure of the best checkpoint: what to choose by, where the others are to report.
    """

    job: str
    overrides: Mapping[str, str]
    state: str
    error: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    validation: float | None = None


def read_rows(folder: Path, expected: Sequence[Sequence[str]] = ()) -> list[Row]:
    """Read every job below the folder of a sweep; those of `expected` (overrides of a job each) without one miss."""
    rows = [_row(path.parent) for path in sorted(folder.glob(f"*/{STATE}"))]
    there = {_telling(row.overrides) for row in rows}
    wanted = [_by_key(overrides) for overrides in expected]
    return rows + [Row("", overrides, "missing") for overrides in wanted if _telling(overrides) not in there]


def _row(job: Path) -> Row:
    state = read_state(job)
    if state is None:
        return Row(job.name, {}, "failed", f"{job / STATE} cannot be read: remove it and run the command again")
    shown: str = state.state
    if shown == "running" and not _lock_is_held(job / LOCK):
        shown = "unfinished"
    figures = _figures(job, state.config) if shown == "done" else {}
    error = " ".join((state.error or "").split())
    return Row(job.name, _by_key(state.overrides), shown, error, figures, state.result)


def _figures(job: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    for folder in (job, Path(config.get("output") or job)):  # the second one is the user's own output=
        if (folder / "metrics.json").is_file():
            return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    return {}


def _lock_is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    pairs = [override.lstrip("+").partition("=") for override in overrides if not without_effect(override)]
    return {key: value for key, _, value in pairs}


def _telling(overrides: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(overrides.items())


def best_first(rows: Sequence[Row], direction: str) -> list[Row]:
    """Sort the trials of a search: the best validation figure first, those without one last."""
    sign = -1 if direction == "maximize" else 1
    return sorted(rows, key=lambda row: float("inf") if row.validation is None else sign * row.validation)


def write_table(rows: Sequence[Row], folder: Path) -> None:
    """Write table.csv (a column per figure and bound) and table.md into the folder of a sweep."""
    axes = varying(rows)
    bounds = [f"{name}_{part}" for name in FIGURES for part in ("value", "low", "high")]
    with written_aside(folder / "table.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*axes, "state", "validation", *bounds, "error", "folder"])
        for row in rows:
            cells = [_bound(row, name, part) for name in FIGURES for part in ("value", "low", "high")]
            place = [*(row.overrides.get(key, "") for key in axes), row.state]
            validation = "" if row.validation is None else row.validation
            writer.writerow([*place, validation, *cells, row.error, row.job])
    with written_aside(folder / "table.md") as aside:
        aside.write_text(markdown(rows), encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown with aligned columns, for a page as for a terminal, and the errors below it."""
    axes = varying(rows)
    lines = [[*axes, "state", "validation", *FIGURES.values()]]
    for row in rows:
        figures = [_shown(row, name) for name in FIGURES]
        validation = UNKNOWN if row.validation is None else f"{row.validation:.2f}"
        place = [short_numbers(row.overrides.get(key, UNKNOWN)) for key in axes]
        lines.append([*place, row.state, validation, *figures])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    errors = [f"- {row.job}: {row.error}" for row in rows if row.error]
    return "\n".join([*texts, *(["", "Failed:", "", *errors] if errors else [])]) + "\n"


def varying(rows: Sequence[Row]) -> list[str]:
    """Name the overridden keys in which the jobs differ, in the order of the command; all keys of a single job."""
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    differ = [key for key in keys if len({row.overrides.get(key) for row in rows}) > 1]
    return differ or keys


def _bound(row: Row, name: str, part: str) -> Any:
    value = (row.figures.get(name) or {}).get(part)
    return "" if value is None else value


def _shown(row: Row, name: str) -> str:
    value, low, high = (_bound(row, name, part) for part in ("value", "low", "high"))
    if value == "":
        return UNKNOWN
    interval = f" [{low:.2f}, {high:.2f}]" if name in WITH_INTERVAL and low != "" and high != "" else ""
    return f"{value:.2f}{interval}"


FINE = ("done", "running")
DIRECTIONS = ("maximize", "minimize")  # of a search; a grid has none


class SweepTable(Callback):
    """Write table.csv and table.md over the jobs of a sweep, print them, and exit with 2 if one is not done."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Resolve the names of the sweep's folders here, once: what is cached goes to the jobs."""
        str(config.hydra.sweep.dir)
        str(config.hydra.sweep.subdir)
        if config.hydra.launcher._target_.endswith(".SlurmLauncher"):
            from lemlight.sweeps.slurm import wait_for_every_job

            wait_for_every_job()

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Read the states that the jobs left."""
        folder = Path(config.hydra.sweep.dir)
        rows = read_rows(folder, expected_jobs(config))
        direction = str(config.hydra.sweeper.get("direction"))
        if direction in DIRECTIONS:
            rows = best_first(rows, direction)
        write_table(rows, folder)
        print(f"\n{markdown(rows)}\ntable: {folder / 'table.csv'}, {folder / 'table.md'}")
        open_jobs = [row for row in rows if row.state not in FINE]
        if open_jobs:
            print(
                f"lemlight: {len(open_jobs)} of {len(rows)} jobs are not done; the same command runs only those",
                file=sys.stderr,
            )
            sys.exit(2)


def expected_jobs(config: DictConfig) -> list[list[str]]:
    """List the overrides of every job of a grid, as Hydra's own sweeper makes them; empty for other sweepers."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return []
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*words, *config.hydra.overrides.task])
    if any(override.is_sweep_override() and not override.is_discrete_sweep() for override in overrides):
        return []
    batches = BasicSweeper.split_arguments(overrides, None)
    return [list(job) for batch in batches for job in batch]

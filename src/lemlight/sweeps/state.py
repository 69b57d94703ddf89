"""What is known of the jobs of a sweep: state.json in the folder of each, from its start on, and a table over all."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from pydantic import TypeAdapter

from lemlight.files import read_plain, write_json, written_aside
from lemlight.metrics import METRIC_NAMES
from lemlight.sweeps.names import WITHOUT_EFFECT, without_effect
from lemlight.text import folded, markdown_table, short_numbers

STATE = "state.json"
LOCK = ".lock"  # held as long as the job runs
METRICS = ("auroc", "acc", "sensitivity", "specificity", "f1", "dsc")
PARTS = ("value", "low", "high")
UNKNOWN = "-"
FINE = ("done", "running")

Row = dict[str, Any]


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

    state: Literal["running", "done", "failed"]
    overrides: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=now)
    ended: str | None = None
    error: str | None = None
    result: float | None = None
    version: str = ""

    def after(self, result: float | None = None, error: str | None = None) -> "JobState":
        """Give the state after the end of the training: failed if there is an error."""
        return replace(self, state="failed" if error else "done", ended=now(), result=result, error=error)

    def write(self, folder: Path) -> None:
        """Write state.json, whole or not at all; LemlightError if it cannot be written."""
        write_json(asdict(self), folder / STATE)


def read_state(folder: Path) -> JobState | None:
    """Read the state of the job in `folder`; None where there is none, or none that can be read."""
    try:
        return TypeAdapter(JobState).validate_python(read_plain(folder / STATE))
    except (OSError, ValueError, TypeError):  # pydantic's is a ValueError
        return None


def differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the keys, with dots, in which two configurations differ and that change a figure."""
    old, new = flat(before), flat(wanted)
    differing = (key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...))
    return sorted(key for key in differing if not within(key, WITHOUT_EFFECT))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a configuration by key with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def within(key: str, sections: Iterable[str]) -> bool:
    """Whether a key with dots is one of some sections, or stands in one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def read_rows(folder: Path, expected: Sequence[Sequence[str]] = ()) -> list[Row]:
    """Read every job below the folder of a sweep; those of `expected` (overrides of a job each) without one miss.

    A row holds `folder`, `overrides` by key, `state` (done, failed, running somewhere else, unfinished: it was killed,
    or missing: it never started), `error`, `validation` (the monitored figure of the best checkpoint: what to choose
    by, where the others are to report), and of each metric NAME_value, NAME_low and NAME_high.
    """
    rows = [_row(path.parent) for path in sorted(folder.glob(f"*/{STATE}"))]
    there = [row["overrides"] for row in rows]
    return rows + [{"overrides": job, "state": "missing"} for job in map(_by_key, expected) if job not in there]


def _row(job: Path) -> Row:
    state = read_state(job)
    if state is None:
        error = f"{job / STATE} cannot be read: remove it and run the command again"
        return {"folder": job.name, "overrides": {}, "state": "failed", "error": error}
    shown = "unfinished" if state.state == "running" and not _is_locked(job) else state.state
    row = {"folder": job.name, "overrides": _by_key(state.overrides), "state": shown, "validation": state.result}
    row["error"] = " ".join((state.error or "").split())
    places = [job / "metrics.json", Path(state.config.get("output") or job, "metrics.json")]  # the user's own output=
    there = [path for path in places if path.is_file()]
    if shown == "done" and there:
        found = json.loads(there[0].read_text(encoding="utf-8"))
        row |= {f"{name}_{part}": (found.get(name) or {}).get(part) for name in METRICS for part in PARTS}
    return row


def _is_locked(job: Path) -> bool:
    try:
        with FileLock(job / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    pairs = [override.lstrip("+").partition("=") for override in overrides if not without_effect(override)]
    return {key: value for key, _, value in pairs}


def best_first(rows: Sequence[Row], direction: str) -> list[Row]:
    """Sort the trials of a search: the best validation figure first, those without one last."""
    sign = -1 if direction == "maximize" else 1
    return sorted(rows, key=lambda row: float("inf") if row.get("validation") is None else sign * row["validation"])


def write_table(rows: Sequence[Row], folder: Path) -> str:
    """Write table.csv (a column per metric and bound) and table.md into the folder of a sweep; return the latter.

    It has the AUC with its interval, and the errors below it.
    """
    axes = list(dict.fromkeys(key for row in rows for key in row["overrides"]))
    axes = [key for key in axes if len({row["overrides"].get(key) for row in rows}) > 1] or axes
    bounds = [f"{name}_{part}" for name in METRICS for part in PARTS]
    columns = [*axes, "state", "validation", *bounds, "error", "folder"]
    with written_aside(folder / "table.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row["overrides"] | row for row in rows)
    lines = [[*axes, "state", "validation", *(METRIC_NAMES[name] for name in METRICS)]]
    for row in rows:
        place = [short_numbers(row["overrides"].get(key, UNKNOWN)) for key in axes]
        figures = [_two_digits(row.get(name)) for name in ("validation", *(f"{name}_value" for name in METRICS))]
        if row.get("auroc_low") is not None:
            figures[1] += f" [{_two_digits(row['auroc_low'])}, {_two_digits(row['auroc_high'])}]"
        lines.append([*place, row["state"], *figures])
    errors = [f"- {row['folder']}: {row['error']}\n" for row in rows if row.get("error")]
    text = "".join([markdown_table(lines), *(["\nFailed:\n\n", *errors] if errors else [])])
    with written_aside(folder / "table.md") as aside:
        aside.write_text(text, encoding="utf-8")
    return text


def _two_digits(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


class SweepTable(Callback):
    """Write table.csv and table.md over the jobs of a sweep, print them, and exit with 2 if one is not done."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Resolve the names of the sweep's folders here, once: what is cached goes to the jobs."""
        str(config.hydra.sweep.dir)
        str(config.hydra.sweep.subdir)
        if config.hydra.launcher._target_.endswith(".SlurmLauncher"):
            from lemlight.sweeps.jobs import wait_for_every_job

            wait_for_every_job()

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Read the states that the jobs left."""
        folder = Path(config.hydra.sweep.dir)
        rows = read_rows(folder, expected_jobs(config))
        if direction := config.hydra.sweeper.get("direction"):  # of a search; a grid has none
            rows = best_first(rows, str(direction))
        print(f"\n{folded(write_table(rows, folder), through='state')}")
        print(f"table: {folder / 'table.csv'}, {folder / 'table.md'}")
        not_done = sum(row["state"] not in FINE for row in rows)
        if not_done:
            sentence = f"{not_done} of {len(rows)} jobs are not done; the same command runs only those"
            print(f"lemlight: {sentence}", file=sys.stderr)
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
    return [list(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]

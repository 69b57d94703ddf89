"""The table over the jobs of a sweep, as CSV and Markdown and for the terminal."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lemlight.files import written_aside
from lemlight.sweeps.names import short_numbers, without_effect
from lemlight.sweeps.state import STATE, read_state

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
    if shown == "running" and not _lock_is_held(job / ".lock"):
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

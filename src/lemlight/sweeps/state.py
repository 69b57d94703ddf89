"""What is known of a job of a sweep: state.json in its folder, there from its start on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lemlight.files import write_json
from lemlight.sweeps.names import WITHOUT_EFFECT

STATE = "state.json"
State = Literal["running", "done", "failed"]


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class JobState:
    """A job of a sweep.

    `state` is running, done or failed (a job that is running and whose lock nobody holds was killed), `overrides` are
    the job's, `config` is the whole configuration it stands for (empty if that could not be used), `error` the
    sentence that it failed with, `result` the metric that it returned. Times are UTC.
    """

    state: State
    overrides: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=now)
    ended: str | None = None
    error: str | None = None
    result: float | None = None

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

"""Several tasks of Slurm in one job of a sweep: the first one leads, the others train with it and write nothing."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lemlight.errors import LemlightError
from lemlight.files import write_json

PLAN = ".tasks.json"
LONGEST_WAIT = 600  # seconds: tasks of one job start together, on slow disks some time apart

Handler = Callable[[int, FrameType | None], Any] | int | None

_received: set[int] = set()  # signals, by this process


@dataclass(frozen=True)
class Plan:
    """What the leading task has decided: to train or not, from which checkpoint; `start` tells it from older plans."""

    start: str
    train: bool
    resume: str | None = None


def in_slurm_job() -> bool:
    """Whether this process was started by Slurm for this one job; what Ray starts inside a Slurm job was not."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def several() -> bool:
    """Whether the job has several tasks, as with `hydra.launcher.tasks_per_node=2`."""
    return in_slurm_job() and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def leads() -> bool:
    """Whether this is the task that keeps account of the job."""
    return not several() or os.environ.get("SLURM_PROCID", "0") == "0"


def announce(folder: Path, train: bool, resume: str | None = None) -> None:
    """Tell the other tasks of this job, if there are any, what the leading one does."""
    if several():
        write_json(asdict(Plan(_start(), train, resume)), folder / PLAN)


def wait_for_plan(folder: Path, longest: float = LONGEST_WAIT) -> Plan:
    """Wait until the leading task has decided.

    Raises:
        LemlightError: it has not for `longest` seconds.
    """
    until = time.monotonic() + longest
    while True:
        plan = _read(folder / PLAN)
        if plan is not None and plan.start == _start():
            return plan
        if time.monotonic() > until:
            raise LemlightError(f"{folder}: the first task of this job has not begun for {longest:.0f} s")
        time.sleep(0.2)


@contextmanager
def watching_signals() -> Iterator[None]:
    """Note Slurm's signals that end a job, and keep submitit's handlers of them from processes forked meanwhile.

    Slurm signals every process of a job, and those that read batches inherit the handlers: each of them would write
    submitit's files, and ask Slurm to start the job once more.
    """
    _received.clear()
    before = {number: signal.getsignal(number) for number in _ending()} if in_slurm_job() else {}
    for number, handler in before.items():
        signal.signal(number, _here_only(handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told_to_end(*numbers: int) -> bool:
    """Whether Slurm has sent this job one of these signals, by default any that ends it."""
    return bool(_received & set(numbers or _ending()))


def _ending() -> tuple[int, int]:
    """By scancel and preemption; by the time limit, some time before it."""
    return signal.SIGTERM, signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def _here_only(handler: Handler) -> Handler:
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            _received.add(number)
            if callable(handler):
                handler(number, frame)

    return handle


def _start() -> str:
    """Name this start of the job; one that Slurm requeued keeps its ID."""
    return "-".join(os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "RESTART_COUNT", "STEP_ID"))


def _read(path: Path) -> Plan | None:
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None

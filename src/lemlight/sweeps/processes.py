"""Processes that are to end: by SIGTERM outside of Slurm (`kill`, `timeout`, a shutdown), or because the sweep has."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, wraps
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write
from torch import distributed

from lemlight.cli import say
from lemlight.errors import LemlightError
from lemlight.files import write_json

CODE = 128 + signal.SIGTERM
GRACE = 10  # seconds

_told = threading.Event()


@contextmanager
def ending_soon() -> Iterator[None]:
    """End this process soon after a SIGTERM, with the code 143 and its job unfinished.

    The job ends with the batch, which Lightning sees to, or with its next error: the signal often goes to the readers
    of the batches as well, and without them there is no batch. That is no failure of the job, and the sweep must not
    go on with the next. Whatever still runs after GRACE seconds is cut off: files are written whole or not at all.
    Whoever has a handler of his own, submitit or Ray, keeps it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _cut_off_in_time()
    signal.signal(signal.SIGTERM, _note(os.getpid()))
    try:
        yield
    except (Exception, SystemExit):
        if not told_to_end():
            raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if told_to_end():
        sys.exit(CODE)


def told_to_end() -> bool:
    """Whether this process was: an error after that may be one of its readers' end."""
    return _told.is_set()


def end_with_parent() -> None:
    """End this process, a worker of joblib, soon after the one that started it: it would train on for nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _note(owner: int) -> Callable[[int, FrameType | None], None]:
    """A handler that does no more than note the signal.

    An exception from a handler may come amid the writing of a checkpoint, where it aborts the process. Torch's own
    raises one at the end of a reader: from here on it is not to.
    """

    def note(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a process forked from this one
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signal.signal(number, signal.SIG_IGN)  # a second one amid what follows would wait for the first, for ever
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _told.set()

    return note


@cache
def _cut_off_in_time() -> None:
    """Start, once, the thread that says so, and ends this process GRACE seconds after the signal."""

    def cut_off() -> None:
        _told.wait()
        say("told to end (SIGTERM): this job is unfinished; the same command goes on")  # a handler must not print
        time.sleep(GRACE)
        os._exit(CODE)

    threading.Thread(target=cut_off, name="cut-off", daemon=True).start()


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


def told_by_slurm(*numbers: int) -> bool:
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


OBSERVER = "child-process-observer"
OF_SLURM = ("SLURM_NTASKS", "SLURM_PROCID")  # by these Lightning believes that Slurm starts its processes


@contextmanager
def own_processes(module: str, resume: str | None) -> Iterator[None]:
    """Let Lightning start further processes for this job, and leave nothing of them to the next one.

    Lightning starts them with this process's own command line. In a multirun that is the whole sweep, so every process
    would repeat all of it. Here the command line is the job's: `python -m module` with the job's overrides, in the
    job's folder, from the same checkpoint `resume`. Afterwards the command line, the environment and the number of
    threads are as before and the process group has ended: with what Lightning leaves behind, the next job with several
    devices would start none and train on a part of the images.

    In a job of Slurm with one task it is Lightning again that starts them, so Slurm is hidden from it; with several
    tasks (several machines) it is Slurm.
    """
    main = sys.modules["__main__"]
    before = HydraConfig.get().run.dir, sys.argv, main.__spec__, dict(os.environ), torch.get_num_threads()
    try:
        _set_run_folder(HydraConfig.get().runtime.output_dir)
        start_processes_as_usual()
        sys.argv = [sys.argv[0], *_command_line(resume)]
        main.__spec__ = find_spec(module)
        if not several():
            for name in OF_SLURM:
                os.environ.pop(name, None)
        with watching_signals():
            yield
    finally:
        _end_processes()
        folder, sys.argv, main.__spec__, environment, threads = before
        _set_run_folder(folder)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def _command_line(resume: str | None) -> list[str]:
    hydra = HydraConfig.get()
    quoted = str(resume).replace("'", "\\'")
    more = [f"resume='{quoted}'"] if resume else []
    configs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    words = [word for path in configs for word in ("--config-dir", path)]
    found = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
    return [*words, *hydra.overrides.task, *more, *found, "hydra.mode=RUN"]


def start_processes_as_usual() -> None:
    """Let a worker of joblib start processes as any other process does: by its own way they end at once.

    It hands them the name of a start method that only joblib knows. The worker itself is to end with the sweep.
    """
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method(None, force=True)
        end_with_parent()


def _set_run_folder(folder: str) -> None:
    hydra = cast(DictConfig, HydraConfig.get())
    with read_write(hydra):
        hydra.run.dir = folder


def _end_processes() -> None:
    """Leave the process group, and stop the thread that would kill this process once another one has failed."""
    for thread in threading.enumerate():
        if thread.name == OBSERVER:
            for process in getattr(thread, "_child_processes", []):
                if distributed.is_initialized():  # an error left it open: the others wait for this process
                    process.kill()
            thread._child_processes = []  # type: ignore[attr-defined]  # of Lightning: it then ends by itself
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


DELAY = 30  # seconds at most between two looks at the queue


def wait_for_every_job() -> None:
    """Let submitit wait for all jobs of a sweep and then return, in this process.

    By itself it raises at the first job that left no result, while others still run, and the sweep has no table. Where
    Slurm keeps no accounts it asks `sacct` in vain and waits for a lost job forever: there the queue is asked instead.
    """
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import FailedJobError, UncompletedJobError
    from submitit.slurm.slurm import SlurmJob

    whole = SlurmJob.results
    if hasattr(whole, "__wrapped__"):
        return  # a sweeper that starts several batches of jobs

    @wraps(whole)
    def results(job: Any) -> list[Any]:
        try:
            return list(whole(job))
        except (FailedJobError, UncompletedJobError) as error:
            say(f"job {job.job_id} of Slurm left no result: {str(error).strip().splitlines()[-1]}")
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None)]  # its folder tells its state

    SlurmJob.results = results  # type: ignore[assignment, method-assign]
    if not keeps_accounts():
        SlurmJob.watcher = queue_watcher()


def keeps_accounts() -> bool:
    """Whether `sacct` answers."""
    return subprocess.run(["sacct", "--noheader", "--jobs=1"], capture_output=True, check=False).returncode == 0


def queue_watcher() -> Any:
    """Build a watcher for submitit that asks `squeue`; a job that is not there any more has ended."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str]:
            return ["squeue", "--noheader", "--array", "--format=%i"]

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            there = (string if isinstance(string, str) else string.decode()).split()
            states = {job: "RUNNING" if job in there else "COMPLETED" for job in self._registered}
            return {job: {"JobID": job, "State": state} for job, state in states.items()}

    return QueueWatcher(delay_s=DELAY)

"""A job of a sweep: it trains in a process of its own, and its folder always says what became of it.

Hydra's launcher (basic, joblib, Ray, submitit) calls `run_job`, which keeps account and starts the very command of a
single run, `python -m lemlight.train ... hydra.run.dir=JOB hydra.mode=RUN`. A crash so ends one job, its memory and its
process group end with it, and Lightning can start further processes as in any single run. Of a job of Slurm with
several tasks the first one decides, and the others train with it.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache, wraps
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import lemlight
from lemlight.cli import MISTAKES, end, explain, say
from lemlight.errors import LemlightError
from lemlight.files import write_json
from lemlight.sweeps.names import SWEEP, Sweep, overrides_of_the_sweep
from lemlight.sweeps.state import LOCK, JobState, differences, read_state

JOB = "LEMLIGHT_JOB"  # the variable that tells a process whose job it trains
OF_SLURM = ("SLURM_NTASKS", "SLURM_PROCID")  # by these Lightning believes that Slurm starts its processes
OUTCOME = ".outcome.json"  # of the training, until it stands in state.json
TRAINING = ".training.lock"  # held by the training itself, which may outlive a killed job by some seconds
PLAN = ".tasks.json"  # of the first task of a job of Slurm, for the others
LONGEST_WAIT = 600  # seconds: tasks of one job start together, on slow disks some time apart
DELAY = 30  # seconds at most between two looks at the queue
ERROR = "error.txt"
LAST = Path("checkpoints", "last.ckpt")
REPLACED = "replaced"
KEPT = (".hydra", "train.log", LOCK, TRAINING, PLAN, REPLACED)  # already those of the new run, or of none
TOLD = 128 + signal.SIGTERM
GRACE = 10  # seconds from a SIGTERM until what still trains is cut off: files are written whole or not at all


def run_job(config: DictConfig) -> float | None:
    """Train with the config of a job unless that is done; what goes wrong there ends this job alone.

    Returns the job's metric, None if it failed, met Slurm's time limit or runs elsewhere. An interruption by the user,
    by SIGTERM or by Slurm is no failure: the job stays "running", which is unfinished, and the same command goes on
    from its last checkpoint.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    sweep = Sweep(overrides_of_the_sweep(config), list(hydra.sweeper.get("params") or ()))
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid)  # a worker of joblib outlives its sweep
    try:
        with _exit_on_sigterm():
            if not leads():
                train, resume = wait_for_plan(folder)
                if train:
                    _train(folder, resume, sweep, leaves_outcome=False)  # the leading task says what it failed with
                return None
            with FileLock(folder / LOCK, timeout=0):
                return _keep_account(config, folder, sweep)
    except Timeout:
        print(f"{folder.name}: runs in another process, skipped")
        announce(folder, train=False)
    except Exception as error:
        if type(error).__name__ != "UncompletedJobError":  # by submitit's handler, before the time limit
            raise
        say(f"{folder.name}: Slurm ends this job, it is unfinished; the same command goes on")
    return None


def _keep_account(config: DictConfig, folder: Path, sweep: Sweep) -> float | None:
    before = read_state(folder)
    overrides = list(HydraConfig.get().overrides.task)
    state = JobState("running", overrides, _plain(config), version=lemlight.__version__)
    output = Path(state.config.get("output") or folder)
    changed = _why_anew(before, state) if before is not None else ""
    if before is not None and before.state == "done" and not changed and (output / "metrics.json").is_file():
        print(f"{folder.name}: done before, skipped")
        announce(folder, train=False)
        return before.result
    if changed:
        _set_aside(folder, changed)
    state.write(folder)
    for left in (folder / ERROR, folder / OUTCOME, *output.glob("checkpoints/.*.ckpt")):  # by the attempt before
        left.unlink(missing_ok=True)
    resume = None
    if before is not None and not changed and (output / LAST).is_file() and output == folder:
        resume = str(output / LAST)
        print(f"{folder.name}: goes on from {resume}")
    announce(folder, train=True, resume=resume)
    code = _train(folder, resume, sweep)
    state = state.after(**_outcome(folder, code))
    state.write(folder)
    return state.result


def _outcome(folder: Path, code: int) -> dict[str, Any]:
    """What the training has left: its `result`, or the `error` that it failed with."""
    with suppress(OSError, ValueError):
        outcome: dict[str, Any] = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        (folder / OUTCOME).unlink()
        return outcome
    if code >= 0:
        return {"error": f"the training ended with exit code {code}: what it said stands above"}
    memory = " (out of memory?)" if code == -signal.SIGKILL else ""
    sentence = f"the training was ended by {signal.Signals(-code).name}{memory}"
    say(f"{folder.name}: {sentence}")
    return {"error": sentence}


def _plain(config: DictConfig) -> dict[str, Any]:
    """The config as JSON holds it; empty if it does not resolve, which the training says."""
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        return {}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str), parse_constant=str)
    return plain


def _why_anew(before: JobState, wanted: JobState) -> str:
    """Say why what is in the folder is no part of the wanted run; empty if it is."""
    if before.version != wanted.version:
        return f"it was run by lemlight {before.version or 'of an older version'}, this is {wanted.version}"
    changed = differences(before.config, wanted.config) if before.config else []
    shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
    return f"its configuration has changed ({shown})" if changed else ""


def _set_aside(folder: Path, why: str) -> None:
    """Move what another run left in the folder out of the way; nothing is deleted."""
    old = [path for path in folder.iterdir() if path.name not in KEPT]
    aside = folder / REPLACED / time.strftime("%Y-%m-%d_%H-%M-%S")
    aside.mkdir(parents=True, exist_ok=True)
    for path in old:
        path.rename(aside / path.name)
    say(f"{folder.name}: {why}, it runs anew; the old results are in {aside}")


def _train(folder: Path, resume: str | None, sweep: Sweep, leaves_outcome: bool = True) -> int:
    """Run the training of the job in `folder` in a process of its own; its exit code."""
    job = {"parent": os.getpid(), "folder": str(folder) if leaves_outcome else None}
    environment = os.environ | {JOB: json.dumps(job), SWEEP: json.dumps(asdict(sweep))}
    if not several_tasks():  # then it is Lightning that starts a process for each device
        environment = {name: value for name, value in environment.items() if name not in OF_SLURM}
    return run_to_its_end(command_of_job(folder, resume), environment)


def command_of_job(folder: Path, resume: str | None) -> list[str]:
    """The command of a single run with the overrides of the current job, in `folder`."""
    hydra = HydraConfig.get()
    configs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    words = [word for path in configs for word in ("--config-dir", path)]
    words += [*hydra.overrides.task, *hydra.overrides.hydra, f"hydra.run.dir={_quoted(folder)}", "hydra.mode=RUN"]
    return [sys.executable, "-m", "lemlight.train", *words, *([f"resume={_quoted(resume)}"] if resume else [])]


def _quoted(path: str | Path) -> str:
    return "'" + str(path).replace("'", "\\'") + "'"


def run_to_its_end(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command as a process group of its own, which ends with whatever ends this process; its exit code.

    Ctrl-C and SIGTERM, which reach this process alone, are handed on once: the command ends as a single run does.
    """
    sys.stdout.flush()
    process = subprocess.Popen(command, env=environment, process_group=0)
    code = None
    try:
        code = process.wait()
        return code
    except BaseException as cut:
        interrupted = isinstance(cut, KeyboardInterrupt)
        process.send_signal(signal.SIGINT if interrupted else signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: no more patience
            process.wait(None if interrupted else GRACE)
        raise
    finally:
        if code != 0:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # also what it started, and a crash left behind
            process.wait()


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Exit with the code 143 on SIGTERM; in a worker of Ray, which has a handler of its own, that one stays."""
    before = signal.getsignal(signal.SIGTERM)
    ours = before in (signal.SIG_DFL, end) or in_slurm_job()
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would disturb the end
        sys.exit(TOLD)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit as cut:
        if cut.code == TOLD:
            say("told to end (SIGTERM): this job is unfinished; the same command goes on")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def end_with(parent: int) -> None:
    """End this process soon after `parent`, which started it: it would train on for nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * GRACE)
        os.kill(0 if os.getpgrp() == os.getpid() else os.getpid(), signal.SIGKILL)  # 0: its whole group

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def leaving_outcome(task: Callable[[DictConfig], float | None]) -> Callable[[DictConfig], float | None]:
    """Let a training that `run_job` has started leave its result, or its error, in the folder of the job.

    Any other training stays as it is, and so do the processes that Lightning starts for one.
    """
    given = os.environ.pop(JOB, None)
    if given is None:
        return task
    job = json.loads(given)
    end_with(job["parent"])
    if job["folder"] is None:
        return task
    folder = Path(job["folder"])

    @wraps(task)
    def run(config: DictConfig) -> float | None:
        with FileLock(folder / TRAINING, timeout=4 * GRACE):
            try:
                result = task(config)
            except Exception as error:
                sentence = explain(error) if isinstance(error, MISTAKES) else f"{type(error).__name__}: {error}"
                (folder / ERROR).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
                write_json({"error": sentence}, folder / OUTCOME)
                raise LemlightError(sentence) from error
            write_json({"result": result}, folder / OUTCOME)
            return result

    return run


def in_slurm_job() -> bool:
    """Whether this process was started by Slurm for this one job; what Ray starts inside a Slurm job was not."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def several_tasks() -> bool:
    """Whether the job has several tasks, as with `hydra.launcher.tasks_per_node=2`."""
    return in_slurm_job() and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def leads() -> bool:
    """Whether this is the task that keeps account of the job."""
    return not several_tasks() or os.environ.get("SLURM_PROCID", "0") == "0"


def announce(folder: Path, train: bool, resume: str | None = None) -> None:
    """Tell the other tasks of this job, if there are any, what the leading one does."""
    if several_tasks():
        write_json({"start": _start(), "train": train, "resume": resume}, folder / PLAN)


def wait_for_plan(folder: Path, longest: float = LONGEST_WAIT) -> tuple[bool, str | None]:
    """Wait until the leading task has decided: whether to train, and from which checkpoint.

    Raises:
        LemlightError: it has not for `longest` seconds.
    """
    until = time.monotonic() + longest
    while True:
        try:
            plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            plan = {}
        if plan.get("start") == _start():
            return plan["train"], plan["resume"]
        if time.monotonic() > until:
            raise LemlightError(f"{folder}: the first task of this job has not begun for {longest:.0f} s")
        time.sleep(0.2)


def _start() -> str:
    """Name this start of the job; one that Slurm requeued keeps its ID."""
    return "-".join(os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "RESTART_COUNT", "STEP_ID"))


def wait_for_every_job() -> None:
    """Let submitit wait for all jobs of a sweep and then return, in this process.

    By itself it raises at the first job that left no result, while others still run, and the sweep has no table. Where
    Slurm keeps no accounts it asks `sacct` in vain and waits for a lost job forever: there the queue is asked instead.
    """
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import FailedJobError, UncompletedJobError
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class QueueWatcher(SlurmInfoWatcher):
        """Asks `squeue`; a job that is not there any more has ended."""

        def _make_command(self) -> list[str]:
            return ["squeue", "--noheader", "--array", "--format=%i"]

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            there = (string if isinstance(string, str) else string.decode()).split()
            states = {job: "RUNNING" if job in there else "COMPLETED" for job in self._registered}
            return {job: {"JobID": job, "State": state} for job, state in states.items()}

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
    accounts = subprocess.run(["sacct", "--noheader", "--jobs=1"], capture_output=True, check=False)
    if accounts.returncode:
        SlurmJob.watcher = QueueWatcher(delay_s=DELAY)

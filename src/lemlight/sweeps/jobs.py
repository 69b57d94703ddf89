"""A job of a sweep: run, gone on with, skipped or failed, and its folder always says which."""

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lemlight.cli import MISTAKES, explain, say
from lemlight.config.check import check
from lemlight.config.commands import TrainConfig
from lemlight.sweeps import processes as ending
from lemlight.sweeps import processes as tasks
from lemlight.sweeps.table import STATE, JobState, differences, read_state

LOCK = ".lock"
ERROR = "error.txt"
LAST = Path("checkpoints", "last.ckpt")
REPLACED = "replaced"
KEPT = (".hydra", "train.log", LOCK, tasks.PLAN, REPLACED)  # already those of the new run, or of none

Train = Callable[[TrainConfig], float | None]


def run_job(values: DictConfig, train: Train) -> float | None:
    """Run `train` on the config of a job unless that is done; whatever goes wrong ends this job alone.

    Returns the job's metric, None if it failed, met Slurm's time limit or runs elsewhere. An interruption by the user,
    by SIGTERM or by Slurm is no failure: the job stays "running", which is unfinished, and the same command goes on
    from its last checkpoint.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        with ending.ending_soon():
            if tasks.leads():
                return _lead(values, train, folder)
            _follow(values, train, folder)
            return None
    finally:
        gc.collect()  # networks and trainers hold one another: free them before the next job builds its own


def _lead(values: DictConfig, train: Train, folder: Path) -> float | None:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{folder.name}: runs in another process, skipped")
        tasks.announce(folder, train=False)
        return None
    try:
        return _run_alone(values, train, folder)
    except Exception as error:
        if ending.told_to_end():
            raise
        if not tasks.told_by_slurm():
            _record_failure(error, folder)
            return None
        say(f"{folder.name}: Slurm ends this job, it is unfinished; the same command goes on")
        if tasks.told_by_slurm(signal.SIGTERM):
            sys.exit(128 + signal.SIGTERM)
        return None
    finally:
        lock.release()


def _follow(values: DictConfig, train: Train, folder: Path) -> None:
    """Train with the leading task, which keeps account."""
    try:
        plan = tasks.wait_for_plan(folder)
        if plan.train:
            train(check(values, TrainConfig).model_copy(update={"resume": plan.resume}))
    except Exception:
        traceback.print_exc()  # into this task's own log: the leading task says what the job failed with


def _run_alone(values: DictConfig, train: Train, folder: Path) -> float | None:
    before = read_state(folder)
    config = check(values, TrainConfig)
    output = Path(config.output)
    state = JobState("running", _overrides(), config.model_dump(mode="json"))
    changed = differences(before.config, state.config) if before is not None and before.config else []
    if before is not None and before.state == "done" and not changed and (output / "metrics.json").is_file():
        print(f"{folder.name}: done before, skipped")
        tasks.announce(folder, train=False)
        return before.result
    if changed:
        _set_aside(folder, changed)
    state.write(folder)
    for left in (folder / ERROR, *output.glob("checkpoints/.*.part")):  # by the attempt before; half-written by a kill
        left.unlink(missing_ok=True)
    last = output / LAST
    if before is not None and before.config and not changed and last.is_file() and output == folder:
        print(f"{folder.name}: goes on from {last}")
        config = config.model_copy(update={"resume": str(last)})
    tasks.announce(folder, train=True, resume=config.resume)
    result = train(config)
    state.done(result).write(folder)
    return result


def _record_failure(error: Exception, folder: Path) -> None:
    sentence = explain(error) if isinstance(error, MISTAKES) else f"{type(error).__name__}: {error}"
    say(sentence)
    tasks.announce(folder, train=False)
    trace = "".join(traceback.format_exception(error))
    if "HYDRA_FULL_ERROR" in os.environ:
        print(trace, file=sys.stderr)
    try:
        (folder / ERROR).write_text(trace, encoding="utf-8")
        state = read_state(folder) or JobState("running", _overrides())
        state.failed(sentence).write(folder)
    except Exception as second:  # a full disk: the job stays "running", which is unfinished
        say(f"{folder / STATE}: {explain(second)}")


def _overrides() -> list[str]:
    return [str(override) for override in HydraConfig.get().overrides.task]


def _set_aside(folder: Path, changed: list[str]) -> None:
    """Move what another configuration left in the folder out of the way; nothing is deleted."""
    old = [path for path in folder.iterdir() if path.name not in KEPT]
    aside = folder / REPLACED / time.strftime("%Y-%m-%d_%H-%M-%S")
    aside.mkdir(parents=True, exist_ok=True)
    for path in old:
        path.rename(aside / path.name)
    shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
    say(f"{folder.name}: its configuration has changed ({shown}), it runs anew; the old results are in {aside}")

"""Jobs of Slurm: those of several tasks, of which the first decides, and waiting for all of a sweep."""

import json
import os
import subprocess
import time
from functools import wraps
from pathlib import Path
from typing import Any

from lemlight.cli import say
from lemlight.errors import LemlightError
from lemlight.files import write_json

PLAN = ".tasks.json"
LONGEST_WAIT = 600  # seconds: tasks of one job start together, on slow disks some time apart
DELAY = 30  # seconds at most between two looks at the queue


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

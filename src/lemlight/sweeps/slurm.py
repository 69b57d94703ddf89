"""The process that waits for the jobs of Slurm: one that is lost (scancel, memory, a node) does not end the sweep."""

import subprocess
from functools import wraps
from typing import Any

from lemlight.cli import say

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

"""Jobs of Slurm, with commands in its place; the real one is in tests/clusters."""

import json
import os
import signal
from contextlib import contextmanager

import pytest
from filelock import FileLock

from lemlight.errors import LemlightError
from lemlight.sweeps import jobs
from lemlight.sweeps.jobs import run_job
from lemlight.sweeps.state import read_state


@pytest.fixture
def two_tasks(monkeypatch):
    """Be the first of two tasks of a job of Slurm."""
    for name, value in {"NTASKS": "2", "PROCID": "0", "JOB_ID": "7", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    return monkeypatch


@contextmanager
def second(two_tasks, folder):
    """Be the second task, while the first one holds the lock."""
    two_tasks.setenv("SLURM_PROCID", "1")
    with FileLock(folder / ".lock"):
        yield
    two_tasks.setenv("SLURM_PROCID", "0")


def test_the_second_task_trains_from_the_checkpoint_of_the_first_and_keeps_no_account(
    two_tasks, job, trainings, tmp_path
):
    trainings.leaves = {"error": "out of luck"}  # after a checkpoint
    run_job(job)
    two_tasks.setenv("SLURM_RESTART_COUNT", "1")
    trainings.leaves = {"result": 0.5}
    assert run_job(job) == 0.5
    before = (tmp_path / "job" / "state.json").read_text()
    with second(two_tasks, tmp_path / "job"):
        assert run_job(job) is None
    assert [command[-1].startswith("resume=") for command, _ in trainings] == [False, True, True]
    assert trainings[1][0] == trainings[2][0]
    assert json.loads(trainings[2][1]["LEMLIGHT_JOB"])["folder"] is None
    assert (tmp_path / "job" / "state.json").read_text() == before


def test_the_second_task_does_nothing_where_the_first_one_has_nothing_to_do(two_tasks, job, trainings, tmp_path):
    run_job(job)
    run_job(job)
    with second(two_tasks, tmp_path / "job"):
        assert run_job(job) is None
    assert len(trainings) == 1


def test_a_plan_of_an_earlier_start_is_none(two_tasks, tmp_path):
    jobs.announce(tmp_path, train=False)
    two_tasks.setenv("SLURM_RESTART_COUNT", "1")
    with second(two_tasks, tmp_path), pytest.raises(LemlightError, match="has not begun"):
        jobs.wait_for_plan(tmp_path, longest=0)


def test_only_a_job_of_several_tasks_has_followers(two_tasks, tmp_path):
    with second(two_tasks, tmp_path):
        assert not jobs.leads()
        two_tasks.delenv("SUBMITIT_EXECUTOR")  # Ray inside a job of Slurm: its jobs have one task each
        assert jobs.leads()
    jobs.announce(tmp_path, train=True)
    assert not (tmp_path / ".tasks.json").exists()


@pytest.mark.parametrize(("count", "hidden"), [("1", True), ("2", False)])
def test_lightning_sees_slurm_only_where_slurm_starts_its_processes(count, hidden, two_tasks, job, trainings):
    two_tasks.setenv("SLURM_NTASKS", count)
    run_job(job)
    assert ("SLURM_NTASKS" not in trainings[0][1]) is hidden
    assert os.environ["SLURM_NTASKS"] == count


submitit = pytest.importorskip("submitit", reason="needs pip install 'lemlight[slurm]'")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_what_slurm_ends_is_unfinished_and_no_failure(number, two_tasks, job, monkeypatch, tmp_path, capsys):
    def at_the_limit(*_):
        raise submitit.core.utils.UncompletedJobError("Job not requeued")

    handlers = {signal.SIGTERM: lambda *_: None, signal.SIGUSR2: at_the_limit}  # as submitit has them
    monkeypatch.setattr(jobs, "run_to_its_end", lambda *_: os.kill(os.getpid(), number))
    before = {one: signal.signal(one, handler) for one, handler in handlers.items()}
    try:
        if number == signal.SIGTERM:
            with pytest.raises(SystemExit) as end:
                run_job(job)
            assert end.value.code == 143
        else:
            assert run_job(job) is None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert read_state(tmp_path / "job").state == "running"
    assert "unfinished; the same command goes on" in capsys.readouterr().err


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Slurm without accounts whose queue holds the jobs in the file `queue`."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"sacct": "exit 1", "squeue": f"cat {tmp_path / 'queue'}"}.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    from submitit.slurm.slurm import SlurmJob

    for name in ("results", "watcher"):
        monkeypatch.setattr(SlurmJob, name, getattr(SlurmJob, name))
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)
    jobs.wait_for_every_job()
    return SlurmJob


def result_of(job, outcome, value):
    job.paths.result_pickle.parent.mkdir(parents=True, exist_ok=True)
    submitit.core.utils.cloudpickle_dump((outcome, value), job.paths.result_pickle)


def test_a_lost_job_has_no_result_and_the_sweep_waits_on(cluster, tmp_path, capsys):
    (tmp_path / "queue").write_text("8\n9_1\n")
    lost, waiting, broken, done = (cluster(tmp_path / "%j", job) for job in ("7", "9_1", "9_2", "9_3"))
    for job in (lost, waiting):
        job.paths.folder.mkdir(parents=True)
    result_of(broken, "error", "Traceback\nImportError: no torch")
    result_of(done, "success", 0.5)
    assert [lost.done(), waiting.done()] == [True, False]
    assert [job.results()[0].return_value for job in (lost, broken)] == [None, None]
    assert done.results() == [0.5]
    said = capsys.readouterr().err
    assert "lemlight: job 7 of Slurm left no result" in said
    assert "lemlight: job 9_2 of Slurm left no result" in said
    before = cluster.results, cluster.watcher
    jobs.wait_for_every_job()  # for a second batch of jobs: nothing more
    assert (cluster.results, cluster.watcher) == before

"""Waiting for jobs of Slurm, with commands in its place; the real one is in tests/clusters."""

import pytest

from lemlight.sweeps.processes import wait_for_every_job

submitit = pytest.importorskip("submitit", reason="needs pip install 'lemlight[slurm]'")


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
    wait_for_every_job()
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


def test_a_second_batch_of_jobs_changes_nothing_more(cluster):
    before = cluster.results, cluster.watcher
    wait_for_every_job()
    assert (cluster.results, cluster.watcher) == before

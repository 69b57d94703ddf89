"""Sweeps on a real Slurm; `sh tests/clusters/slurm.sh` makes one of this machine."""

import shutil
import subprocess
import time

import pandas as pd
import pytest

from tests.sweeps.observed import same_metrics, states, table, wait_for

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'lemlight[slurm]'")


def node_states():
    if shutil.which("sinfo") is None:
        return []
    return subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout.split()


pytestmark = pytest.mark.skipif(
    not {"idle", "mixed"} & set(node_states()), reason="no Slurm with an idle node: sh tests/clusters/slurm.sh"
)
SLURM = "hydra/launcher=submitit_slurm"
LONG = [SLURM, "trainer.max_epochs=12", "pooling=gap", "workers=1", "hydra.launcher.timeout_min=9"]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path):
    yield
    for script in tmp_path.glob("*/.submitit/*/*_submission.sh"):  # of a test that failed
        subprocess.run(["scancel", script.parent.name], check=False)


def logs(folder):
    return "".join(path.read_text() for path in sorted(folder.glob(".submitit/*/*_log.*")))


def epochs(job):
    return pd.read_csv(job / "logs" / "metrics.csv")["epoch"].tolist()


def signal_after_the_first_epoch(process, folder, *options):
    """Let Slurm signal the one job of the sweep in `folder` once it has a checkpoint; the job's ID."""
    assert wait_for((folder / "only" / "checkpoints" / "last.ckpt").is_file, process, seconds=300)
    (script,) = folder.glob(".submitit/*/*_submission.sh")
    subprocess.run(["scancel", *options, script.parent.name], check=True)
    return script.parent.name


def test_a_failed_job_lets_the_other_run_and_alone_runs_again(sweep, tmp_path):
    in_the_way = tmp_path / "sweep" / "pooling-gap" / "checkpoints"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file, where a folder has to be")
    code, said = sweep(SLURM, "pooling=gap,lem")
    assert (code, [row["state"] for row in table(tmp_path / "sweep")]) == (2, ["failed", "done"])
    assert "1 of 2 jobs are not done" in said
    before = states(tmp_path / "sweep")["pooling-lem"]
    in_the_way.unlink()
    code, _ = sweep(SLURM, "pooling=gap,lem")
    assert (code, [row["state"] for row in table(tmp_path / "sweep")]) == (0, ["done", "done"])
    assert states(tmp_path / "sweep")["pooling-lem"] == before
    assert logs(tmp_path / "sweep").count("pooling-lem: done before, skipped") == 1


def test_a_task_for_each_device_trains_as_one_task_for_both(sweep, tmp_path):
    wanted = [SLURM, "trainer.strategy=ddp", "trainer.devices=2", "pooling=gap"]
    assert sweep(*wanted)[0] == 0
    assert pd.read_csv(tmp_path / "sweep" / "only" / "predictions.csv")["image_id"].is_unique
    two_tasks = tmp_path / "two_tasks"
    for _ in range(2):  # the second time there is nothing to do, for either task
        assert sweep(*wanted, "hydra.launcher.tasks_per_node=2", f"hydra.sweep.dir={two_tasks}")[0] == 0
    assert same_metrics(tmp_path / "sweep" / "only", two_tasks / "only")
    printed = logs(two_tasks)
    assert "Traceback" not in printed
    assert "runs in another process" not in printed
    assert printed.count("done before, skipped") == printed.count("figures and report:") == 1


@pytest.mark.parametrize(
    "options", [(), ("--signal=USR2",), ("--signal=KILL",)], ids=["scancel", "time limit", "out of memory"]
)
def test_a_job_that_slurm_ends_is_unfinished_and_goes_on(options, start, sweep, tmp_path):
    """USR2 is what a job gets some time before its time limit; below 10 minutes submitit takes it for that at once."""
    first = start(*LONG)
    signal_after_the_first_epoch(first, tmp_path / "sweep", *options)
    assert first.wait(timeout=300) == 2, (tmp_path / "said.txt").read_text()
    assert [row["state"] for row in table(tmp_path / "sweep")] == ["unfinished"]
    assert len(epochs(tmp_path / "sweep" / "only")) < 12
    assert sweep(*LONG)[0] == 0
    assert "only: goes on from" in logs(tmp_path / "sweep")
    assert epochs(tmp_path / "sweep" / "only") == list(range(12))


def test_a_job_that_may_meet_its_limit_is_started_again_by_slurm(start, tmp_path):
    process = start(*LONG, "hydra.launcher.max_num_timeout=1")
    job = signal_after_the_first_epoch(process, tmp_path / "sweep", "--signal=USR2")
    until = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < until:  # Slurm lets a job wait for two minutes: not here
        subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False, capture_output=True)
        time.sleep(1)
    assert process.poll() == 0, (tmp_path / "said.txt").read_text()
    assert logs(tmp_path / "sweep").count("only: goes on from") == 1
    assert epochs(tmp_path / "sweep" / "only") == list(range(12))

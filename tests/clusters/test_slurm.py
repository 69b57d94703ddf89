"""Sweeps on a real Slurm; `sh tests/clusters/slurm.sh` makes one of this machine."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'lemlight[slurm]'")


def node_states():
    if shutil.which("sinfo") is None:
        return []
    return subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout.split()


pytestmark = pytest.mark.skipif(
    not {"idle", "mixed"} & set(node_states()), reason="no Slurm with an idle node: sh tests/clusters/slurm.sh"
)

IMAGES = ["prepare_workers=1", "dataset.prepare.height=96", "dataset.prepare.width=64"]
TRAINING = [
    *["workers=0", "bootstrap=100", "examples=0", "batch_size=4", "trainer=cpu", "trainer.max_epochs=1"],
    *["scheduler.warmup_epochs=0", "callbacks.progress_bar=false"],
    *["callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.mode=min"],
]
FIGURES = ("metrics.json", "predictions.csv", "logs/metrics.csv")
LONGEST = 300  # seconds of a command


def environment():
    """That of a shell, without what an earlier command or training left in this process."""
    left = ("HYDRA_FULL_ERROR", "PL_", "SLURM_")
    return {key: value for key, value in os.environ.items() if not key.startswith(left)} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Overrides for a phantom of 12 patients that is drawn and prepared once."""
    root = tmp_path_factory.mktemp("phantom")
    data = [f"store={root / 'store'}", f"dataset.root={root / 'images'}", "dataset.patients=12", "dataset.scale=0.25"]
    call = [sys.executable, "-m", "lemlight.prepare", *IMAGES, *data]
    subprocess.run(call, cwd=root, env=environment(), check=True, capture_output=True, timeout=LONGEST)
    return [*IMAGES, *data]


@pytest.fixture
def start(phantom, tmp_path):
    """Start a sweep in the folder `sweep`; what it prints goes to a file beside it."""
    started = []

    def start(*overrides, sweep="sweep"):
        call = [sys.executable, "-m", "lemlight.train", "-m", *phantom, *TRAINING, "hydra/launcher=submitit_slurm"]
        with (tmp_path / "terminal.txt").open("w") as terminal:
            call += [f"hydra.sweep.dir={tmp_path / sweep}", *overrides]
            process = subprocess.Popen(call, cwd=tmp_path, env=environment(), stdout=terminal, stderr=terminal)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
    for script in tmp_path.glob("*/.submitit/*/*_submission.sh"):  # a test that failed leaves nothing behind
        subprocess.run(["scancel", script.parent.name], check=False)


@pytest.fixture
def sweep(start, tmp_path):
    """Run a sweep to its end: its exit code and what it printed."""

    def sweep(*overrides, **options):
        code = start(*overrides, **options).wait(timeout=LONGEST)
        said = (tmp_path / "terminal.txt").read_text()
        assert "Traceback" not in said, said
        return code, said

    return sweep


def state(job):
    return json.loads((job / "state.json").read_text())


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def logs(folder):
    return "".join(path.read_text() for path in sorted(folder.glob(".submitit/*/*_log.*")))


def signal_after_the_first_epoch(process, folder, *options):
    """Let Slurm signal the one job of the sweep in `folder` once it has a checkpoint; the job's ID."""
    until = time.monotonic() + LONGEST
    while not (folder / "only" / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None, "the sweep ended before its first checkpoint"
        assert time.monotonic() < until
        time.sleep(0.02)
    (script,) = folder.glob(".submitit/*/*_submission.sh")
    subprocess.run(["scancel", *options, script.parent.name], check=True)
    return script.parent.name


def assert_trained_once(job, epochs):
    assert state(job)["state"] == "done"
    assert [int(row["epoch"]) for row in rows(job / "logs" / "metrics.csv")] == list(range(epochs))


def test_a_failed_job_lets_the_other_run_and_alone_runs_again(sweep, tmp_path):
    in_the_way = tmp_path / "sweep" / "pooling=gap" / "checkpoints"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file, where a folder has to be")
    code, said = sweep("pooling=gap,lem")
    table = rows(tmp_path / "sweep" / "table.csv")
    assert (code, [(row["pooling"], row["state"]) for row in table]) == (2, [("gap", "failed"), ("lem", "done")])
    assert "1 of 2 jobs are not done" in said
    before = state(tmp_path / "sweep" / "pooling=lem")
    in_the_way.unlink()
    code, _ = sweep("pooling=gap,lem")
    assert (code, [row["state"] for row in rows(tmp_path / "sweep" / "table.csv")]) == (0, ["done", "done"])
    assert state(tmp_path / "sweep" / "pooling=lem") == before
    assert logs(tmp_path / "sweep").count("pooling=lem: done before, skipped") == 1


def test_one_sweep_mixes_one_device_and_two(sweep, tmp_path):
    assert sweep("trainer.strategy=ddp", "trainer.devices=2,1", "pooling=gap")[0] == 0
    two, one = (tmp_path / "sweep" / f"trainer.devices={devices}" for devices in (2, 1))
    steps = [int(rows(job / "logs" / "metrics.csv")[0]["step"]) for job in (two, one)]
    assert steps[0] * 2 == steps[1]  # half of the images on each device
    images = [[row["image_id"] for row in rows(job / "predictions.csv")] for job in (two, one)]
    assert images[0] == images[1]
    assert len(set(images[0])) == len(images[0]) == 8
    assert (two / "train_ddp_process_1.log").is_file()


def test_a_task_for_each_device_trains_as_one_task_for_both(sweep, tmp_path):
    wanted = ["trainer.strategy=ddp", "trainer.devices=2", "pooling=gap"]
    assert sweep(*wanted, sweep="one_task")[0] == 0
    for _ in range(2):  # the second time there is nothing to do, for either task
        assert sweep(*wanted, "hydra.launcher.tasks_per_node=2", sweep="two_tasks")[0] == 0
    one, two = tmp_path / "one_task" / "only", tmp_path / "two_tasks" / "only"
    for name in FIGURES:
        assert (one / name).read_text() == (two / name).read_text()
    files = [{path.relative_to(job) for path in job.rglob("*")} for job in (one, two)]
    assert {path.name for path in files[0] ^ files[1]} == {"train_ddp_process_1.log", ".tasks.json"}
    printed = logs(tmp_path / "two_tasks")
    assert "Traceback" not in printed
    assert "runs in another process" not in printed
    assert printed.count("done before, skipped") == 1
    assert printed.count("figures and report:") == 1


@pytest.mark.parametrize(
    "options", [(), ("--signal=USR2",), ("--signal=KILL",)], ids=["scancel", "time limit", "out of memory"]
)
def test_a_job_that_slurm_ends_is_unfinished_and_goes_on(options, start, sweep, tmp_path):
    """USR2 is what a job gets some time before its time limit; below 10 minutes submitit takes it for that at once."""
    wanted = ["trainer.max_epochs=12", "pooling=gap", "workers=1", "hydra.launcher.timeout_min=9"]
    first = start(*wanted)
    signal_after_the_first_epoch(first, tmp_path / "sweep", *options)
    assert first.wait(timeout=LONGEST) == 2, (tmp_path / "terminal.txt").read_text()
    (row,) = rows(tmp_path / "sweep" / "table.csv")
    assert row["state"] == "unfinished"
    assert len(rows(tmp_path / "sweep" / "only" / "logs" / "metrics.csv")) < 12
    code, _ = sweep(*wanted)
    assert code == 0
    assert "only: goes on from" in logs(tmp_path / "sweep")
    assert_trained_once(tmp_path / "sweep" / "only", epochs=12)


def test_a_job_that_may_meet_its_limit_is_started_again_by_slurm(start, tmp_path):
    limits = ["hydra.launcher.timeout_min=9", "hydra.launcher.max_num_timeout=1"]
    process = start("trainer.max_epochs=12", "pooling=gap", "workers=1", *limits)
    job = signal_after_the_first_epoch(process, tmp_path / "sweep", "--signal=USR2")
    until = time.monotonic() + LONGEST
    while process.poll() is None and time.monotonic() < until:  # Slurm lets a job wait for two minutes: not here
        subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False, capture_output=True)
        time.sleep(1)
    assert process.poll() == 0, (tmp_path / "terminal.txt").read_text()
    assert logs(tmp_path / "sweep").count("only: goes on from") == 1
    assert_trained_once(tmp_path / "sweep" / "only", epochs=12)

"""Sweeps in a real Ray of this machine, as docs/engines/ray.md has them: a queue, jobs on two devices, a cluster."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="a queue of Ray needs pip install 'lemlight[ray]'")

SCRIPT = Path(__file__).with_name("ray.sh")
LONGEST = 400  # seconds of a command; an idle machine takes a fifth of it
TINY = [
    "dataset.patients=12",
    "dataset.scale=0.25",
    "dataset.prepare.height=96",
    "dataset.prepare.width=64",
    "workers=0",
    "prepare_workers=1",
    "bootstrap=100",
    "examples=0",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "scheduler.warmup_epochs=0",
    "callbacks.progress_bar=false",
    "callbacks.checkpoint.monitor=val/loss",
    "callbacks.checkpoint.mode=min",
    "batch_size=4",
]
# a Ray of the command's own, whatever else runs on this machine
OWN = [
    "hydra/launcher=ray",
    "hydra.launcher.ray.init.address=local",
    "+hydra.launcher.ray.init.include_dashboard=false",
]
EXISTING = [
    "hydra/launcher=ray",
    "+hydra.launcher.ray.init.address=auto",
    "+hydra.launcher.ray.init.object_store_memory=null",
]
FIGURES = ("metrics.json", "predictions.csv", "logs/metrics.csv")


@dataclass(frozen=True)
class Done:
    code: int
    said: str


def environment(**more):
    left = ("HYDRA_FULL_ERROR", "PL_", "RAY_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left)}
    return kept | {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"} | more


def train(cwd, *arguments, **variables):
    """Run the real command; what it says goes to a file, which no process that is left over can hold up."""
    flags = [word for word in arguments if word == "-m"]
    call = [sys.executable, "-m", "lemlight.train", *flags, *TINY, *(word for word in arguments if word not in flags)]
    with tempfile.TemporaryFile("w+") as terminal:
        done = subprocess.run(
            call, cwd=cwd, env=environment(**variables), stdout=terminal, stderr=terminal, timeout=LONGEST
        )
        terminal.seek(0)
        return Done(done.returncode, terminal.read())


def states(jobs):
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(jobs.glob("*/state.json"))}


def rows(jobs):
    with (jobs / "table.csv").open(newline="") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return [f"dataset.root={root / 'images'}", f"store={root / 'store'}"]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two cores that runs already; the variable by which a command finds it."""
    folder = tempfile.mkdtemp(prefix="lemlight-ray-", dir="/tmp")  # short, see ray.sh
    call = dict(env=environment(PYTHON=sys.executable, FOLDER=folder), text=True, capture_output=True, timeout=LONGEST)
    up = subprocess.run(["sh", str(SCRIPT), "start"], **call)
    if up.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"no Ray cluster can be started here: {up.stderr.strip()}")
    yield {"RAY_TMPDIR": folder}
    subprocess.run(["sh", str(SCRIPT), "stop"], **call, check=True)
    shutil.rmtree(folder)


def test_a_job_that_fails_in_the_queue_lets_the_others_run_and_alone_runs_again(phantom, tmp_path):
    jobs = tmp_path / "jobs"
    command = ["-m", *phantom, *OWN, "+hydra.launcher.ray.init.num_cpus=2", f"hydra.sweep.dir={jobs}"]
    command += ["pooling=gap,lem", "seed=0,1"]
    in_the_way = jobs / "pooling=lem+seed=0" / "logs"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where the job wants a folder")

    first = train(tmp_path, *command)
    before, table = states(jobs), rows(jobs)
    assert first.code == 2, first.said
    assert {name: state["state"] for name, state in before.items()} == {
        "pooling=gap+seed=0": "done",
        "pooling=gap+seed=1": "done",
        "pooling=lem+seed=0": "failed",
        "pooling=lem+seed=1": "done",
    }
    assert {name: row["state"] for name, row in table.items()} == {name: before[name]["state"] for name in before}
    assert table["pooling=lem+seed=0"]["error"] == before["pooling=lem+seed=0"]["error"]
    assert first.said.count("1 of 4 jobs are not done") == 1
    assert first.said.count("table: ") == 1
    assert first.said.count("figures and report:") == 3  # what the jobs print comes through
    assert "Traceback" not in first.said

    in_the_way.unlink()
    second = train(tmp_path, *command)
    after = states(jobs)
    assert second.code == 0, second.said
    assert second.said.count("done before, skipped") == 3
    assert {state["state"] for state in after.values()} == {"done"}
    assert {name for name in after if after[name] != before[name]} == {"pooling=lem+seed=0"}
    assert {row["state"] for row in rows(jobs).values()} == {"done"}


def test_one_process_of_ray_runs_jobs_on_one_device_and_on_two(phantom, tmp_path):
    jobs = tmp_path / "jobs"
    command = [*phantom, *OWN, "+hydra.launcher.ray.init.num_cpus=1", "trainer.strategy=ddp", f"hydra.sweep.dir={jobs}"]
    done = train(tmp_path, "-m", *command, "trainer.devices=2,1", "pooling=gap,lem")
    assert done.code == 0, done.said
    for pooling in ("gap", "lem"):
        two, one = (jobs / f"pooling={pooling}+trainer.devices={devices}" for devices in (2, 1))
        assert (two / "train_ddp_process_1.log").is_file()
        assert not (one / "train_ddp_process_1.log").exists()
        steps = [pd.read_csv(job / "logs" / "metrics.csv")["step"].tolist() for job in (two, one)]
        assert steps[0][0] * 2 == steps[1][0]  # every second image on each device: none trained on all or on half
        tested = [pd.read_csv(job / "predictions.csv")["image_id"] for job in (two, one)]
        assert tested[0].is_unique
        assert set(tested[0]) == set(tested[1])
    assert len(states(jobs)) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs"]  # no process ran in a folder of its own

    alone = tmp_path / "alone"
    words = ["trainer.strategy=ddp", "trainer.devices=2", "pooling=lem", f"hydra.run.dir={alone}"]
    done = train(tmp_path, *phantom, *words)
    assert done.code == 0, done.said
    for name in FIGURES:
        assert (jobs / "pooling=lem+trainer.devices=2" / name).read_text() == (alone / name).read_text()


def test_a_cluster_that_runs_already_takes_the_jobs_and_stays(cluster, phantom, tmp_path):
    jobs = tmp_path / "jobs"
    command = ["-m", *phantom, *EXISTING, f"hydra.sweep.dir={jobs}", "pooling=gap,lem"]
    first = train(tmp_path, *command, **cluster)
    before = states(jobs)
    assert first.code == 0, first.said
    assert "existing Ray cluster" in first.said
    assert {row["state"] for row in rows(jobs).values()} == {"done"}
    assert [state["state"] for state in before.values()] == ["done", "done"]
    second = train(tmp_path, *command, **cluster)
    assert second.code == 0, second.said
    assert "existing Ray cluster" in second.said
    assert second.said.count("done before, skipped") == 2
    assert states(jobs) == before

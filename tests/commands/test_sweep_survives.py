"""Sweeps that fail in part, are killed, and are called again: only what is open runs, and the figures stay the same."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lemlight.recipe.train

POOLINGS = ("gap", "lem")
FIGURES = ("metrics.json", "predictions.csv", "logs/metrics.csv")


def state(job):
    return json.loads((job / "state.json").read_text())


def started(sweep):
    return {job.parent.name: state(job.parent)["started"] for job in sweep.glob("*/state.json")}


def table(sweep):
    with (sweep / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(lemlight_run, folder_data, tmp_path_factory):
    """An undisturbed sweep of two jobs, and the folder that it was started in."""
    cwd = tmp_path_factory.mktemp("whole")
    return lemlight_run("train", "-m", *folder_data, "trainer.max_epochs=3", "pooling=gap,lem", cwd=cwd), cwd


def only_folder(cwd):
    (folder,) = (cwd / "multirun").iterdir()
    return folder


def test_the_folders_are_named_by_the_command(whole):
    _, cwd = whole
    sweep = only_folder(cwd)
    assert sweep.name.startswith("pooling=gap,lem+batch_size=8+")
    assert len(sweep.name) <= 100
    assert {job.name for job in sweep.iterdir() if job.is_dir()} == {"pooling=gap", "pooling=lem"}


def test_the_table_comes_by_itself(whole):
    done, cwd = whole
    rows = table(only_folder(cwd))
    assert [(row["pooling"], row["state"]) for row in rows] == [("gap", "done"), ("lem", "done")]
    for row in rows:
        summary = json.loads((only_folder(cwd) / row["folder"] / "metrics.json").read_text())
        for name in ("auroc", "acc", "sensitivity", "specificity", "f1"):
            assert float(row[f"{name}_value"]) == summary[name]["value"]
    text = (only_folder(cwd) / "table.md").read_text()
    assert text in done.out
    head = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    assert head == ["pooling", "state", "validation", "AUC", "ACC", "sensitivity", "specificity", "F1", "DSC"]


def test_a_search_is_given_the_validation_split_and_not_the_test_split(whole):
    """What a job returns to a sweeper is the monitored figure of its best checkpoint, here the lowest loss."""
    _, cwd = whole
    for job in (only_folder(cwd) / f"pooling={pooling}" for pooling in POOLINGS):
        with (job / "logs" / "metrics.csv").open(newline="") as file:
            losses = [float(row["val/loss"]) for row in csv.DictReader(file)]
        assert state(job)["result"] == pytest.approx(min(losses))


def test_a_sweep_that_is_done_runs_nothing_again(whole, lemlight_run, folder_data, monkeypatch):
    _, cwd = whole
    before = started(only_folder(cwd))
    monkeypatch.setattr(lemlight.recipe.train, "train", None)  # it would fail
    again = lemlight_run("train", "-m", *folder_data, "trainer.max_epochs=3", "pooling=gap,lem", cwd=cwd)
    assert again.out.count("done before, skipped") == 2
    assert started(only_folder(cwd)) == before


def test_a_killed_sweep_goes_on_where_it_was(
    whole, lemlight_run, folder_data, own_environment, tiny_overrides, tmp_path
):
    _, cwd = whole
    wanted = [*folder_data, "trainer.max_epochs=3", "pooling=gap,lem"]
    call = [sys.executable, "-m", "lemlight.train", "-m", *tiny_overrides, *wanted]
    name = only_folder(cwd).name
    last = tmp_path / "multirun" / name / "pooling=lem" / "checkpoints" / "last.ckpt"
    with (tmp_path / "terminal.txt").open("w") as terminal:
        process = subprocess.Popen(call, cwd=tmp_path, env=own_environment, stdout=terminal, stderr=terminal)
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None and not last.is_file():
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL, (tmp_path / "terminal.txt").read_text()
    sweep = tmp_path / "multirun" / name
    assert [state(sweep / f"pooling={pooling}")["state"] for pooling in POOLINGS] == ["done", "running"]
    before = started(sweep)
    again = lemlight_run("train", "-m", *wanted, cwd=tmp_path)
    after = started(sweep)
    assert again.out.count("done before, skipped") == 1
    assert "goes on from" in again.out
    assert after["pooling=gap"] == before["pooling=gap"]
    for pooling in POOLINGS:
        job = f"pooling={pooling}"
        for file in FIGURES:
            assert (sweep / job / file).read_text() == (only_folder(cwd) / job / file).read_text()


def test_a_failed_job_is_listed_and_alone_runs_again(lemlight_run, folder_data, tmp_path, monkeypatch):
    real, seen = lemlight.recipe.train.train, []

    def breaks_once(config, *arguments):
        seen.append(config.pooling.name)
        if config.pooling.name == "gap":
            raise RuntimeError("out of luck\nin two lines")
        return real(config, *arguments)

    monkeypatch.setattr(lemlight.recipe.train, "train", breaks_once)
    wanted = ["-m", *folder_data, "pooling=gap,lem"]
    done = lemlight_run("train", *wanted, cwd=tmp_path, fails=True)
    sweep = only_folder(tmp_path)
    assert "lemlight: RuntimeError: out of luck" in done.err
    assert "1 of 2 jobs are not done" in done.err
    assert "- pooling=gap: RuntimeError: out of luck in two lines" in done.out
    assert [row["state"] for row in table(sweep)] == ["failed", "done"]
    assert table(sweep)[0]["error"] == "RuntimeError: out of luck in two lines"
    assert "breaks_once" in (sweep / "pooling=gap" / "error.txt").read_text()
    monkeypatch.setattr(lemlight.recipe.train, "train", real)
    before = started(sweep)
    lemlight_run("train", *wanted, cwd=tmp_path)
    assert [row["state"] for row in table(sweep)] == ["done", "done"]
    assert not (sweep / "pooling=gap" / "error.txt").exists()
    assert started(sweep)["pooling=lem"] == before["pooling=lem"]
    assert seen == ["gap", "lem"]


def test_a_mistake_of_the_user_fails_its_job_alone(lemlight_run, folder_data, tmp_path):
    store, choice, root = folder_data
    roots = f"dataset.root={tmp_path / 'missing'},{root.partition('=')[2]}"
    done = lemlight_run("train", "-m", store, choice, roots, "pooling=gap,mean", cwd=tmp_path, fails=True)
    assert "Could not find 'pooling/mean'" in done.err  # Hydra checks the whole grid before any job


def test_an_impossible_value_fails_its_job_before_any_work(lemlight_run, folder_data, tmp_path):
    done = lemlight_run("train", "-m", *folder_data, "seed=-1", cwd=tmp_path, fails=True)
    (row,) = table(only_folder(tmp_path))
    assert (row["state"], row["error"]) == ("failed", row["error"])
    assert "seed=-1" in row["error"]
    assert "lemlight: the configuration cannot be used" in done.err


def test_a_test_that_failed_is_done_again_without_training(lemlight_run, folder_data, tmp_path, monkeypatch):
    wanted = ["-m", *folder_data, "pooling=gap"]
    real = lemlight.recipe.train.write_results
    monkeypatch.setattr(
        lemlight.recipe.train, "write_results", lambda *_: (_ for _ in ()).throw(MemoryError("no room"))
    )
    lemlight_run("train", *wanted, cwd=tmp_path, fails=True)
    (job,) = (path.parent for path in only_folder(tmp_path).glob("*/state.json"))
    written = (job / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert state(job)["error"] == "MemoryError: no room"
    monkeypatch.setattr(lemlight.recipe.train, "write_results", real)
    lemlight_run("train", *wanted, cwd=tmp_path)
    assert state(job)["state"] == "done"
    assert (job / "checkpoints" / "last.ckpt").stat().st_mtime_ns == written


def test_another_configuration_in_a_job_runs_anew_and_keeps_the_old_results(lemlight_run, folder_data, tmp_path):
    where = [f"hydra.sweep.dir={tmp_path / 'mine'}", "hydra.sweep.subdir=job"]
    lemlight_run("train", "-m", *where, *folder_data, "pooling=gap", cwd=tmp_path)
    job = tmp_path / "mine" / "job"
    old = (job / "metrics.json").read_text()
    same = lemlight_run("train", "-m", *where, *folder_data, "pooling=gap", "prepare_workers=2", cwd=tmp_path)
    assert "done before, skipped" in same.out
    other = lemlight_run("train", "-m", *where, *folder_data, "pooling=gap", "seed=1", cwd=tmp_path)
    assert "its configuration has changed (seed), it runs anew" in other.err
    assert state(job)["config"]["seed"] == 1
    (kept,) = job.glob("replaced/*/metrics.json")
    assert kept.read_text() == old
    assert json.loads((kept.parent / "state.json").read_text())["config"]["seed"] == 0


def test_memory_does_not_grow_from_job_to_job(lemlight_run, folder_data, tmp_path, monkeypatch):
    real, resident = lemlight.recipe.train.train, []

    def measured(config, *arguments):
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return real(config, *arguments)

    monkeypatch.setattr(lemlight.recipe.train, "train", measured)
    lemlight_run("train", "-m", *folder_data, "pooling=lem", "seed=0,1,2,3,4,5", cwd=tmp_path)
    assert len(resident) == 6
    assert resident[5] - resident[2] < 60, resident  # MiB; the network with its gradients and moments is 60

"""Real sweeps: whole, failing in part, killed, told to end, and called again; on one device and on two."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from tests.commands.conftest import TINY, environment
from tests.sweeps.observed import processes_of, same_metrics, states, table, wait_for

COMMAND = ["trainer.max_epochs=2", "pooling=gap,lem"]


@pytest.fixture
def start(folder_data, tmp_path):
    """Start a sweep in tmp_path / "sweep", in a session of its own; the process says all to tmp_path / "said.txt"."""
    started = []

    def start(*overrides):
        call = [sys.executable, "-m", "lemlight.train", "-m", *TINY, *folder_data, "hydra.sweep.dir=sweep"]
        with (tmp_path / "said.txt").open("w") as said:
            process = subprocess.Popen(
                [*call, *overrides],
                cwd=tmp_path,
                env=environment(),
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # behind a shell it is ignored
            )
        started.append(process)
        return process

    yield start
    for process in started:
        for left in processes_of(process.pid):
            os.kill(left, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(lemlight_run, folder_data, tmp_path_factory):
    """An undisturbed sweep of two jobs, and its folder."""
    cwd = tmp_path_factory.mktemp("whole")
    done = lemlight_run("train", "-m", *folder_data, *COMMAND, cwd=cwd, own_process=True)
    (folder,) = (cwd / "multirun").iterdir()
    return done, folder


def test_the_folders_are_named_by_the_command_and_the_table_comes_by_itself(whole):
    done, sweep = whole
    assert sweep.name.startswith("pooling-gap@lem+batch_size-8+")
    assert len(sweep.name) <= 100
    assert [(row["pooling"], row["state"]) for row in table(sweep)] == [("gap", "done"), ("lem", "done")]
    for row in table(sweep):
        assert row["folder"] == f"pooling-{row['pooling']}"
        summary = json.loads((sweep / row["folder"] / "metrics.json").read_text())
        for name in ("auroc", "acc", "sensitivity", "specificity", "f1"):
            assert float(row[f"{name}_value"]) == summary[name]["value"]
    text = (sweep / "table.md").read_text()
    assert text in done.out
    head = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    assert head == ["pooling", "state", "validation", "AUC", "accuracy", "sensitivity", "specificity", "F1", "Dice"]


def test_a_sweep_that_is_done_runs_nothing_again_and_is_quick(whole, lemlight_run, folder_data):
    _, sweep = whole
    before = states(sweep)
    again = lemlight_run("train", "-m", *folder_data, *COMMAND, cwd=sweep.parents[1])
    assert again.out.count("done before, skipped") == 2
    assert states(sweep) == before


def test_a_report_compares_the_runs_and_leaves_page_and_tables(whole, lemlight_run):
    done = lemlight_run("report", f"runs={whole[1]}", "question=Does LEM find lesions better than GAP?")
    assert str(done.folder / "report.html") in done.out
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    for words in ("Does LEM find lesions better than GAP?", "python -m lemlight.train"):
        assert words in page
    compared = pd.read_csv(done.folder / "table.csv")
    assert dict(zip(compared["method"], compared["runs"], strict=True)) == {"gap": 1, "lem": 1}
    assert "One run (one seed) only of every method" in done.out
    assert pd.read_csv(done.folder / "runs.csv")["state"].tolist() == ["done"] * 2
    assert "auroc" in set(pd.read_csv(done.folder / "differences.csv")["metric"])


def test_a_report_of_nothing_and_one_into_a_run_are_refused(refused, whole, tmp_path):
    assert "set runs=DIR" in refused("report", f"runs={tmp_path}")
    assert "set runs=DIR" in refused("report", f"runs={tmp_path / 'gone'}")
    assert "resamples=3" in refused("report", f"runs={whole[1]}", "resamples=3")
    assert "output=DIR" in refused("report", f"runs={whole[1]}", f"output={whole[1] / 'pooling-lem'}")


def test_the_process_that_keeps_account_imports_nothing_heavy():
    heavy = "{'torch', 'pandas', 'matplotlib', 'pytorch_lightning'} & set(sys.modules)"
    code = f"import sys, lemlight.train, lemlight.sweeps.jobs, lemlight.sweeps.state; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_job_that_fails_lets_the_others_run_and_a_killed_sweep_goes_on_where_it_was(whole, start, tmp_path):
    """Here the first training is done and its report fails: the second start trains no epoch more of it."""
    gap, lem = (tmp_path / "sweep" / f"pooling-{name}" for name in ("gap", "lem"))
    (gap / "report.html").mkdir(parents=True)
    process = start(*COMMAND)
    assert wait_for((lem / "checkpoints" / "last.ckpt").is_file, process), (tmp_path / "said.txt").read_text()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    said, before = (tmp_path / "said.txt").read_text(), states(tmp_path / "sweep")
    assert [state["state"] for state in before.values()] == ["failed", "running"]
    error = before["pooling-gap"]["error"]
    assert "report.html" in error
    assert f"lemlight: {error}" in said
    assert "Traceback" not in said
    assert "Traceback" in (gap / "error.txt").read_text()
    written = (gap / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    (gap / "report.html").rmdir()
    assert start(*COMMAND).wait(timeout=120) == 0
    assert (tmp_path / "said.txt").read_text().count("goes on from") == 2
    assert [row["state"] for row in table(tmp_path / "sweep")] == ["done", "done"]
    assert (gap / "checkpoints" / "last.ckpt").stat().st_mtime_ns == written
    assert not (gap / "error.txt").exists()
    assert all(same_metrics(job, whole[1] / job.name) for job in (gap, lem))


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [(signal.SIGINT, os.kill, 130), (signal.SIGTERM, os.killpg, 143)],
    ids=["interrupted", "told to end with its group"],
)
def test_an_interruption_ends_the_sweep_and_leaves_the_job_unfinished(number, send, code, start, tmp_path):
    process = start("workers=2", "trainer.max_epochs=500", "pooling=gap,lem")
    log = tmp_path / "sweep" / "pooling-gap" / "logs" / "metrics.csv"
    assert wait_for(log.is_file, process), (tmp_path / "said.txt").read_text()
    send(process.pid, number)
    assert process.wait(timeout=60) == code, (tmp_path / "said.txt").read_text()
    assert "Traceback" not in (tmp_path / "said.txt").read_text()
    assert {name: state["state"] for name, state in states(tmp_path / "sweep").items()} == {"pooling-gap": "running"}
    assert not processes_of(process.pid)


def test_workers_of_joblib_end_with_their_sweep(start, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = start("trainer.max_epochs=500", "pooling=gap,lem", *launcher)
    logs = [tmp_path / "sweep" / f"pooling-{name}" / "logs" / "metrics.csv" for name in ("gap", "lem")]
    assert wait_for(lambda: all(log.is_file() for log in logs), process), (tmp_path / "said.txt").read_text()
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert wait_for(lambda: not processes_of(process.pid), seconds=60), processes_of(process.pid)
    assert [state["state"] for state in states(tmp_path / "sweep").values()] == ["running", "running"]


def test_a_launcher_that_is_not_installed_is_named_by_its_extra(refused):
    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher"):
        pytest.skip("the launcher is installed")
    expected = "hydra/launcher=ray needs a package: pip install 'lemlight[ray]'"
    assert refused("train", "-m", "hydra/launcher=ray").strip() == expected


def test_a_sweep_mixes_one_device_and_two_which_predict_every_image_once(start, tmp_path):
    process = start("trainer.devices=2,1", "trainer.strategy=ddp", "batch_size=4", "pooling=gap")
    assert process.wait(timeout=180) == 0, (tmp_path / "said.txt").read_text()
    two, one = (tmp_path / "sweep" / f"trainer.devices-{devices}" for devices in (2, 1))
    assert (two / "train_ddp_process_1.log").is_file()
    assert not (one / "train_ddp_process_1.log").exists()
    steps = [pd.read_csv(job / "logs" / "metrics.csv")["step"].tolist() for job in (two, one)]
    assert [len(rows) for rows in steps] == [1, 1]
    assert steps[0][0] * 2 == steps[1][0]  # every second image on each device: no device trained on all or half
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said.txt", "sweep"]  # no run in a folder of its own
    found, expected = (pd.read_csv(job / "predictions.csv") for job in (two, one))
    same = ["image_id", "patient_id", "split", "label"]
    assert found["image_id"].is_unique
    pd.testing.assert_frame_equal(found[same], expected[same])
    summary = json.loads((two / "metrics.json").read_text())
    assert (summary["images"], summary["patients"]) == (6, 3)
    said = (tmp_path / "said.txt").read_text()
    assert said.count("figures and report:") == said.count("split by patient") == 2

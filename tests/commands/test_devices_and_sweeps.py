import json
import os

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def sweep(lemlight_run, folder_data, tmp_path_factory):
    """Four jobs, two of them with a folder that is not there."""
    folder = tmp_path_factory.mktemp("sweep")
    store, choice, root = folder_data
    roots = f"dataset.root={folder / 'missing'},{root.partition('=')[2]}"
    where = f"hydra.sweep.dir={folder / 'jobs'}"
    done = lemlight_run("train", "-m", where, store, choice, "pooling=gap,lem", roots, fails=True)
    return done, folder / "jobs"


def test_two_devices_predict_every_test_image_once(lemlight_run, folder_data):
    one = lemlight_run("train", *folder_data)
    two = lemlight_run("train", *folder_data, "trainer=ddp_cpu", "batch_size=4", own_process=True)
    expected, found = (pd.read_csv(done.folder / "predictions.csv") for done in (one, two))
    same = ["image_id", "patient_id", "split", "label"]
    assert found["image_id"].is_unique
    pd.testing.assert_frame_equal(found[same], expected[same])
    summary = json.loads((two.folder / "metrics.json").read_text())
    assert (summary["images"], summary["patients"]) == (6, 3)
    assert two.out.count("figures and report:") == 1
    assert two.out.count("split by patient") == 1
    assert len(pd.read_csv(two.folder / "logs" / "metrics.csv")) == 1
    assert not list(two.folder.rglob("*.part"))


def test_a_failing_job_does_not_stop_the_others(sweep):
    _, jobs = sweep
    left = {path.parent.name for path in jobs.glob("*/metrics.json")}
    assert left == {"1", "3"}
    poolings = {name: json.loads((jobs / name / "metrics.json").read_text())["images"] for name in left}
    assert poolings == {"1": 6, "3": 6}
    assert "pooling:\n  name: gap" in (jobs / "1" / "config.yaml").read_text()
    assert "pooling:\n  name: lem" in (jobs / "3" / "config.yaml").read_text()


def test_the_sweep_says_what_failed(sweep):
    done, _ = sweep
    assert done.err.count("lemlight: there is no folder") == 2
    assert done.err.count("set dataset.root") == 2
    assert "Error executing job" not in done.err


def test_several_devices_in_a_sweep_are_refused_before_any_work(refused, folder_data, tmp_path):
    where = f"hydra.sweep.dir={tmp_path / 'jobs'}"
    said = refused("train", "-m", where, *folder_data, "trainer=ddp_cpu", "pooling=gap,lem")
    assert "several devices in a multirun" in said
    assert "trainer.devices=1" in said
    assert not list((tmp_path / "jobs").rglob("checkpoints"))


def test_the_processes_of_other_devices_inherit_no_wish_for_tracebacks(lemlight_run, folder_data, monkeypatch):
    seen = []

    def train(*arguments, **options):
        seen.append("HYDRA_FULL_ERROR" in os.environ)
        return {"auroc": {"value": None}}

    monkeypatch.setattr("lemlight.recipe.train.train", train)
    lemlight_run("train", *folder_data)
    assert seen == [False]

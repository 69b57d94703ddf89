import json
import os

import pandas as pd


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


def test_a_sweep_mixes_one_device_and_two(lemlight_run, folder_data, tmp_path):
    jobs = tmp_path / "jobs"
    axes = ["trainer.devices=2,1", "pooling=gap,lem"]
    more = ["trainer.strategy=ddp", "batch_size=4", f"hydra.sweep.dir={jobs}"]
    lemlight_run("train", "-m", *folder_data, *more, *axes, own_process=True, cwd=tmp_path)
    single = ["trainer.devices=2", "trainer.strategy=ddp", "batch_size=4", "pooling=gap"]
    alone = lemlight_run("train", *folder_data, *single, own_process=True)
    for pooling in ("gap", "lem"):
        two, one = (jobs / f"pooling={pooling}+trainer.devices={devices}" for devices in (2, 1))
        assert (two / "train_ddp_process_1.log").is_file()
        assert not (one / "train_ddp_process_1.log").exists()
        steps = [pd.read_csv(job / "logs" / "metrics.csv")["step"].tolist() for job in (two, one)]
        assert steps[0][0] * 2 == steps[1][0]  # every second image on each device: no device trained on all or half
        assert len(pd.read_csv(two / "predictions.csv")) == 6
    first = jobs / "pooling=gap+trainer.devices=2"
    for name in ("metrics.json", "predictions.csv", "logs/metrics.csv"):
        assert (first / name).read_text() == (alone.folder / name).read_text()
    assert sorted(path.name for path in jobs.iterdir() if path.is_dir()) == sorted(
        f"pooling={pooling}+trainer.devices={devices}" for pooling in ("gap", "lem") for devices in (1, 2)
    )
    assert not (tmp_path / "outputs").exists()


def test_the_processes_of_other_devices_inherit_no_wish_for_tracebacks(lemlight_run, folder_data, monkeypatch):
    seen = []

    def train(*arguments, **options):
        seen.append("HYDRA_FULL_ERROR" in os.environ)
        return {"validation": None}

    monkeypatch.setattr("lemlight.recipe.train.train", train)
    lemlight_run("train", *folder_data)
    assert seen == [False]

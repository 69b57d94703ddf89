"""Every real data set in its own layout, from the download through training to the evaluation."""

import json
from importlib import import_module

import pandas as pd
import pytest

NAMES = ("cbis", "cmmd", "inbreast", "mias", "rsna", "vindr")
WRITERS = {name: getattr(import_module(f"tests.layouts.{name}"), f"write_{name}") for name in NAMES}
MARKED = {"cbis", "inbreast", "mias", "vindr"}  # lesions are drawn in these


# a small network and few patients, for speed
FAST = ["backbone=resnet18", "backbone.weights=none", "dataset.split.val_share=0.3"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_download_is_trained_on_and_evaluated(name, lemlight_run, tmp_path):
    truth = WRITERS[name](tmp_path / "download", patients=8, seed=0).set_index("image_id")
    data = [f"dataset={name}", f"dataset.root={tmp_path / 'download'}", f"store={tmp_path / 'store'}"]
    trained = lemlight_run("train", *data, *FAST)
    predictions = pd.read_csv(trained.folder / "predictions.csv", dtype={"image_id": str, "patient_id": str})
    assert len(predictions)
    assert pd.read_csv(trained.folder / "left_out.csv").empty
    expected = truth.loc[predictions["image_id"]]
    assert predictions["label"].tolist() == expected["label"].tolist()
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    assert (metrics["localization"]["images"] > 0) == (name in MARKED)
    assert json.loads((trained.folder / "leaks.json").read_text())["leaking_patients"] == []
    if name == "cbis":  # what is trained on is found again from the checkpoint alone
        checkpoint = f"checkpoint={trained.folder / 'checkpoints' / 'best.ckpt'}"
        again = lemlight_run("evaluate", checkpoint, f"store={tmp_path / 'store'}", "examples=0")
        found = pd.read_csv(again.folder / "predictions.csv", dtype={"image_id": str})
        assert found["probability"].tolist() == pytest.approx(predictions["probability"].tolist(), abs=1e-6)

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, recall_score, roc_auc_score

from lemlight.data.datasets.folder import folder
from lemlight.data.splits import split_table
from lemlight.localization.pooled import read_tried
from lemlight.training.checkpoint import load_checkpoint, load_classifier

FIGURES = ("sheet", "overlays", "roc", "froc", "reliability", "curves")
LEFT = {
    "config.yaml",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "checkpoints/model_card.md",
    "metrics.json",
    "predictions.csv",
    "predictions_breast.csv",
    "predictions_patient.csv",
    "localization.csv",
    "localization_images.csv",
    "localization_val.npz",
    "localization_test.npz",
    "examples/examples.csv",
    "report.html",
    "leaks.json",
    "left_out.csv",
    "logs/metrics.csv",
    "train.log",
    *(f"figures/{name}.png" for name in FIGURES),
    *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
}
COLUMNS = [
    "image_id", "patient_id", "laterality", "view", "exam", "split", "label", "probability", "n_maxima", "n_minima",
]  # fmt: skip


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def phantom_csv(overrides):
    root = next(word.partition("=")[2] for word in overrides if word.startswith("dataset.root="))
    return next(Path(root).rglob("images.csv"))


def test_a_run_leaves_all_of_its_files_and_nothing_else(trained):
    left = files(trained.folder)
    examples = {name for name in left if name.startswith("examples/") and name.endswith((".png", ".npz"))}
    assert examples
    assert left == LEFT | examples


def test_the_end_of_the_output_says_what_came_out_and_where(trained):
    last = trained.out.splitlines()[-4:]
    assert [line.split()[-1] for line in last] == [
        str(trained.folder / "report.html"),
        str(trained.folder / "figures"),
        str(trained.folder / "checkpoints" / "best.ckpt"),
        str(trained.folder),
    ]
    assert "AUC" in trained.out
    assert "split by patient" in trained.out


def test_every_test_image_is_predicted_once_and_no_other(trained, phantom):
    found = pd.read_csv(trained.folder / "predictions.csv", dtype={"patient_id": str})
    assert list(found) == COLUMNS
    csv = phantom_csv(phantom)
    table = folder(csv.parent, csv.name)
    split = OmegaConf.load(trained.folder / "config.yaml").dataset.split
    test = split_table(table, **split).query("split == 'test'")
    assert found["image_id"].tolist() == test["image_id"].tolist()
    assert found["label"].tolist() == test["label"].tolist()
    assert found["patient_id"].tolist() == test["patient_id"].tolist()
    assert set(found["split"]) == {"test"}
    assert found["probability"].between(0, 1).all()
    leaks = json.loads((trained.folder / "leaks.json").read_text())
    assert {row["split"]: row["images"] for row in leaks["splits"]}["test"] == len(found)
    assert leaks["leaking_patients"] == []


def test_the_figures_are_those_of_the_predictions(trained):
    summary = json.loads((trained.folder / "metrics.json").read_text())
    found = pd.read_csv(trained.folder / "predictions.csv")
    truth, probability, called = found["label"], found["probability"], found["probability"] > 0.4
    assert (summary["split"], summary["images"], summary["threshold"]) == ("test", len(found), 0.4)
    assert summary["patients"] == found["patient_id"].nunique()
    expected = {
        "acc": accuracy_score(truth, called),
        "auroc": roc_auc_score(truth, probability),
        "sensitivity": recall_score(truth, called),
        "specificity": recall_score(1 - truth, ~called),
        "f1": f1_score(truth, called),
        "brier": brier_score_loss(truth, probability),
    }
    assert {name: summary[name]["value"] for name in expected} == pytest.approx(expected)
    for name in expected:
        figure = summary[name]
        if figure["low"] is None:
            assert figure["high"] is None
            assert figure["reason"]
        else:
            assert figure["low"] <= figure["value"] <= figure["high"]
    rows = pd.read_csv(trained.folder / "localization_images.csv")
    assert set(rows["method"]) == {"importance"}
    assert len(rows) == summary["localization"]["images"]
    assert rows["dsc"].mean() == pytest.approx(summary["dsc"]["value"])
    tried = read_tried(trained.folder / "localization_test.npz")["importance"]
    assert tried.image_ids.tolist() == rows["image_id"][rows["dsc"].notna()].tolist()


def test_the_best_checkpoint_made_the_predictions(trained):
    log = pd.read_csv(trained.folder / "logs" / "metrics.csv")
    assert log["epoch"].tolist() == [0, 1]
    assert log["lambda"].is_monotonic_increasing
    assert log["lambda"].iloc[-1] == 1.0
    best, last = (load_checkpoint(trained.folder / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    assert last.epoch == 1
    assert best.epoch == log["val/loss"].idxmin()
    assert best.preprocessing == {"height": 96, "width": 64, "crop": True, "flip": True}
    assert best.label_names == ["benign", "malignant"]
    assert best.versions["torch"] == str(torch.__version__)


def test_the_pictures_are_pictures_and_the_page_holds_them(trained):
    for name in FIGURES:
        assert cv2.imread(str(trained.folder / "figures" / f"{name}.png")).std() > 0
    page = (trained.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(FIGURES)
    assert 'src="http' not in page


@pytest.mark.parametrize("pooling", ["gap", "sparse_mil"])  # all of them: tests/models; LEM: `trained`
def test_other_poolings_train_with_their_own_loss_and_without_a_ramp(pooling, lemlight_run, folder_data):
    chosen = ["threshold=youden", "calibration=temperature", "prevalence=0.01"] * (pooling == "gap")
    folder = lemlight_run("train", *folder_data, f"pooling={pooling}", *chosen).folder
    best = folder / "checkpoints" / "best.ckpt"
    load_classifier(load_checkpoint(best))
    if chosen:
        the_operating_point_travels(best, lemlight_run, folder_data)
    assert len(pd.read_csv(folder / "predictions.csv")) == 6
    row = pd.read_csv(folder / "logs" / "metrics.csv").iloc[0]
    assert "lambda" not in row
    assert (row["train/loss_regularizer"] > 0) == (pooling == "sparse_mil")
    assert (row["train/loss_gap"] == row["train/loss_pool"]) == (pooling == "gap")
    assert (row["train/loss"] == pytest.approx(row["train/loss_pool"])) == (pooling == "gap")


def the_operating_point_travels(best, lemlight_run, folder_data):
    operating, trained = load_checkpoint(best).operating, json.loads((best.parents[1] / "metrics.json").read_text())
    assert (operating.rule, operating.level_rule) == ("youden", "mean_logit")
    assert trained["threshold"] == operating.point("image").threshold
    assert trained["calibration"]["temperature"] == operating.temperature
    assert trained["levels"]["patient"]["threshold"] == operating.point("patient").threshold
    again = lemlight_run("evaluate", f"checkpoint={best}", *folder_data[:3], "split=test", "examples=0").folder
    tested = json.loads((again / "metrics.json").read_text())
    assert tested["threshold"] == trained["threshold"]
    assert tested["auroc"] == trained["auroc"]


def test_an_experiment_in_its_smallest_form_is_a_sweep_with_a_table(lemlight_run, phantom, tmp_path):
    """The others compose and are checked against the constructors: tests/test_building.py."""
    small = ["experiment=pooling", "+scale=small", *phantom, "seed=0", "pooling=lem", "trainer.max_epochs=1"]
    lemlight_run("train", *small, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    jobs = sorted((tmp_path / "sweep").glob("*/state.json"))
    assert [json.loads(path.read_text())["state"] for path in jobs] == ["done"]
    assert len((tmp_path / "sweep" / "table.csv").read_text().splitlines()) == 2
    assert all((job.parent / "report.html").is_file() for job in jobs)


def test_a_frozen_training_on_kept_features_is_the_one_on_images(lemlight_run, phantom):
    words = [*phantom, "backbone.frozen=true", "augmentation=none", "trainer.max_epochs=2", "inside_breast=true"]
    kept = lemlight_run("train", *words, "feature_versions=0")
    fresh = lemlight_run("train", *words, "feature_versions=null")
    one, other = (pd.read_csv(done.folder / "predictions.csv")["probability"] for done in (kept, fresh))
    assert one.std() > 0
    np.testing.assert_allclose(one, other, atol=1e-5)
    states = [load_checkpoint(done.folder / "checkpoints" / "last.ckpt").state_dict for done in (kept, fresh)]
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-4, atol=1e-5)
    # another pooling shares the store, and the checkpoint is that of a whole network
    store = next(Path(phantom[0].partition("=")[2]).glob("96x64-*/features"))
    before = [(path, path.stat().st_mtime_ns) for path in store.glob("*/features.npy")]
    lemlight_run("train", *words, "feature_versions=0", "pooling=gap")
    assert before == [(path, path.stat().st_mtime_ns) for path in store.glob("*/features.npy")]
    checkpoint = f"checkpoint={kept.folder / 'checkpoints' / 'best.ckpt'}"
    tested = lemlight_run("evaluate", checkpoint, "dataset=phantom", *phantom, "split=test")
    evaluated = pd.read_csv(tested.folder / "predictions.csv")["probability"]
    np.testing.assert_allclose(evaluated, one, atol=1e-5)

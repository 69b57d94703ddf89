import json
from pathlib import Path

import cv2
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, recall_score, roc_auc_score

from lemlight.cli import conf_dir
from lemlight.data.datasets.folder import folder
from lemlight.data.splits import split_table
from lemlight.training.checkpoint import load_checkpoint, load_classifier

FIGURES = ("sheet", "overlays", "roc", "froc", "reliability", "curves")
LEFT = {
    "config.yaml",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "metrics.json",
    "predictions.csv",
    "localization.csv",
    "localization_images.csv",
    "examples/examples.csv",
    "report.html",
    "leaks.json",
    "left_out.csv",
    "logs/metrics.csv",
    "train.log",
    *(f"figures/{name}.png" for name in FIGURES),
    *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
}
COLUMNS = ["image_id", "patient_id", "split", "label", "probability", "n_maxima", "n_minima"]
POOLINGS = sorted(file.stem for file in Path(conf_dir(), "pooling").glob("*.yaml"))


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
    last = trained.out.splitlines()[-3:]
    assert [line.split()[-1] for line in last] == [
        str(trained.folder / "report.html"),
        str(trained.folder / "figures"),
        str(trained.folder),
    ]
    assert "AUC" in trained.out
    assert "split by patient" in trained.out


def test_the_configuration_that_is_left_can_be_run_again(trained):
    config = OmegaConf.load(trained.folder / "config.yaml")
    assert (config.choices.backbone, config.choices.pooling) == ("efficientnet_lite0", "lem")
    assert config.trainer.max_epochs == 2
    assert config.output == str(trained.folder)


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


@pytest.fixture(scope="module")
def losses(lemlight_run, folder_data):
    def run(*overrides):
        folder = lemlight_run("train", *folder_data, *overrides).folder
        assert len(pd.read_csv(folder / "predictions.csv")) == 6
        return folder, pd.read_csv(folder / "logs" / "metrics.csv").iloc[0]

    return run


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_trains(pooling, losses):
    folder, row = losses(f"pooling={pooling}")
    checkpoint = load_checkpoint(folder / "checkpoints" / "best.ckpt")
    load_classifier(checkpoint)
    assert row[["train/loss", "val/loss", "train/loss_gap", "train/loss_pool"]].notna().all()
    assert ("lambda" in row) == (pooling == "lem")
    assert (row["train/loss_regularizer"] > 0) == (pooling in ("lem", "sparse_mil"))
    assert (row["train/loss_gap"] == row["train/loss_pool"]) == (pooling == "gap")
    assert (row["train/loss"] == pytest.approx(row["train/loss_pool"])) == (pooling not in ("lem", "sparse_mil"))


def test_a_finer_score_map_has_twice_the_height_and_width(losses):
    folder, _ = losses("backbone.output_stride=16")
    checkpoint = load_checkpoint(folder / "checkpoints" / "best.ckpt")
    classifier = load_classifier(checkpoint)
    with torch.no_grad():
        assert classifier(torch.rand(2, 1, 96, 64)).score_map.shape == (2, 6, 4)


def test_the_mean_dice_is_the_mean_over_the_images_of_its_table(trained):
    rows = pd.read_csv(trained.folder / "localization_images.csv")
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    assert set(rows["method"]) == {"importance"}
    assert len(rows) == metrics["localization"]["images"]
    assert rows["dsc"].mean() == pytest.approx(metrics["dsc"]["value"])

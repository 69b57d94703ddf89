"""`python -m lemlight.export`, and what the other commands make of its file."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from lemlight.models import exported as module


@pytest.fixture(scope="module")
def best(trained):
    return trained.folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("in")
    for number, image in enumerate(sorted(Path(phantom[1].partition("=")[2]).rglob("*.dcm"))[:3]):
        (root / f"{number}.dcm").write_bytes(image.read_bytes())
    return root


@pytest.fixture(scope="module")
def exported(lemlight_run, best, folder):
    return lemlight_run("export", f"checkpoint={best}", f"input={folder / '0.dcm'}")


def test_the_file_and_its_metadata_are_left_and_the_difference_is_said(exported, trained):
    assert "probabilities of 6 images differ from the network's by at most" in exported.out
    metadata = json.loads((exported.folder / "metadata.json").read_text())
    assert metadata["preprocessing"] == {"height": 96, "width": 64, "crop": True, "flip": True}
    assert (metadata["threshold"], metadata["pooling"], metadata["label_names"]) == (
        0.4,
        "lem",
        ["benign", "malignant"],
    )
    assert str(trained.folder) not in (exported.folder / "model.onnx").read_bytes().decode("latin1")
    assert "onnxscript" not in exported.out + exported.err  # nothing of its log


def test_localize_says_what_it_says_of_the_checkpoint(lemlight_run, exported, best, folder):
    common = (f"input={folder}", "overlays=false")
    done = lemlight_run("localize", f"checkpoint={exported.folder / 'model.onnx'}", *common)
    expected = lemlight_run("localize", f"checkpoint={best}", *common, "method=cam")
    assert "method=cam: importance needs the checkpoint" in done.out
    found, wanted = (pd.read_csv(run.folder / "predictions.csv", keep_default_na=False) for run in (done, expected))
    assert found["image_id"].tolist() == wanted["image_id"].tolist()
    assert found["prediction"].tolist() == wanted["prediction"].tolist()
    np.testing.assert_allclose(found["probability"], wanted["probability"], atol=1e-4)
    for image_id in wanted["image_id"]:
        maps, reference = (np.load(run.folder / "maps" / f"{image_id}.npz") for run in (done, expected))
        for array in ("location_map", "score_map"):
            np.testing.assert_allclose(maps[array], reference[array], atol=1e-4)
        assert maps["geometry"] == reference["geometry"]


def test_what_an_exported_network_cannot_do_is_one_clear_message(refused, exported, folder):
    model = f"checkpoint={exported.folder / 'model.onnx'}"
    said = refused("localize", model, f"input={folder}", "method=grad_cam")
    assert "method=grad_cam goes back through the layers" in said
    assert "or the checkpoint" in said
    assert "run on the CPU" in refused("localize", model, f"input={folder}", "accelerator=gpu")
    for command in ("evaluate", "export"):
        assert "which only lemlight.localize takes" in refused(command, model)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"height": 16}, "height"), ({"_target_": "os.system"}, "_target_")],
)
def test_metadata_that_was_changed_is_refused_by_name(change, key, refused, exported, folder, tmp_path):
    model = onnx.load(exported.folder / "model.onnx")
    metadata = json.loads(model.metadata_props[0].value)
    metadata["preprocessing"] |= change
    onnx.helper.set_model_props(model, {module.METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, tmp_path / "model.onnx")
    assert key in refused("localize", f"checkpoint={tmp_path / 'model.onnx'}", f"input={folder}")


def test_a_file_that_predicts_something_else_is_not_left(refused, best, tmp_path, monkeypatch):
    opened = module.open_onnx

    def wrong(path):
        network = opened(path)
        return type(network)(
            path, network.metadata, lambda images: (network.run(images)[0] * 0.9, network.run(images)[1])
        )

    monkeypatch.setattr(module, "open_onnx", wrong)
    said = refused("export", f"checkpoint={best}", folder=tmp_path / "out")
    assert "probabilities differ by up to" in said
    assert not list((tmp_path / "out").glob("*model*"))
    assert not (tmp_path / "out" / "metadata.json").exists()

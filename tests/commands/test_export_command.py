"""`python -m lemlight.export`, and what the other commands make of its files."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from lemlight.models import exported as onnx_file
from lemlight.recipe import export as recipe


@pytest.fixture(scope="module")
def best(trained):
    return trained.folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def images(phantom):
    return sorted(Path(phantom[1].partition("=")[2]).rglob("*.dcm"))[:3]


@pytest.fixture(scope="module")
def exported(lemlight_run, best, images):
    return lemlight_run("export", f"checkpoint={best}", f"input={images[0]}")


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("in")
    for number, image in enumerate(images):
        (root / f"{number}.dcm").write_bytes(image.read_bytes())
    return root


@pytest.fixture(scope="module")
def expected(lemlight_run, best, folder):
    """What the checkpoint says, with location maps by cam."""
    return lemlight_run("localize", f"checkpoint={best}", f"input={folder}", "method=cam", "overlays=false")


def rows(done):
    return pd.read_csv(done.folder / "predictions.csv", keep_default_na=False)


def test_both_files_and_the_card_are_left_and_the_difference_is_said(exported, trained):
    assert {path.name for path in exported.folder.glob("[!.]*.*")} >= {"model.onnx", "model.pt2", "card.json"}
    assert exported.out.count("probabilities of 6 images differ from the network's by at most") == 2
    card = json.loads((exported.folder / "card.json").read_text())
    assert card["preprocessing"] == {"height": 96, "width": 64, "crop": True, "flip": True}
    assert (card["threshold"], card["pooling"], card["label_names"]) == (0.4, "lem", ["benign", "malignant"])
    assert str(trained.folder) not in (exported.folder / "model.onnx").read_bytes().decode("latin1")
    assert "onnxscript" not in exported.out + exported.err  # nothing of its log


@pytest.mark.parametrize(("name", "trust"), [("model.onnx", "false"), ("model.pt2", "true")])
def test_localize_says_what_it_says_of_the_checkpoint(name, trust, lemlight_run, exported, expected, folder):
    file = exported.folder / name
    done = lemlight_run("localize", f"checkpoint={file}", f"input={folder}", "overlays=false", f"trust={trust}")
    assert "method=cam: importance needs the checkpoint" in done.out
    found, wanted = rows(done), rows(expected)
    assert found["image_id"].tolist() == wanted["image_id"].tolist()
    assert found["call"].tolist() == wanted["call"].tolist()
    np.testing.assert_allclose(found["probability"], wanted["probability"], atol=1e-4)
    for image_id in wanted["image_id"]:
        maps, reference = (np.load(run.folder / "maps" / f"{image_id}.npz") for run in (done, expected))
        for array in ("location_map", "score_map"):
            np.testing.assert_allclose(maps[array], reference[array], atol=1e-4)
        assert maps["geometry"] == reference["geometry"]


def test_what_an_exported_network_cannot_do_is_one_clear_message(refused, exported, folder):
    model, program = (f"checkpoint={exported.folder / name}" for name in ("model.onnx", "model.pt2"))
    for method in ("importance", "grad_cam"):
        said = refused("localize", model, f"input={folder}", f"method={method}")
        assert f"method={method} goes back through the layers" in said
        assert "or the checkpoint" in said
    assert "run on the CPU" in refused("localize", model, f"input={folder}", "accelerator=gpu")
    assert "trust=true" in refused("localize", program, f"input={folder}")
    for command, given in (("evaluate", model), ("evaluate", program), ("export", model)):
        assert "which only lemlight.localize takes" in refused(command, given)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"height": 16}, "height"), ({"_target_": "os.system"}, "_target_"), ({"flip": "no"}, "flip")],
)
def test_a_card_that_was_changed_is_refused_by_name(change, key, refused, exported, folder, tmp_path):
    model = onnx.load(exported.folder / "model.onnx")
    card = json.loads(model.metadata_props[0].value)
    card["preprocessing"] |= change
    onnx.helper.set_model_props(model, {onnx_file.CARD_KEY: json.dumps(card)})
    onnx.save(model, tmp_path / "model.onnx")
    assert key in refused("localize", f"checkpoint={tmp_path / 'model.onnx'}", f"input={folder}")


def test_a_file_that_predicts_something_else_is_not_left(refused, best, tmp_path, monkeypatch):
    def wrong(path):
        network = onnx_file.open_onnx(path)
        return type(network)(path, network.card, lambda images: (network.run(images)[0] * 0.9, network.run(images)[1]))

    monkeypatch.setitem(recipe.FORMATS, "onnx", (onnx_file.write_onnx, wrong))
    said = refused("export", f"checkpoint={best}", "format=onnx", folder=tmp_path / "out")
    assert "probabilities differ by up to" in said
    assert not list((tmp_path / "out").glob("*model*"))
    assert not (tmp_path / "out" / "card.json").exists()


def test_a_missing_package_is_said_before_the_work(refused, best, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    said = refused("export", f"checkpoint={best}", folder=tmp_path / "out")
    assert "pip install 'lemlight[onnx]', or use format=torch" in said

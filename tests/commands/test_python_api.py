"""`lemlight.load`: a checkpoint from Python gives what `python -m lemlight.localize` writes."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from omegaconf import OmegaConf

import lemlight
from lemlight.data.reading.io import read_image
from lemlight.errors import ImageError, LemlightError
from lemlight.predictor import read_images
from lemlight.reporting.run_page import write_model_card

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture(scope="module")
def model(best):
    return lemlight.load(best.partition("=")[2])


@pytest.fixture(scope="module")
def localized(lemlight_run, best, dicoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for number, path in enumerate(dicoms):
        shutil.copy(path, folder / f"{number}.dcm")
    done = lemlight_run("localize", best, f"input={folder}", "overlays=false")
    return folder, pd.read_csv(done.folder / "predictions.csv", keep_default_na=False), done.folder


def test_it_gives_what_localize_writes(model, localized):
    folder, rows, run = localized
    for (path, result), row in zip(model.predict_folder(folder), rows.itertuples(), strict=True):
        assert str(path) == row.path
        assert result.probability == pytest.approx(row.probability, abs=1e-6)
        assert result.label == row.prediction
        written = [one["area_px"] for one in json.loads(row.regions)]
        assert [region.area_px for region in result.regions] == pytest.approx(written, abs=0.01)
        written = np.load(run / "maps" / f"{row.image_id}.npz")["strength"]
        np.testing.assert_allclose(result.location_map, written, atol=2e-3)
        assert result.location_map.shape == result.image.pixels.shape


def test_it_gives_what_a_tested_network_is_judged_by(model, trained, phantom):
    rows = pd.read_csv(trained.folder / "predictions.csv", index_col="image_id")["probability"][:4]
    (table,) = Path(phantom[1].partition("=")[2]).rglob("images.csv")
    files = pd.read_csv(table, index_col="image_id")["path"][rows.index]
    found = model.predict([table.parent / file for file in files])
    np.testing.assert_allclose([one.probability for one in found], rows, atol=1e-5)


def test_a_batch_is_its_images_and_a_bad_one_is_an_error_in_its_place(model, localized, tmp_path):
    files = sorted(localized[0].glob("*.dcm"))
    (tmp_path / "bad.dcm").write_bytes(files[0].read_bytes()[:900])
    several = model.predict([files[0], tmp_path / "bad.dcm", str(files[1]), read_image(files[2]).pixels])
    assert [type(one) for one in several][1] is ImageError
    assert "bad.dcm" in str(several[1])
    for one, file in zip([several[0], *several[2:]], files, strict=True):
        alone = model.predict(file)
        assert one.probability == pytest.approx(alone.probability, abs=1e-5)
        np.testing.assert_allclose(one.strength, alone.strength, atol=1e-3)
    with pytest.raises(ImageError, match=r"bad\.dcm"):
        model.predict(tmp_path / "bad.dcm")
    assert model.predict([]) == []
    with pytest.raises(ImageError, match=r"bad\.dcm"):
        model.probability_of(several)
    with pytest.raises(ImageError, match="without an image"):
        model.probability_of([])
    with pytest.raises(ImageError, match="predict_folder"):
        model.predict(tmp_path)
    assert model.predict((files[0],))[0].probability == pytest.approx(several[0].probability, abs=1e-5)


def test_batches_side_by_side_are_those_one_after_the_other(best, localized):
    model = lemlight.load(best.partition("=")[2], method="smooth_grad")
    read = [ImageError("bad"), *read_images(sorted(localized[0].glob("*.dcm")), model.preprocessing)]
    read *= 3
    expected = list(model.predict_read(read, 2))
    threads = torch.get_num_threads()
    for one, alone in zip(model.predict_read(read, 2, threads=3), expected, strict=True):
        if isinstance(alone, ImageError):
            assert one is alone
        else:
            assert one.image is alone.image
            np.testing.assert_array_equal(one.strength, alone.strength)
    assert torch.get_num_threads() == threads
    broken = replace(model, explain=lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(broken.predict_read(read, 2, threads=2))


def test_a_method_that_cannot_be_copied_predicts_one_after_the_other(model, localized):
    read = list(read_images(sorted(localized[0].glob("*.dcm")), model.preprocessing))

    class Own:
        def __init__(self):
            self.held, self.seen = threading.Lock(), set()

        def __call__(self, images):
            self.seen.add(threading.get_ident())
            return model.explain(images)

    own = Own()
    found = list(replace(model, explain=own).predict_read(read, 1, threads=2))
    assert [one.probability for one in found] == [one.probability for one in model.predict_read(read, 1)]
    assert own.seen == {threading.get_ident()}


def test_batches_that_nobody_waits_for_are_not_predicted(model, localized):
    (one,) = read_images(sorted(localized[0].glob("*.dcm"))[:1], model.preprocessing)
    begun = []

    def slow(images):
        begun.append(len(images))
        time.sleep(1 if len(begun) > 1 else 0)
        return model.explain(images)

    several = replace(model, explain=slow).predict_read([one] * 12, 1, threads=2)
    next(several)
    several.close()
    assert len(begun) < 5  # five were handed in: the first is done, two are at work, the others never begin


def test_pixels_are_taken_as_those_of_a_file(model, localized):
    file = next(localized[0].glob("*.dcm"))
    grey, expected = read_image(file).pixels, model.predict(file).probability
    for pixels in (grey, torch.from_numpy(grey)[None], np.rint(grey * 65535).astype(np.uint16)):
        assert model.predict(pixels).probability == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((3, 40, 30)), "not an array of shape"),
        (np.zeros((0, 30)), "not an array of shape"),
        (np.zeros((40, 30), dtype=bool), "type bool"),
        (np.full((40, 30), 2.0), r"in \[0, 1\]"),
        (np.full((40, 30), np.nan), r"in \[0, 1\]"),
        (np.full((40, 30), -1), "not negative"),
        (np.zeros((40, 30)), "no breast"),
    ],
)
def test_what_is_no_image_is_refused(model, pixels, message):
    with pytest.raises(ImageError, match=message):
        model.predict(pixels)
    assert isinstance(model.predict([pixels])[0], ImageError)


def test_it_can_be_sent_to_another_process_and_opened_by_its_folder(model, best, localized):
    file = next(localized[0].glob("*.dcm"))
    sent = pickle.loads(pickle.dumps(model)).predict(file)
    assert sent.probability == model.predict(file).probability
    checkpoints = Path(best.partition("=")[2]).parent
    for place in (checkpoints, checkpoints.parent):
        assert lemlight.load(place).predict(file).probability == model.predict(file).probability
    with pytest.raises(LemlightError, match=r"holds no best\.ckpt"):
        lemlight.load(localized[0])


def test_settings_have_the_names_and_errors_of_localize(best):
    checkpoint = best.partition("=")[2]
    assert lemlight.load(checkpoint, method="cam", cutoff=0.2, smoothing=3).regions.cutoff == 0.2
    for wrong, message in (
        ({"cutof": 0.3}, r"cutof: there is no such key \(did you mean cutoff"),
        ({"threshold": 2}, "threshold"),
        ({"method": "gradcam"}, "did you mean grad_cam"),
        ({"accelerator": "tpu"}, "accelerator"),
    ):
        with pytest.raises(LemlightError, match=message):
            lemlight.load(checkpoint, **wrong)


def test_importing_it_imports_nothing_heavy():
    code = "import sys, lemlight; print([name for name in ('torch', 'pandas', 'hydra') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_runs_as_it_stands(best, dicoms, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(best.partition("=")[2], "best.ckpt")
    for name, file in zip(("image", "left_cc", "left_mlo"), dicoms, strict=True):
        shutil.copy(file, f"{name}.dcm")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    assert PIL.Image.open("where.png").width > 200
    assert 0 <= float(capsys.readouterr().out.split()[0]) <= 1
    views = names["views"]
    low, high = sorted(view.probability for view in views)
    assert low <= lemlight.load("best.ckpt").probability_of(views) <= high
    assert names["maps"].shape == (8, 128, 96)


def test_the_card_beside_the_checkpoint_says_what_metrics_json_says(trained):
    text = (trained.folder / "checkpoints" / "model_card.md").read_text()
    _, front, body = text.split("---\n", 2)
    import yaml

    head = yaml.safe_load(front)
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    told = {one["type"]: one["value"] for one in head["model-index"][0]["results"][0]["metrics"]}
    assert told["roc_auc"] == pytest.approx(metrics["auroc"]["value"], abs=1e-4)
    assert head["datasets"] == ["phantom"]
    assert "By image" in body
    assert "By patient" in body
    assert "in more than one split: 0 patients" in body
    assert str(trained.folder) not in text
    assert "phantom-" not in body
    subgroups = body.partition("## Subgroups")[2].partition("##")[0]
    assert "view: CC" in subgroups
    assert "Too small for a figure" in subgroups


def test_a_card_without_a_threshold_says_why(trained, tmp_path):
    summary = json.loads((trained.folder / "metrics.json").read_text())
    config = OmegaConf.to_container(OmegaConf.load(trained.folder / "config.yaml"))
    given = {"title": "LEM", "config": config, "leak_text": "", "versions": {"lemlight": "1"}, "command": "train"}
    assert "predicted malignant above 0.4" in write_model_card(tmp_path, summary=summary, **given).read_text()
    summary |= {"threshold": None, "operating": {"on_validation": {"reason": "youden: nothing reaches it"}}}
    assert (
        "no threshold (youden: nothing reaches it)" in write_model_card(tmp_path, summary=summary, **given).read_text()
    )


def test_the_card_is_one_that_the_hub_reads(trained):
    hub = pytest.importorskip("huggingface_hub")  # of the extra timm
    card = hub.ModelCard.load(trained.folder / "checkpoints" / "model_card.md")
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    (auroc,) = [one for one in card.data.eval_results if one.metric_type == "roc_auc"]
    assert auroc.metric_value == pytest.approx(metrics["auroc"]["value"], abs=1e-4)
    assert auroc.dataset_split == "test"
    assert card.data.library_name == "lemlight"
    assert card.data.datasets == ["phantom"]

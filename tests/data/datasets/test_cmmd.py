import shutil
import sys
import zipfile
from functools import partial

import numpy as np
import pytest

from lemlight.data.datasets.cmmd import cmmd
from tests.layouts.cmmd import HEADER, MANIFEST, TABLE, save_image, write_cmmd
from tests.layouts.drawing import failure_of, save_mammogram, spoil, written_by

failure = partial(failure_of, cmmd)
written = written_by(write_cmmd)


def files_of(root, patient):
    return sorted((root / MANIFEST / "CMMD" / patient).rglob("*.dcm"))


def test_breasts_that_the_table_does_not_name_are_left_out(written, truth):
    assert set(cmmd(written[0])["image_id"]) == set(truth.index[truth["listed"]])
    assert not truth["listed"].all()


def test_the_label_is_that_of_the_breast(written):
    first = cmmd(written[0]).query("patient_id == 'D1-0001'")
    assert first.groupby("laterality")["label"].unique().map(list).to_dict() == {"L": [0], "R": [1]}


def test_folders_named_after_series_do_as_well(download, written):
    for number, path in enumerate(sorted(download.rglob("*.dcm"))):
        (download / "flat" / f"1.3.6.{number}").mkdir(parents=True)
        path.rename(download / "flat" / f"1.3.6.{number}" / "1-1.dcm")
    assert list(cmmd(download)["image_id"]) == list(cmmd(written[0])["image_id"])


def test_the_layout_of_the_imaging_data_commons_gives_the_same_table(written, tmp_path):
    write_cmmd(tmp_path, layout="idc")
    table, expected = cmmd(tmp_path), cmmd(written[0])
    assert table.drop(columns=["path"]).equals(expected.drop(columns=["path"]))


def test_everything_wrong_is_listed_at_once(download):
    spoil(download / TABLE, "D1-0003 ,R,42,2,mass ,Benign", "D1-0003 ,R,42,2,mass ,Normal")
    spoil(download / TABLE, "D2-0004 ,R", "D2-0004 ,X")
    spoil(download / TABLE, "D1-0005 ,", "patient5 ,")
    spoil(download / TABLE, HEADER, HEADER + "\r\nD1-0007,L,40,2,mass,Malignant,\r\nD1-0009,L,40,2,mass,Benign,")
    shutil.rmtree(download / MANIFEST / "CMMD" / "D2-0006")
    shutil.copytree(download / MANIFEST / "CMMD" / "D2-0008", download / "again" / "D2-0008")
    broken, half, empty, _ = files_of(download, "D2-0010")
    broken.write_bytes(b"\0" * 200)
    half.write_bytes(half.read_bytes()[:-20000])
    empty.write_bytes(b"")
    save_image(files_of(download, "D1-0011")[0].with_name("1-9.dcm"), np.zeros((8, 8)), "D1-0001", "L", "CC", 0)
    save_mammogram(files_of(download, "D1-0011")[0].with_name("1-8.dcm"), np.zeros((8, 8)), "D1-0011")
    save_mammogram(download / "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", np.zeros((8, 8)))
    message = failure(download)
    for part in (
        "unknown classification (1): line 8 ('normal')",
        "unknown LeftRight (1): line 9 ('X')",
        "unknown ID1 (1): line 10 ('PATIENT5')",
        "breasts of the table without an image (2): D1-0007 L, D2-0006 L",
        "patients without a row in the table (1): D1-0005",
        "images that are there twice (4): ",
        "D2-0008/07-18-2010-NA-NA-79377/1.000000-NA-70244/1-1.dcm and ",
        "broken images (3)",
        "1-1.dcm: no DICOM image",
        "1-2.dcm: cut short",
        "1-3.dcm: no DICOM image",
        "in the folder of another patient than their headers name (1)",
        "headers do not name the side (1)",
        "images that belong to no patient of CMMD (1): AllDICOMs/20586908",
        "dataset.allow_missing=true",
    ):
        assert part in message


def test_what_is_missing_or_broken_is_left_out_on_demand(download, truth):
    shutil.rmtree(download / MANIFEST / "CMMD" / "D2-0006")
    broken = files_of(download, "D1-0007")[0]
    broken.write_bytes(b"no")
    spoil(download / TABLE, "D1-0011", "D1-0013")
    assert "finish the download" in failure(download, normal_images=True)
    table = cmmd(download, normal_images=True, allow_missing=True)
    gone = set(truth.index) - set(table["image_id"])
    assert {image[:7] for image in gone} == {"D2-0006", "D1-0007", "D1-0011"}
    assert len(gone) == 4 + 1 + 2


def test_a_breast_that_is_benign_and_malignant(download):
    spoil(download / TABLE, "D1-0001 ,R,40,5,mass ,Malignant", "D1-0001 ,R,40,5,mass ,Benign")
    assert "benign and malignant (1): D1-0001 R" in failure(download)


def test_fewer_images_than_the_table_says_are_a_warning(download, caplog):
    cmmd(download)
    assert "fewer" not in caplog.text
    files_of(download, "D2-0004")[0].unlink()
    cmmd(download)
    assert "patients with fewer images than the table says (1): D2-0004" in caplog.text


def test_an_image_without_a_view_is_used(download, caplog):
    path = files_of(download, "D2-0002")[0]
    save_mammogram(path, np.zeros((8, 8)), "D2-0002", ImageLaterality="R")
    table = cmmd(download, normal_images=True).set_index("image_id")
    assert table.loc["D2-0002_R", "view"] == ""
    assert "do not name the view" in caplog.text


@pytest.mark.parametrize("name", ["label.csv", "CMMD_clinicaldata.csv", "sub/Clinical data.CSV"])
def test_the_table_under_other_names(download, written, name):
    (download / name).parent.mkdir(exist_ok=True)
    (download / TABLE).rename(download / name)
    assert list(cmmd(download)["label"]) == list(cmmd(written[0])["label"])


def test_a_spreadsheet_that_cannot_be_read_is_to_be_saved_as_csv(download, monkeypatch):
    sheet = download / "CMMD_clinicaldata_revision.xlsx"
    (download / TABLE).rename(sheet)
    assert "save it as CSV under the name CMMD_clinicaldata_revision.csv" in failure(download)
    with zipfile.ZipFile(sheet, "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    monkeypatch.setitem(sys.modules, "openpyxl", None)  # importing it fails
    assert "the package openpyxl is missing" in failure(download)


def test_a_spreadsheet(download, written):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (download / TABLE).read_text().splitlines():
        book.active.append([int(cell) if cell.isdecimal() else cell or None for cell in line.split(",")])
    book.save(download / "CMMD_clinicaldata_revision.xlsx")
    (download / "~$CMMD_clinicaldata_revision.xlsx").write_bytes(b"lock")
    (download / TABLE).unlink()
    assert list(cmmd(download)["label"]) == list(cmmd(written[0])["label"])

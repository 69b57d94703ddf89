"""Downloads of INbreast that are incomplete, of another version or no INbreast: listed, in one pass."""

import logging
import shutil

import numpy as np
import pytest

from lemlight.data.datasets.inbreast import inbreast
from lemlight.errors import LemlightError
from tests.layouts.inbreast import COLUMNS, RELEASE, dicom_of, save_dicom, save_regions, spoil, table_of, write_inbreast


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("inbreast")
    return root, write_inbreast(root, patients=6)


def failure(root, **options):
    with pytest.raises(LemlightError) as error:
        inbreast(root, **options)
    return str(error.value)


def test_everything_wrong_is_listed_at_once(download, truth):
    images = list(truth.index)
    spoil(table_of(download), f"{images[5]}; ;", f"{images[5]}; ;9")
    spoil(table_of(download), f"{images[6]};", "CC 17;")
    dicom_of(download, images[7]).unlink()
    dicom_of(download, images[8]).write_bytes(b"\0" * 200)
    whole = dicom_of(download, images[9]).read_bytes()
    dicom_of(download, images[9]).write_bytes(whole[: len(whole) // 2])
    dicom_of(download, images[10]).write_bytes(b"")
    (download / RELEASE / "AllXML" / f"{images[3]}.xml").write_text("<html>not found</html>")
    save_regions(download / RELEASE / "AllXML" / "77777777.xml", [])
    shutil.copyfile(dicom_of(download, images[11]), download / dicom_of(download, images[11]).name)
    save_dicom(download / "IMG0001.dcm", np.zeros((8, 8)))
    message = failure(download)
    for part in (
        "unknown BI-RADS (1): line 7",
        "File Name is no image number (1): line 8 ('CC 17')",
        f"images of the table without a file (2): CC 17, {images[7]}",
        f"images without a row in the table (1): {images[6]}",
        f"{images[8]}: no DICOM image",
        f"{images[9]}: cut short",
        f"{images[10]}: no DICOM image",
        f"broken annotations (1): {images[3]}.xml is no property list",
        "77777777",
        f"images that are there twice (1): {images[11]}",
        "images whose names are not INbreast's (1): IMG0001.dcm",
        "allow_missing",
    ):
        assert part in message


def test_what_is_missing_or_broken_is_left_out_on_demand(download, truth):
    images = list(truth.index)
    dicom_of(download, images[7]).unlink()
    dicom_of(download, images[8]).write_bytes(b"\0" * 200)
    (download / RELEASE / "AllXML" / f"{images[3]}.xml").write_bytes(b"")
    assert "finish the download" in failure(download)
    table = inbreast(download, allow_missing=True).set_index("image_id")
    assert set(truth.index) - set(table.index) == {images[7], images[8]}
    assert not table.loc[images[3], "lesions_known"]


def test_no_annotations_at_all_is_an_incomplete_download(download, truth):
    shutil.rmtree(download / RELEASE / "AllXML")
    assert "the annotations are missing" in failure(download)
    table = inbreast(download, allow_missing=True)
    assert list(table["lesions_known"]) == [birads == "1" for birads in truth["birads"]]


def test_no_image_at_all_is_an_error_even_then(download):
    shutil.rmtree(download / RELEASE / "AllDICOMs")
    assert "no image of INbreast is left" in failure(download, allow_missing=True)


def test_another_version_of_the_table(download):
    spoil(table_of(download), "Bi-Rads", "Assessment")
    dicom_of(download, 20586908).write_bytes(b"no")
    message = failure(download)
    assert "no column Bi-Rads" in message
    assert "Assessment" in message
    assert "20586908: no DICOM image" in message  # the rest is still looked at


def test_two_versions_of_the_table(download):
    (download / "INbreast.csv").write_text(COLUMNS + "\n")
    assert "2 times with different contents" in failure(download)


def test_a_spreadsheet_is_to_be_saved_as_csv(download):
    table_of(download).rename(table_of(download).with_suffix(".xls"))
    assert "save it as CSV under the name INbreast.csv" in failure(download)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00", COLUMNS.encode()])
def test_a_table_without_rows(download, content):
    table_of(download).write_bytes(content)
    failure(download)


def test_a_table_that_the_disk_refuses(download, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert "cannot be read (Permission denied)" in failure(download)


def test_a_broken_link_and_a_link_back_into_the_download(download, written):
    (download / RELEASE / "AllDICOMs" / "999_0123456789abcdef_MG_L_CC_ANON.dcm").symlink_to("nowhere")
    (download / RELEASE / "AllXML" / "again").symlink_to(download)
    assert len(inbreast(download)) == len(inbreast(written[0]))


def test_a_row_twice(download):
    line = table_of(download).read_text().splitlines()[1]
    spoil(table_of(download), line, f"{line}\n{line}")
    assert "the table lists twice (2): line 2" in failure(download)


def test_a_table_that_contradicts_the_names_is_not_that_of_these_images(download, caplog):
    spoil(table_of(download), ";L;CC;", ";R;CC;")
    assert inbreast(download).loc[0, "laterality"] == "R"
    assert "20586908" in caplog.text
    spoil(table_of(download), ";L;", ";R;", count=-1)
    assert "is another in the table than in their names" in failure(download)


def test_no_folder_and_an_empty_one(tmp_path):
    assert "there is no folder" in failure(tmp_path / "absent")
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert "is empty" in failure(tmp_path)


def test_another_data_set(tmp_path):
    (tmp_path / "mdb001.pgm").write_bytes(b"P5 1 1 255 a")
    message = failure(tmp_path)
    assert "there is no INbreast.csv" in message
    assert "mdb001.pgm" in message


def test_no_message_holds_a_patient(download, truth, caplog):
    caplog.set_level(logging.DEBUG)
    names = sorted((download / RELEASE / "AllDICOMs").iterdir())
    hashes = {path.name.split("_")[1] for path in names}
    names[0].write_bytes(b"half")
    shutil.copyfile(names[1], names[1].parent.parent / names[1].name)
    names[2].rename(names[2].with_name(names[2].name.replace("_ANON", "")))
    names[3].unlink()
    inbreast_error = failure(download)
    assert not [secret for secret in (*hashes, "C-0001") if secret in inbreast_error + caplog.text]
    for path, image in zip(names[:4], truth.index, strict=False):
        assert path.name.startswith(image)
        assert image in inbreast_error

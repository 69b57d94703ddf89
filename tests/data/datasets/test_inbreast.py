import logging
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.inbreast import _in_own_pixels, inbreast, lesions_in, patients, read_annotations
from lemlight.errors import ImageError
from tests.layouts.drawing import failure_of, save_mammogram, spoil, written_by
from tests.layouts.inbreast import RELEASE, dicom_of, save_regions, table_of, write_inbreast

failure = partial(failure_of, inbreast)
written = written_by(write_inbreast, patients=6)


@pytest.mark.parametrize("malignant_from", [2, 3, 4, 5, 6])
def test_the_label_follows_the_chosen_category(written, truth, malignant_from):
    table = inbreast(written[0], malignant_from=malignant_from)
    assert list(table["label"]) == [int(int(birads[0]) >= malignant_from) for birads in truth["birads"]]


@pytest.mark.parametrize(("leave_out", "gone"), [([3], {"3"}), (["4a"], {"4a"}), ([4, 1], {"4a", "4b", "4c", "1"})])
def test_categories_are_left_out(written, truth, leave_out, gone):
    table = inbreast(written[0], leave_out=leave_out)
    assert set(table["image_id"]) == set(truth.index[~truth["birads"].isin(gone)])


def test_images_of_a_left_out_category_may_be_missing(download, truth):
    for image in truth.index[truth["birads"] == "3"]:
        dicom_of(download, image).unlink()
    assert len(inbreast(download, leave_out=[3])) == (truth["birads"] != "3").sum()


def test_an_image_of_birads_1_without_xml_holds_no_lesion_and_another_one_is_unknown(download, truth, caplog):
    normal, other = truth.index[truth["birads"] == "1"][0], truth.index[truth["birads"] == "2"][0]
    (download / RELEASE / "AllXML" / f"{other}.xml").unlink()
    table = inbreast(download).set_index("image_id")
    assert (table.loc[normal, "lesions"], table.loc[normal, "lesions_known"]) == ((), True)
    assert (table.loc[other, "lesions"], table.loc[other, "lesions_known"]) == ((), False)
    assert other in caplog.text


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
    save_mammogram(download / "IMG0001.dcm", np.zeros((8, 8)))
    message = failure(download)
    for part in (
        "unknown BI-RADS (1): line 7",
        "File Name is no image number (1): line 8 ('CC 17')",
        f"images of the table without a file (2): {images[7]}, CC 17",
        f"images without a row in the table (1): {images[6]}",
        f"{images[8]}_*_MG_L_CC_ANON.dcm: no DICOM image",
        f"{images[9]}_*_MG_L_ML_ANON.dcm: cut short",
        f"{images[10]}_*_MG_R_CC_ANON.dcm: no DICOM image",
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


def test_a_spreadsheet_is_to_be_saved_as_csv(download):
    table_of(download).rename(table_of(download).with_suffix(".xls"))
    assert "save it as CSV under the name INbreast.csv" in failure(download)


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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<plist version='1.0'><dict/></plist>",
        "<plist version='1.0'><dict><key>Images</key><array/></dict></plist>",
        "<plist version='1.0'><array><string>Images</string></array></plist>",
        '<!DOCTYPE p [<!ENTITY a "a">]><plist version="1.0"><dict><key>Images</key><string>&a;</string></dict></plist>',
    ],
)
def test_xml_that_is_no_annotation(tmp_path, text):
    path = tmp_path / "20586908.xml"
    path.write_text(text)
    with pytest.raises(ImageError, match=r"20586908\.xml is no property list"):
        read_annotations(path)


@pytest.mark.parametrize("point", ["(1, nan)", "(1)", "1, 2", "", "(1, 2", "(1,,2)"])
def test_a_point_that_is_no_pair_of_numbers(tmp_path, point):
    path = tmp_path / "1.xml"
    save_regions(path, [("Mass", [(1, 2)])])
    spoil(path, "(1.000000, 2.000000)", point)
    with pytest.raises(ImageError):
        read_annotations(path)


def test_regions_without_a_name_and_with_a_third_coordinate(tmp_path):
    path = tmp_path / "1.xml"
    save_regions(path, [("Mass", [(1.5, 2.5)]), ("pectoral  MUSCLE", [(0, 0)] * 3)])
    spoil(path, "<key>Name</key>", "<key>Title</key>")
    spoil(path, "(1.500000, 2.500000)", "(1.5e0, 2.5, 0.0)")
    assert read_annotations(path) == [("", ((1.5, 2.5),))]


@pytest.mark.parametrize(("x", "known"), [(-1.9, True), (-2.1, False), (200.9, True), (201.1, False)])
def test_a_vertex_may_lie_a_hundredth_of_the_side_beyond_the_edge(x, known):
    regions = [("mass", ((x, 10.0), (100.0, 10.0), (100.0, 20.0)))]
    if known:
        (lesion,) = lesions_in(regions, (256, 200))
        assert lesion.points[0][0] in (0.0, 199.0)
        assert lesion.draw((256, 200))[0].any()
    else:
        with pytest.raises(ImageError, match="outside"):
            lesions_in(regions, (256, 200))


def test_a_region_without_points_makes_the_lesions_unknown():
    with pytest.raises(ImageError, match="without points"):
        lesions_in([("mass", ()), ("mass", ((1.0, 1.0),))], (10, 10))


def test_the_outlines_of_copies_are_scaled_from_the_size_of_the_release_or_unknown(download, truth, caplog):
    square, *others = truth.index
    outline = [(1600.0, 3200.0), (1679.0, 3200.0), (1679.0, 3279.0), (1600.0, 3279.0)]  # outside of the copies
    for image in truth.index:
        save_mammogram(dicom_of(download, image), np.zeros((400, 400) if image == square else (511, 416)))
        save_regions(download / RELEASE / "AllXML" / f"{image}.xml", [("Mass", outline)])
    table = inbreast(download).set_index("image_id")
    assert table["lesions_known"].tolist() == [False, *[True] * len(others)]
    assert f"{square} (400 x 400 px, which is neither a size of INbreast nor has the aspect of one)" in caplog.text
    drawn, note = table.loc[others[0], "lesions"][0].draw((511, 416))
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (400, 410, 200, 209)
    assert note == "lesions rescaled from an image of (4084, 3328) to (511, 416)"


def test_outlines_that_fit_into_small_copies_are_their_own_and_noted(written, caplog):
    caplog.clear()
    inbreast(written[0])
    assert "copies of another size, on which the outlines seem to be drawn" in caplog.text


@pytest.mark.parametrize(("images", "own"), [(3, False), (4, True)])
def test_half_sized_copies_are_scaled_unless_many_outlines_lie_inside_them(images, own):
    shapes = {str(n): (2042, 1664) for n in range(images)}
    inside, outside = [("mass", ((1000.0, 1000.0),))], [("mass", ((1000.0, 2500.0),))]
    assert _in_own_pixels(shapes, dict.fromkeys(shapes, inside)) == own
    assert not _in_own_pixels(shapes, dict.fromkeys(shapes, inside) | {"0": outside})


def series(*values):
    return pd.Series(list(values), index=range(5, 5 + len(values)))


@pytest.mark.parametrize(
    ("hashes", "header", "expected"),
    [
        ("abc", ("1", "1", "2"), "aac"),  # the header joins
        ("aab", ("1", "2", "3"), "aab"),  # the header splits: the hash holds
        ("abcd", ("1", "2", "2", ""), "abbd"),
        ("abca", ("1", "1", "2", "2"), "aaaa"),  # joined by way of another
        ("abc", ("removed", "REMOVED", "Anonymous"), "abc"),
        ("abcde", ("0", "0", "0", "1", "1"), "abcdd"),  # more than half of the hashes: a placeholder
        ("ba", ("", ""), "ba"),
    ],
)
def test_patients(hashes, header, expected):
    assert "".join(patients(series(*hashes), series(*header))) == expected

import os
from functools import partial
from pathlib import Path

import pytest

from lemlight.data.datasets.folder import folder
from lemlight.data.groups import age_band
from lemlight.data.preparing.lesions import Lesion
from tests.layouts.drawing import failure_of


def write(root, text, files=("a.dcm", "b.png"), encoding="utf-8"):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "images.csv").write_bytes(text.encode(encoding))
    return root


problems = partial(failure_of, folder)


def test_needed_columns_alone_suffice(tmp_path):
    table = folder(write(tmp_path, "path,label,patient\na.dcm,0,007\nb.png,1,NA\n"))
    assert table["image_id"].tolist() == ["a", "b"]
    assert table["path"].tolist() == [str(tmp_path / "a.dcm"), str(tmp_path / "b.png")]
    assert table["label"].tolist() == [0, 1]
    assert table["patient_id"].tolist() == ["007", "NA"]
    assert table[["split", "laterality", "view"]].eq("").all(axis=None)
    assert table["lesions"].tolist() == [(), ()]
    assert not table["lesions_known"].any()


def test_every_column_is_read_and_normalised(tmp_path):
    text = (
        "Patient , LABEL,path,view,laterality,split,mask,image_id,remark\n"
        ' 1 ,1, sub/a.dcm ,cc,Left,Train,m1.png| sub/m2.png,first,"two\nlines"\n'
        "2,0,sub\\b.dcm,mlo,r,TEST,,,\n"
    )
    table = folder(write(tmp_path, text, ["sub/a.dcm", "sub/b.dcm", "m1.png", "sub/m2.png"]))
    assert table["image_id"].tolist() == ["first", "sub/b"]
    assert table["patient_id"].tolist() == ["1", "2"]
    assert table["view"].tolist() == ["CC", "MLO"]
    assert table["laterality"].tolist() == ["L", "R"]
    assert table["split"].tolist() == ["train", "test"]
    assert table["lesions"].tolist() == [
        (Lesion("mask", path=str(tmp_path / "m1.png")), Lesion("mask", path=str(tmp_path / "sub/m2.png"))),
        (),
    ]
    assert table["lesions_known"].tolist() == [True, False]


def folder_with_masks(root, *cells):
    """One image for each pair of cells (mask, lesion_type)."""
    files = [f"{n}.dcm" for n in range(len(cells))]
    rows = [f"{file},0,{n},{mask},{kind}\n" for n, (file, (mask, kind)) in enumerate(zip(files, cells, strict=True))]
    return write(root, "path,label,patient,mask,lesion_type\n" + "".join(rows), [*files, "m1.png", "m2.png"])


def test_no_lesion_is_known_and_an_empty_cell_is_not(tmp_path):
    table = folder(folder_with_masks(tmp_path, ("none", ""), ("None", ""), ("", ""), ("m1.png", "")))
    assert table["lesions_known"].tolist() == [True, True, False, True]
    assert table["lesions"].map(len).tolist() == [0, 0, 0, 1]


def test_a_lesion_type_for_all_masks_or_for_each(tmp_path):
    cells = [("m1.png|m2.png", "Mass"), ("m1.png|m2.png", "mass| calcification"), ("m1.png", ""), ("", "other")]
    table = folder(folder_with_masks(tmp_path, *cells))
    kinds = table["lesions"].map(lambda lesions: [lesion.type for lesion in lesions])
    assert kinds.tolist() == [["mass", "mass"], ["mass", "calcification"], [""], []]
    assert [Path(lesion.path).name for lesion in table["lesions"][1]] == ["m1.png", "m2.png"]


def test_lesion_types_that_do_not_fit_are_named_by_line(tmp_path):
    cells = [("m1.png", "mass"), ("m1.png", "mass|mass"), ("m1.png|m2.png", "mass|tumour"), ("none", "mass")]
    message = problems(folder_with_masks(tmp_path, *cells))
    for part in (
        "one type for all masks, or one for each: line 3 (2 types, 1 masks)",
        "lesion_type is not one of mass, calcification, distortion, asymmetry, other: line 4 ('tumour')",
        "mask says that there is no lesion: line 5 ('mass')",
    ):
        assert part in message
    assert "line 2" not in message


def test_labels_with_decimals(tmp_path):
    table = folder(write(tmp_path, "sep=;\npath;label;patient\na.dcm;1,0;1\nb.png;0.0;2\n"))
    assert table["label"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("Mu\u0308ller.png", "M\u00fcller.png"),  # NFD, as macOS wrote it, and NFC
        ("M\u00fcller/1.png", "Mu\u0308ller/1.png"),
        (" left  breast.png", " left breast.png"),
        ("p1 /1.png", "p1/1.png"),
        ("left\u00a0breast.png", "left breast.png"),
        (os.fsdecode(b"M\xfcller.png"), "M\u00fcller.png"),  # a Windows archive that Linux unpacked
        (os.fsdecode(b"M\x81ller.png"), "Mu\u0308ller.png"),  # its DOS encoding
    ],
)
def test_a_file_is_found_however_its_name_is_encoded(tmp_path, on_disk, written):
    text = f"path,label,patient,mask\n{written},0,1,{written}.mask\nb.png,1,2,\n"
    table = folder(write(tmp_path, text, [on_disk, f"{on_disk}.mask", "b.png"]))
    assert table["path"].tolist() == [str(tmp_path / on_disk), str(tmp_path / "b.png")]
    assert table["lesions"][0][0].path == str(tmp_path / f"{on_disk}.mask")


def test_of_two_files_with_names_alike_none_is_guessed(tmp_path):
    files = ["Mu\u0308 1.png", "M\u00fc\u00a01.png", "b.png"]
    assert "1 of 2 files are missing" in problems(
        write(tmp_path, "path,label,patient\nM\u00fc 1.png,0,1\nb.png,1,2\n", files)
    )


def test_links_below_root_may_point_outside(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.dcm").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "elsewhere")
    table = folder(write(tmp_path / "root", "path,label,patient\nimages/a.dcm,0,1\n", []))
    assert table.loc[0, "path"] == str(tmp_path / "root" / "images" / "a.dcm")


def test_a_relative_root_gives_absolute_paths(tmp_path, monkeypatch):
    write(tmp_path / "data", "path,label,patient\na.dcm,0,1\n")
    monkeypatch.chdir(tmp_path)
    for root in ("data", "data/../data"):
        assert folder(root).loc[0, "path"] == str(tmp_path / "data" / "a.dcm")


def test_a_missing_an_empty_and_a_folder_without_its_csv(tmp_path):
    assert "there is no folder" in problems(tmp_path / "absent")
    assert "is empty" in problems(tmp_path)
    write(tmp_path, "path,label,patient\n")
    message = problems(tmp_path, csv="cases.csv")
    assert "no cases.csv" in message
    assert "images.csv: set dataset.csv" in message


def test_a_missing_column_and_a_csv_without_rows(tmp_path):
    message = problems(write(tmp_path, "path,diagnosis,patient\na.dcm,0,1\n"))
    assert "no column label: it has path, diagnosis, patient; needed are path, label, patient" in message
    assert "no column path, label, patient: it has none" in problems(write(tmp_path, ""))
    assert "has no rows" in problems(write(tmp_path, "path,label,patient\n"))


def test_all_problems_at_once_by_line(tmp_path):
    text = (
        "path,label,patient,split,mask\n"
        "a.dcm,2,1,train,\n"
        "b.png,malignant,1,training,../m.png\n"
        "\n"
        "a.dcm,,,,\n"
        "../secret.dcm,0,3,,\n"
        "gone.dcm,1,3,,gone.png\n"
        ",1,4,,\n"
    )
    message = problems(write(tmp_path / "root", text))
    for part in (
        "neither 0 (benign) nor 1 (malignant): line 2 ('2'), line 3 ('malignant'), line 5 ('')",
        "patient_id is empty: line 5 ('')",
        "split is not train, val, test or empty: line 3 ('training')",
        f"line 6 ({tmp_path / 'secret.dcm'}), line 3 ({tmp_path / 'm.png'})",
        "2 of 4 files are missing",
        "gone.dcm, gone.png",
        "the same image is listed more than once: line 2 (a.dcm), line 5 (a.dcm)",
        "image_id is not unique: line 2 ('a'), line 5 ('a')",
        "path is empty: line 8 ('')",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("path,label,patient\na.dcm,0,Müller\n".encode("latin-1"), "is not UTF-8 text"),
        ("path,label,patient\na.dcm,0,1\n".encode("utf-16-le"), "is not UTF-8 text (null characters)"),  # no mark
        ("path,label,patient\na.dcm,0,1\n".encode("utf-32"), "is not UTF-8 text (null characters)"),
        ("path,label,patient\na.dcm,0,1\n".encode("utf-16")[:-1], "is not UTF-8 text (truncated data"),
        (b"path,label,patient\na.dcm,0\nb.png,1,2,3\n", "not 3 cells in line 2, 3"),
    ],
)
def test_a_csv_that_cannot_be_read(tmp_path, content, part):
    write(tmp_path, "")
    (tmp_path / "images.csv").write_bytes(content)
    assert part in problems(tmp_path)


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig", "utf-8"])
def test_unicode_text_of_a_spreadsheet_is_read(tmp_path, codec):
    text = 'path\tlabel\tpatient\tage\r\na.dcm\t1,0\tM\u00fcller\t57,5\r\n"b, ""2"".png"\t0\t0017\t\r\n\t\t\t\r\n'
    table = folder(write(tmp_path, text, ["a.dcm", 'b, "2".png'], encoding=codec))
    assert table["patient_id"].tolist() == ["M\u00fcller", "0017"]
    assert table["label"].tolist() == [1, 0]
    assert [age_band(age) for age in table["age"]] == ["50 to 59", ""]


def test_a_lesion_has_its_name_in_both_views_and_as_many_names_as_masks(tmp_path):
    root = folder_with_masks(tmp_path, ("m1.png|m2.png", "mass"), ("m1.png", "mass"), ("none", ""))
    csv = root / "images.csv"
    head, *rows = csv.read_text().splitlines()
    names = ["7|8", "8", ""]
    csv.write_text("\n".join([f"{head},lesion_id", *(f"{row},{name}" for row, name in zip(rows, names, strict=True))]))
    table = folder(root)
    assert [[lesion.id for lesion in lesions] for lesions in table["lesions"]] == [["7", "8"], ["8"], []]
    csv.write_text(csv.read_text().replace("7|8", "7"))
    assert "lesion_id needs one for each mask: line 2 (1 ids, 2 masks)" in problems(root)

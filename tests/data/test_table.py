import json

import numpy as np
import pandas as pd
import pytest

from lemlight.data.preparing.lesions import Lesion
from lemlight.data.table import COLUMNS, check_table, write_table
from lemlight.errors import LemlightError

LESIONS = (
    Lesion("mask", "mass", path="/x/c1.png"),
    Lesion("circle", "calcification", points=((3.5, 4.0),), radius=2.0),
)


def small_table(**changes):
    table = pd.DataFrame(
        {
            "image_id": ["a", "b", "c"],
            "path": ["/x/a.dcm", "/x/b.dcm", "/x/c.dcm"],
            "label": [0, 1, 1],
            "patient_id": ["007", "NA", "8"],
            "split": ["train", "", "test"],
            "laterality": ["L", "R", ""],
            "view": ["CC", "", "MLO"],
            "lesions": pd.Series([(), (Lesion("mask", path="/x/b1.png"),), LESIONS], dtype=object),
            "lesions_known": [False, True, True],
        }
    )
    return table.assign(**changes)


def test_a_right_table_comes_back_in_order_as_a_copy():
    table = check_table(small_table())[list(COLUMNS[::-1])].set_index(pd.Index([5, 6, 7]))
    checked = check_table(table)
    assert tuple(checked.columns) == COLUMNS
    assert list(checked.index) == [0, 1, 2]
    checked.loc[0, "label"] = 1
    assert table.loc[5, "label"] == 0


def test_four_columns_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = small_table(path=["a.dcm", tmp_path / "b.dcm", "/x/c.dcm"]).drop(
        columns=["split", "laterality", "view", "lesions", "lesions_known"]
    )
    checked = check_table(own.assign(age=50))
    assert tuple(checked.columns) == COLUMNS
    assert checked["path"].tolist() == [str(tmp_path / "a.dcm"), str(tmp_path / "b.dcm"), "/x/c.dcm"]
    for column in ("split", "laterality", "view"):
        assert checked[column].tolist() == ["", "", ""]
    assert checked["lesions"].tolist() == [(), (), ()]
    assert checked["lesions_known"].tolist() == [False, False, False]


def test_text_that_is_not_a_number_is_empty_and_numbers_become_text():
    own = small_table(image_id=[1, 2, 3], view=[None, float("nan"), "CC"], split=pd.Series([np.nan] * 3))
    checked = check_table(own)
    assert checked["image_id"].tolist() == ["1", "2", "3"]
    assert checked["view"].tolist() == ["", "", "CC"]
    assert checked["split"].tolist() == ["", "", ""]


def test_given_lesions_are_known_and_their_relative_masks_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = small_table(lesions=pd.Series([(), (Lesion("mask", path="m.png"),), LESIONS], dtype=object))
    checked = check_table(own.drop(columns="lesions_known"))
    assert checked["lesions_known"].tolist() == [False, True, True]
    assert checked["lesions"][1][0].path == str(tmp_path / "m.png")
    assert checked["lesions"][2] == LESIONS


def test_the_csv_keeps_every_text_and_every_lesion(tmp_path):
    write_table(small_table(patient_id=["007", "NA", "1e5"]), tmp_path / "images.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"]
    flat = pd.read_csv(tmp_path / "images.csv", dtype=str, keep_default_na=False)
    assert tuple(flat.columns) == COLUMNS
    assert flat["patient_id"].tolist() == ["007", "NA", "1e5"]
    assert flat["lesions_known"].tolist() == ["False", "True", "True"]
    assert [len(json.loads(cell)) for cell in flat["lesions"]] == [0, 1, 2]
    assert json.loads(flat["lesions"][2])[1] == {
        "shape": "circle",
        "type": "calcification",
        "radius": 2.0,
        "points": [[3.5, 4.0]],
    }


@pytest.mark.parametrize(
    ("written", "patients"),
    [
        (("0017", "17", "17.0"), ["0017"] * 3),  # a spreadsheet, pandas
        (("\uff10\uff10\uff11\uff17", "\u0661\u0667", "17"), ["17"] * 3),  # full-width and Arabic digits
        (("'0017", '="0017"', "17"), ["'0017"] * 3),  # what keeps a spreadsheet from reading a number
        (("17,0", "017", "0"), ["017", "017", "0"]),  # a decimal comma
        (("p1", "p1\u200b", "\ufeffp1 "), ["p1"] * 3),  # what nobody sees
        (("P0", "p0", "P00"), ["P0", "P0", "P00"]),
        (("M\u00fcller", "Mu\u0308ller", "Muller"), ["M\u00fcller", "M\u00fcller", "Muller"]),  # NFC and NFD
        (("A 1", "A\u00a0 1", "A1"), ["A 1", "A 1", "A1"]),
        (("\uff11\uff17", "17", "18"), ["17", "17", "18"]),  # full width
        (("P-1", "P\u20111", "p\u20131"), ["P-1", "P-1", "P-1"]),  # a hyphen that does not break, a dash
        (("P\u20661\u2069", "P1", "P\ufe0f1"), ["P1", "P1", "P1"]),  # isolates, a variation selector
        (("1,234", "1234", "1.234"), ["1,234", "1,234", "1,234"]),  # thousands
        (("1,000", "1000", "1.000"), ["1,000", "1,000", "1.000"]),  # the last one may be 1
        (("1e5", "12e3", "0x1F"), ["1e5", "12e3", "0x1F"]),  # as a hash may look
        (("100", "10", "1.5"), ["100", "10", "1.5"]),
        ((17, 17.0, "0"), ["17", "17", "0"]),
    ],
)
def test_a_patient_written_in_several_ways_is_one(written, patients):
    assert check_table(small_table(patient_id=list(written)))["patient_id"].tolist() == patients
    last_first = check_table(small_table(patient_id=list(written)).iloc[::-1])
    assert last_first["patient_id"].tolist() == patients[::-1]


def test_patients_that_may_be_two_are_warned_of_by_name_and_once(caplog):
    table = check_table(small_table(patient_id=["0017", "17", "8"]), "mine")
    assert "mine: patient IDs that differ in leading zeros, decimals or upper and lower case only" in caplog.text
    assert "0017 = 17" in caplog.text
    caplog.clear()
    check_table(table)
    check_table(small_table(patient_id=["p1", "p1\u200b", "p2"]))
    assert caplog.text == ""


@pytest.mark.parametrize(
    "patient", ["1.23457E+15", "1,23457E+15", "1.2345678901234568e+18", 1.2345678901234568e18, "1.23457E15"]
)
def test_a_patient_in_scientific_notation_is_refused(patient):
    with pytest.raises(LemlightError, match=r"patient_id is a rounded number, .* as text: row 1 \('1.23"):
        check_table(small_table(patient_id=["a", patient, "b"]))


@pytest.mark.parametrize(
    "patient", ["#####", "#N/A", "#REF!", "#NAME?", "nan", "NaN", "<NA>", "NaT", "None", "NULL", " n\u00adan "]
)
def test_the_mark_for_no_value_is_no_patient(patient):
    with pytest.raises(LemlightError, match="patient_id is what a spreadsheet or pandas writes for no value"):
        check_table(small_table(patient_id=[patient, "Na", "#12"]))


def test_long_numbers_that_a_spreadsheet_rounded_are_warned_of(caplog):
    check_table(small_table(patient_id=["1234567890123400", "1234567890123512", "8000000000000000"]))
    assert caplog.text == ""
    check_table(small_table(patient_id=["1234567890123400", "1234567890123500", "1234567890987000"]))
    assert "3 of the 3 patient IDs of more than 15 digits end in 0, as where a spreadsheet rounds them" in caplog.text
    caplog.clear()
    check_table(small_table(patient_id=["123456789012345678", "123456789012345000", "123456789012346000"]))
    assert caplog.text == ""


def test_patients_that_became_dates_are_warned_of_by_name(caplog):
    check_table(small_table(patient_id=["1-2", "02-Jan", "Dez 99"]))
    assert (
        "patient IDs that look like dates, as a spreadsheet makes 2-Jan of 1-2: 02-Jan, Dez 99; export" in caplog.text
    )


def test_all_problems_stand_in_one_error():
    table = small_table(
        image_id=["a", "a", ""],
        path=["/x/a.dcm", "", None],
        label=[2, "yes", None],
        patient_id=["1", " ", None],
        split=["train", "testing", ""],
        laterality=["left", "", ""],
        view=["cc", "", ""],
        lesions=pd.Series([(LESIONS[0],), (Lesion("mask"),), [LESIONS[0]]], dtype=object),
        lesions_known=[False, True, "perhaps"],
    )
    with pytest.raises(LemlightError) as error:
        check_table(table, "images.csv")
    message = str(error.value)
    for part in (
        "images.csv",
        "image_id is empty: row 2 ('')",
        "image_id is not unique: row 0 ('a'), row 1 ('a')",
        "path is empty: row 1 (''), row 2 ('')",
        "neither 0 (benign) nor 1 (malignant): row 0 (2), row 1 ('yes'), row 2 (",
        "patient_id is empty: row 1 (' '), row 2 (",
        "split is not train, val, test or empty: row 1 ('testing')",
        "laterality is not L, R or empty: row 0 ('left')",
        "view is not in upper case: row 0 ('cc')",
        "lesions is not a tuple of Lesion: row 2 ([Lesion(",
        "a lesion's mask has no path: row 1 ((Lesion(",
        "lesions_known is neither True nor False: row 2 ('perhaps')",
        "lesions are given, but lesions_known is not True: row 0 (False)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("lesion", "line"),
    [
        (Lesion("blob"), "a lesion's shape is none of mask, polygon, box, circle, points: row 1 ("),
        (
            Lesion("points", "tumour", points=((1, 1),)),
            "a lesion's type is none of mass, calcification, distortion, asymmetry, other: row 1 (",
        ),
        (Lesion("mask"), "a lesion's mask has no path: row 1 ("),
        ("/x/mask.png", "lesions is not a tuple of Lesion: row 1 ("),
    ],
)
def test_one_wrong_lesion_beside_a_right_one_is_named_once_by_its_kind(lesion, line):
    lesions = pd.Series([(), (LESIONS[0], lesion), LESIONS], dtype=object)
    with pytest.raises(LemlightError) as error:
        check_table(small_table(lesions=lesions))
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 1
    assert line in lines[0]


def test_missing_columns_and_no_rows_are_refused():
    with pytest.raises(
        LemlightError, match=r"(?s)mine.*no column path, label; there are image_id, .*: name the columns image"
    ):
        check_table(small_table().drop(columns=["path", "label"]), "mine")
    with pytest.raises(LemlightError, match="must be a pandas DataFrame with a row for each image, got list"):
        check_table([{"image_id": "a"}])
    with pytest.raises(LemlightError, match="it has no rows"):
        check_table(small_table().iloc[:0])


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "images.csv").mkdir()  # in the way of the last step, the rename
    with pytest.raises(LemlightError, match=r"cannot write .*images.csv"):
        write_table(small_table(), tmp_path / "images.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"]

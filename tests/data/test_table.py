import numpy as np
import pandas as pd
import pytest

from lemlight.data.lesions import Lesion
from lemlight.data.table import COLUMNS, check_table, first_ten, read_table, write_table
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
    table = small_table()[list(COLUMNS[::-1])].set_index(pd.Index([5, 6, 7]))
    checked = check_table(table)
    assert tuple(checked.columns) == COLUMNS
    assert list(checked.index) == [0, 1, 2]
    checked.loc[0, "label"] = 1
    assert table.loc[5, "label"] == 0


def test_labels_as_text_bool_or_float_become_integers():
    for labels in (["0", "1", "1.0"], [False, True, True], np.array([0.0, 1.0, 1.0])):
        assert check_table(small_table(label=labels))["label"].tolist() == [0, 1, 1]


def test_csv_round_trip_keeps_every_text(tmp_path):
    table = check_table(small_table())
    write_table(table, tmp_path / "images.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "images.csv"), table)
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"]


def test_csv_round_trip_keeps_every_shape_known_none_and_unknown(tmp_path):
    shapes = (
        Lesion("polygon", "asymmetry", points=((0.1, 2.0), (1 / 3, 4.0), (5.0, 6.5))),
        Lesion("box", "distortion", points=((1.0, 2.0), (3.0, 4.0))),
        Lesion("points", "other", points=((7.0, 8.0),)),
        *LESIONS,
    )
    table = check_table(
        small_table(
            patient_id=["007", "NA", "1e5"],
            lesions=pd.Series([(), (), shapes], dtype=object),
            lesions_known=[False, True, True],
        )
    )
    write_table(table, tmp_path / "images.csv")
    back = read_table(tmp_path / "images.csv")
    pd.testing.assert_frame_equal(back, table)
    assert back["lesions"][2] == shapes
    assert back["lesions_known"].tolist() == [False, True, True]


def test_all_problems_stand_in_one_error():
    table = small_table(
        image_id=["a", "a", ""],
        path=["/x/a.dcm", "b.dcm", "/x/c.dcm"],
        label=[2, "yes", None],
        patient_id=["1", " ", None],
        split=["train", "testing", ""],
        laterality=["left", "", ""],
        view=["cc", "", ""],
        lesions=pd.Series([(LESIONS[0],), (Lesion("mask", path="b"),), [LESIONS[0]]], dtype=object),
        lesions_known=[False, True, "perhaps"],
    )
    with pytest.raises(LemlightError) as error:
        check_table(table, "images.csv")
    message = str(error.value)
    for part in (
        "images.csv",
        "image_id is empty: row 2 ('')",
        "image_id is not unique: row 0 ('a'), row 1 ('a')",
        "path is not absolute: row 1 ('b.dcm')",
        "neither 0 (benign) nor 1 (malignant): row 0 (2), row 1 ('yes'), row 2 (",
        "patient_id is empty: row 1 (' '), row 2 (",
        "split is not train, val, test or empty: row 1 ('testing')",
        "laterality is not L, R or empty: row 0 ('left')",
        "view is not in upper case: row 0 ('cc')",
        "lesions is not a tuple of Lesion: row 2 ([Lesion(",
        "a lesion's mask path is not absolute: row 1 ((Lesion(",
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
        (Lesion("mask"), "a lesion's mask path is not absolute: row 1 ("),
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


def test_a_long_outline_does_not_fill_the_message():
    outline = Lesion("polygon", "tumour", points=tuple((float(n), 0.0) for n in range(500)))
    with pytest.raises(LemlightError) as error:
        check_table(small_table(lesions=pd.Series([(), (outline,), ()], dtype=object)))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("cell", ["", "[1]", '[{"type": "mass"}]', '[{"shape": "box", "points": [1]}]', "/x/old.png"])
def test_a_csv_with_damaged_lesions_is_refused(tmp_path, cell):
    write_table(small_table(), tmp_path / "images.csv")
    flat = pd.read_csv(tmp_path / "images.csv", dtype=str, keep_default_na=False)
    flat.loc[1, "lesions"] = cell
    flat.to_csv(tmp_path / "images.csv", index=False)
    with pytest.raises(LemlightError, match=r"lesions is not a tuple of Lesion: row 1"):
        read_table(tmp_path / "images.csv")


def test_missing_columns_and_no_rows_are_refused():
    with pytest.raises(LemlightError, match="no column label, view; there are image_id, path"):
        check_table(small_table().drop(columns=["label", "view"]))
    with pytest.raises(LemlightError, match="it has no rows"):
        check_table(small_table().iloc[:0])


def test_a_table_that_is_not_there_or_empty_is_one_error(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    for name in ("absent.csv", "empty.csv"):
        with pytest.raises(LemlightError, match=f"{name}: no image table"):
            read_table(tmp_path / name)


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "images.csv").mkdir()  # in the way of the last step, the rename
    with pytest.raises(LemlightError, match=r"cannot write .*images.csv"):
        write_table(small_table(), tmp_path / "images.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"]


def test_long_lists_are_cut_after_ten():
    assert first_ten(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert first_ten(range(12)).endswith("8, 9 and 2 more")

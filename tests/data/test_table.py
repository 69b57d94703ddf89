import numpy as np
import pandas as pd
import pytest

from lemlight.data.table import COLUMNS, check_table, first_ten, read_table, write_table
from lemlight.errors import LemlightError


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
            "mask_paths": pd.Series([(), ("/x/b1.png",), ("/x/c1.png", "/x/c2.png")], dtype=object),
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


def test_all_problems_stand_in_one_error():
    table = small_table(
        image_id=["a", "a", ""],
        path=["/x/a.dcm", "b.dcm", "/x/c.dcm"],
        label=[2, "yes", None],
        patient_id=["1", " ", None],
        split=["train", "testing", ""],
        laterality=["left", "", ""],
        view=["cc", "", ""],
        mask_paths=pd.Series([(), ("/x/a|b",), ["/x/c"]], dtype=object),
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
        "mask_paths is not a tuple of absolute paths without '|': row 1 (('/x/a|b',)), row 2 (['/x/c'])",
    ):
        assert part in message


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

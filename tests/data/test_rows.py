import pytest

from lemlight.data.datasets.common import one_table, read_rows
from lemlight.errors import LemlightError


def rows_of(tmp_path, text, needed=("a", "b")):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(path, needed)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1, x y \n007,NA\n",
        "a;b\r\n1;x y\r\n\r\n007;NA",
        b"\xef\xbb\xbfa\tb\t\n1\tx y\t\n\t\t\n007\tNA\t\n",
        '"a","b"\n"1","x y"\n\n\n"007","NA"\n',
    ],
)
def test_cells_are_stripped_text_in_any_dialect(tmp_path, text):
    rows = rows_of(tmp_path, text)
    assert rows.to_dict("list") == {"a": ["1", "007"], "b": ["x y", "NA"]}


def test_rows_are_named_by_their_line(tmp_path):
    assert list(rows_of(tmp_path, "a,b\n1,2\n\n,,\n3,4\n").index) == [2, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column a, b: it has none"),
        ("x,b\n1,2\n", "no column a: it has x, b"),
        ("a,b,a\n1,2,3\n", "the column a twice"),
        ("a,b\n1,2\n3\n", "not 2 cells in line 3"),
        ("a,b\n1,2,3\n", "not 2 cells in line 2"),
        ("a,b\n", "no rows"),
        ('a,b\n1,"2\n', "line 2: this is no CSV"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, message):
    with pytest.raises(LemlightError, match=message):
        rows_of(tmp_path, text)


def test_copies_of_a_table(tmp_path):
    one, other = tmp_path / "1.csv", tmp_path / "2.csv"
    one.write_text("a,b\n")
    other.write_text("a,b\n")
    assert one_table([str(one), str(other)], "t.csv", tmp_path) == one
    other.write_text("a,c\n")
    with pytest.raises(LemlightError, match="2 times with different contents"):
        one_table([str(one), str(other)], "t.csv", tmp_path)
    with pytest.raises(LemlightError, match=r"there is no t\.csv below"):
        one_table([], "t.csv", tmp_path)

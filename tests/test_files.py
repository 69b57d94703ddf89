import pytest

from lemlight.errors import LemlightError
from lemlight.files import written_aside


def test_the_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    with written_aside(path) as aside:
        aside.write_text("new")
        assert aside.parent == tmp_path
        assert aside.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "new"


def interrupted(path, error):
    with written_aside(path) as aside:
        aside.write_text("half")
        raise error


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), LemlightError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_full_disk_or_an_interrupt_keeps_the_old_file(tmp_path, error, raised):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(raised):
        interrupted(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "folder").write_text("")
    with pytest.raises(LemlightError, match="cannot write"), written_aside(tmp_path / "folder" / "a.txt") as aside:
        aside.write_text("new")

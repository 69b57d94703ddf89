import os

import pytest

from lemlight.data.datasets.common import below, list_files
from lemlight.errors import LemlightError


def test_files_are_listed_once_and_in_order(tmp_path):
    for name in ("b/2.dcm", "b/1.dcm", "a.csv", ".DS_Store", "__MACOSX/b/1.dcm", "c/.hidden/3.dcm", "b/._1.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "broken.dcm").symlink_to("nowhere")
    (tmp_path / "linked.dcm").symlink_to(tmp_path / "b" / "1.dcm")
    assert [below(path, tmp_path) for path in list_files(tmp_path, "X")] == [
        "a.csv",
        "b/1.dcm",
        "b/2.dcm",
        "linked.dcm",
    ]


def test_a_relative_root_gives_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.dcm").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    (path,) = list_files(type(tmp_path)("x"), "X")
    assert path == str(tmp_path / "x" / "1.dcm")
    assert below(path, type(tmp_path)("x")) == "1.dcm"


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(LemlightError, match=r"locked cannot be read \(Permission denied\)"):
        list_files(tmp_path, "X")

"""`python -m lemlight.download` with a folder in the place of the archive, up to the page of what it fetched."""

import shutil

import pytest

from tests.data.test_sources import MockArchive
from tests.layouts.cbis import write_cbis


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_cbis(folder, "idc")
    return folder


@pytest.fixture(scope="module")
def stand_in(archive):
    """Overrides that put a folder in the place of the archive."""
    target = f"{MockArchive.__module__}.{MockArchive.__name__}"
    return ["dataset=cbis", f"+source.index._target_={target}", f"+source.index.folder={archive}"]


def test_a_part_is_fetched_checked_and_prepared(lemlight_run, archive, stand_in, tmp_path):
    root = tmp_path / "cbis"
    said = lemlight_run("download", *stand_in, f"root={root}", "patients=4", "check_only=true").out
    assert "4 patients" in said
    assert "CC BY 4.0" in said
    assert "mass_case_description_train_set.csv" in said
    assert "nothing was fetched" in said
    assert not root.exists()
    root.mkdir()
    for table in archive.glob("*.csv"):
        shutil.copy(table, root)
    said = lemlight_run("download", *stand_in, f"root={root}", "patients=12").out
    assert "tables:" not in said
    following = said.strip().splitlines()[-1]
    assert f"lemlight.prepare dataset=cbis dataset.root={root} dataset.allow_missing=true" in following
    page = lemlight_run("prepare", *following.split()[4:], "thumbnails=0").out
    assert "patients" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["dataset=inbreast", "root=x"],
            "dataset=inbreast: lemlight knows no source of it, but of cbis, cmmd, embed, mias",
        ),
        (["dataset=cbis"], "root: a value is needed"),
        (["root=x"], "dataset=phantom: lemlight knows no source"),
        (["dataset=mias", "root=x", "patients=3"], "leave patients out"),
        (["dataset=cbis", "root=x", "patients=0"], "patients=0: must be greater than or equal to 1"),
        (["dataset=cbis", "root=x", "source.colection=x"], "did you mean collection?"),
    ],
)
def test_a_mistake_is_one_sentence(refused, arguments, message):
    assert message in refused("download", *arguments)


def test_a_login_that_is_missing_is_explained_with_the_steps(refused, tmp_path, monkeypatch):
    for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, step in (("vindr", "sign the data use agreement"), ("rsna", "accept the rules")):
        said = refused("download", f"dataset={name}", "root=x", "check_only=true")
        assert "no login was found" in said
        assert step in said

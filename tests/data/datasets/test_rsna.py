import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lemlight.data.datasets.rsna import rsna
from lemlight.data.reading.io import read_image
from tests.layouts.drawing import failure_of, spoil, written_by
from tests.layouts.rsna import write_rsna

failure = partial(failure_of, rsna)
written = written_by(write_rsna)


def image_of(root, truth, number):
    return root / "train_images" / truth["patient_id"].iloc[number] / f"{truth.index[number]}.dcm"


@pytest.mark.parametrize("views", [["CC", "MLO"], ["MLO"], ["AT"]])
def test_views_are_chosen(written, truth, views):
    kept = truth.index[truth["view"].isin(views)]
    assert list(rsna(written[0], views=views)["image_id"]) == list(kept)
    assert 0 < len(kept) < len(truth)


@pytest.mark.parametrize("in_folders", [False, True])
def test_png_copies_do_as_well(tmp_path, in_folders):
    truth = write_rsna(tmp_path, png=True).set_index("image_id")
    for path in list((tmp_path / "train_images").glob("*.png")) if in_folders else ():
        patient, image = path.stem.split("_")
        (tmp_path / "png" / patient).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "png" / patient / f"{image}.png")
    table = rsna(tmp_path, views=["CC", "MLO", "AT"]).set_index("image_id")
    assert list(table["label"]) == list(truth.loc[table.index, "label"])
    assert len(table) == len(truth)
    assert table["path"].str.endswith(".png").all()
    first = table.index[0]
    np.testing.assert_allclose(read_image(Path(table.loc[first, "path"])).pixels, truth.loc[first, "shown"], atol=1e-4)


def test_png_copies_never_stand_in_for_missing_dicom_files(download, truth):
    gone = image_of(download, truth, 7)
    for number in range(5, 9):
        path = image_of(download, truth, number)
        shutil.copyfile(path, download / f"{path.parent.name}_{path.stem}.png")
    assert rsna(download)["path"].str.endswith(".dcm").all()
    gone.unlink()
    assert f"images of the table without a file (1): {gone.parent.name}/{gone.stem}" in failure(download)


def test_no_image_is_opened_and_none_asked_for_its_size(download, written, monkeypatch):
    for path in (download / "train_images").glob("*/*.dcm"):
        path.write_bytes(b"")
    asked = Counter()
    stat = __import__("os").stat
    monkeypatch.setattr("os.stat", lambda path, **how: asked.update([str(path)]) or stat(path, **how))
    assert len(rsna(download)) == len(rsna(written[0]))
    assert not [path for path in asked if path.endswith(".dcm")]


def test_everything_wrong_is_listed_at_once(download, truth):
    spoil(download / "train.csv", ",L,CC,61.0,1,", ",L,CC,61.0,2,")
    spoil(download / "train.csv", f",{truth.index[3]},R,", f",{truth.index[3]},B,")
    spoil(download / "train.csv", f",{truth.index[8]},", ",unknown,")
    gone = image_of(download, truth, 20)
    gone.unlink()
    twice = image_of(download, truth, 21)
    shutil.copyfile(twice, download / f"{twice.parent.name}_{twice.stem}.dcm")
    (download / "images" / "aa").mkdir(parents=True)
    (download / "images" / "aa" / "b.dicom").write_bytes(b"")
    message = failure(download)
    for part in (
        "cancer is neither 0 nor 1 (1): line 7 ('2')",
        "unknown laterality (1): line 5 ('B')",
        "image_id is no number (1): line 10 ('unknown')",
        f"{gone.parent.name}/{gone.stem}",
        f"images without a row in the table (1): {truth['patient_id'].iloc[8]}/{truth.index[8]}",
        f"images that are there twice (1): {twice.parent.name}_{twice.stem}.dcm and train_images/",
        "images whose names are not RSNA's (1): images/aa/b.dicom",
        "dataset.allow_missing=true",
    ):
        assert part in message


def test_images_of_a_view_that_is_not_wanted_may_be_missing(download, truth):
    other = list(truth["view"]).index("AT")
    image_of(download, truth, other).unlink()
    assert len(rsna(download)) == len(truth) - 1
    assert truth.index[other] in failure(download, views=["AT"])


@pytest.mark.parametrize(("cancer", "what"), [("1", " with different labels (1)"), ("0", " (1)")])
def test_an_image_twice_in_the_table(download, truth, cancer, what):
    row = (download / "train.csv").read_text().splitlines()[1]
    again = row.replace(",61.0,0,", f",61.0,{cancer},")
    spoil(download / "train.csv", row, f"{row}\n{again}")
    assert f"the table lists twice{what}: {truth.index[0]}" in failure(download)

import errno
import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.data import store as arrays
from lemlight.data import store as preparation
from lemlight.data.datamodule import MammogramDataset
from lemlight.data.lesions import Lesion
from lemlight.data.store import PreparedStore, PrepareSettings, prepare
from lemlight.errors import LemlightError

SETTINGS = PrepareSettings(height=64, width=48)


def prepared(table, root, settings=SETTINGS, workers=1):
    return prepare(table, settings, root, workers, progress=False)


def test_the_store_holds_every_image_with_its_geometry(table, draw, tmp_path):
    store = prepared(table, tmp_path / "store")
    assert store.image_ids == [f"i{number}" for number in range(6)]
    assert store.settings == {"height": 64, "width": 48, "crop": True, "flip": True}
    image = store.image(store.index_of("i3"))
    assert (image.shape, image.dtype) == ((64, 48), np.uint16)
    assert 0 < (image == 0).mean() < 0.6
    back = store.geometry(3).map_to_original(image.astype(np.float32))
    assert back.shape == (200, 160)
    assert abs(back[95:105, 30:60].mean() - draw(3)[95:105, 30:60].mean()) < 1000
    assert store.spacing(3) is None
    assert store.left_out.empty


def test_lesions_move_with_the_image_and_a_foreign_mask_is_noted(table, tmp_path):
    store = prepared(table, tmp_path / "store")
    assert [store.mask(i) is not None for i in range(6)] == [False, True, False, False, False, False]
    x, y = store.geometry(1).points_to_prepared(np.array([[34.5, 99.5]]))[0]
    rows, columns = np.nonzero(store.mask(1))
    assert abs(columns.mean() - x) < 1
    assert abs(rows.mean() - y) < 1
    assert store.notes["image_id"].tolist() == ["i2"]
    assert "(200, 100)" in store.notes["note"][0]


def test_a_mask_of_another_size_and_the_same_aspect_is_rescaled(table, tmp_path):
    mask = np.zeros((100, 80), np.uint8)
    mask[45:55, 10:25] = 255
    cv2.imwrite(table.at[1, "lesions"][0].path, mask)
    store = prepared(table, tmp_path / "store")
    assert abs(int(store.mask(1).sum()) - 600 * np.prod(store.geometry(1).scale)) < 20
    assert "rescaled" in store.notes["note"][0]


def test_a_lesion_outside_the_breast_is_noted(table, tmp_path):
    mask = np.zeros((200, 160), np.uint8)
    mask[0:4, 150:160] = 255
    cv2.imwrite(table.at[1, "lesions"][0].path, mask)
    store = prepared(table, tmp_path / "store")
    assert not store.mask(1).any()
    assert "outside the breast" in store.notes["note"][0]


def with_lesions(table, row, *lesions):
    column = table["lesions"].copy()
    column[row] = lesions
    return table.assign(lesions=column, lesions_known=table["lesions_known"] | (table.index == row))


def test_lesions_keep_number_and_type_from_the_table_to_the_batch(table, tmp_path):
    mass = Lesion("circle", "mass", points=((60.0, 100.0),), radius=30.0)
    calcification = Lesion("points", "calcification", points=((60.0, 100.0),))
    unseen = Lesion("box", "", points=((62.0, 95.0), (66.0, 99.0)))
    table = with_lesions(with_lesions(table, 3, calcification, mass, unseen), 4)
    table.at[2, "lesions_known"], table.at[2, "lesions"] = False, ()
    store = prepared(table, tmp_path / "store")
    assert store.lesion_types(3) == ["calcification", "mass", ""]
    labels = store.mask(3)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for number, (x, y) in {1: (60, 100), 2: (45, 85), 3: (64, 97)}.items():
        column, row = np.round(store.geometry(3).points_to_prepared([[x, y]])[0]).astype(int)
        assert labels[row, column] == number
    assert (store.mask(2), store.lesion_types(2)) == (None, [])
    assert (store.mask(4).any(), store.lesion_types(4)) == (False, [])
    batch = MammogramDataset(table, range(2, 5), store).__getitems__([0, 1, 2])
    assert batch["has_mask"].tolist() == [False, True, True]
    np.testing.assert_array_equal(batch["mask"][1, 0], labels > 0)
    assert not batch["mask"][[0, 2]].any()


def test_images_known_to_hold_no_lesion_need_no_mask_file(table, tmp_path):
    without = table.assign(lesions=pd.Series([()] * 6, dtype=object))
    store = prepared(without.assign(lesions_known=True), tmp_path / "store")
    assert [store.mask(i).any() for i in range(6)] == [False] * 6
    unknown = prepared(without.assign(lesions_known=False), tmp_path / "store")
    assert [unknown.mask(i) for i in range(6)] == [None] * 6
    assert not (unknown.folder / "masks.npy").exists()


def test_one_lesion_that_cannot_be_drawn_makes_the_image_unknown_and_keeps_it(table, tmp_path):
    mask = table.at[1, "lesions"][0]
    far = Lesion("circle", "mass", points=((500.0, 100.0),), radius=3.0)
    store = prepared(with_lesions(table, 1, mask, far), tmp_path / "store")
    assert (store.mask(1), store.lesion_types(1)) == (None, [])
    assert len(store) == 6
    assert "outside the image of 200 x 160 px" in dict(store.notes.itertuples(index=False))["i1"]


def test_other_lesions_make_another_store(table, tmp_path):
    circle = Lesion("circle", "mass", points=((60.0, 100.0),), radius=30.0)
    tables = [
        table,
        with_lesions(table, 3),
        with_lesions(table, 3, circle),
        with_lesions(table, 3, replace(circle, type="other")),
        with_lesions(table, 3, replace(circle, radius=31.0)),
        with_lesions(table, 3, circle, circle),
    ]
    assert len({prepared(each, tmp_path / "store").folder for each in tables}) == len(tables)


def test_several_processes_give_the_same_store_as_one(table, tmp_path):
    one, two = prepared(table, tmp_path / "one"), prepared(table, tmp_path / "two", workers=2)
    assert one.folder.name == two.folder.name
    for name in ("images.npy", "masks.npy"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    assert [one.fingerprint(i) for i in range(6)] == [two.fingerprint(i) for i in range(6)]


def test_a_second_call_decodes_nothing(table, tmp_path, monkeypatch):
    prepared(table, tmp_path / "store")
    monkeypatch.setattr(preparation, "read_image", None)
    assert len(prepared(table, tmp_path / "store")) == 6


def test_other_settings_or_other_files_make_another_store(table, draw, tmp_path):
    first = prepared(table, tmp_path / "store")
    assert prepared(table, tmp_path / "store", PrepareSettings(64, 64)).folder != first.folder
    cv2.imwrite(table.at[0, "path"], draw(99))
    os.utime(table.at[0, "path"], (1, 1))
    second = prepared(table, tmp_path / "store")
    assert second.folder != first.folder
    assert second.fingerprint(0) != first.fingerprint(0)


def test_the_store_can_be_sent_to_a_worker_and_opens_its_files_there(table, tmp_path):
    store = prepared(table, tmp_path / "store")
    store.image(0), store.mask(1)
    data = pickle.dumps(store)
    assert len(data) < 20_000
    np.testing.assert_array_equal(pickle.loads(data).image(5), store.image(5))


def test_an_image_that_cannot_be_used_is_left_out_with_its_reason(table, tmp_path):
    (tmp_path / "images" / "0.png").write_bytes(b"nothing")
    cv2.imwrite(table.at[4, "path"], np.zeros((200, 160), np.uint16))
    store = prepared(table, tmp_path / "store", workers=2)
    assert store.image_ids == ["i1", "i2", "i3", "i5"]
    reasons = dict(zip(store.left_out["image_id"], store.left_out["reason"], strict=True))
    assert "0.png" in reasons["i0"]
    assert "no breast" in reasons["i4"]
    listed = pd.read_csv(store.folder / "left_out.csv")
    assert listed["image_id"].tolist() == ["i0", "i4"]


def test_no_usable_image_at_all_is_an_error(table, tmp_path):
    for path in table["path"]:
        cv2.imwrite(path, np.zeros((50, 50), np.uint8))
    with pytest.raises(LemlightError, match="none of the 6 images can be used"):
        prepared(table, tmp_path / "store")


def test_missing_files_are_listed_together_before_any_work(table, tmp_path):
    for name in ("2.png", "5.png", "mask1.png"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(LemlightError, match=r"3 files of the image table are missing") as caught:
        prepared(table, tmp_path / "store")
    assert all(name in str(caught.value) for name in ("2.png", "5.png", "mask1.png"))
    assert not (tmp_path / "store").exists()


def test_a_full_disk_is_found_before_the_work(table, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LemlightError, match=r"the disk is full .it needs 0\.0 GB"):
        prepared(table, tmp_path / "store")
    monkeypatch.undo()
    assert len(prepared(table, tmp_path / "store")) == 6


def test_a_disk_that_fills_up_on_the_way_loses_nothing(table, tmp_path, monkeypatch):
    write, calls = os.pwrite, []

    def full_after_three(*arguments):
        calls.append(arguments)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(arrays.os, "pwrite", full_after_three)
    with pytest.raises(LemlightError, match=r"the disk is full.*store=DIR"):
        prepared(table, tmp_path / "store")
    monkeypatch.undo()
    (folder,) = (tmp_path / "store").iterdir()
    done = len(PreparedStore(folder))
    assert 0 < done < 6
    assert len(prepared(table, tmp_path / "store")) == 6


def test_a_line_cut_off_by_a_kill_is_done_again(table, tmp_path):
    store = prepared(table, tmp_path / "store")
    whole = (store.folder / "images.npy").read_bytes()
    records = store.folder / "done.jsonl"
    records.write_text(records.read_text()[:-25])
    assert len(PreparedStore(store.folder)) == 5
    assert len(prepared(table, tmp_path / "store")) == 6
    assert (store.folder / "images.npy").read_bytes() == whole


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(LemlightError, match="is no prepared store"):
        PreparedStore(tmp_path)

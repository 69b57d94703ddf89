import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.data.preparing import store as store_module
from lemlight.data.preparing.lesions import Lesion
from lemlight.data.preparing.store import PreparedStore, PrepareSettings, prepare
from lemlight.errors import LemlightError
from lemlight.files import cores

SETTINGS = PrepareSettings(height=64, width=48)
CIRCLE = Lesion("circle", "mass", points=((60.0, 100.0),), radius=30.0)


@pytest.fixture
def prepared(table, tmp_path):
    """Prepare the six images, or another table."""

    def run(rows=table, root="store", settings=SETTINGS, workers=1):
        return prepare(rows, settings, tmp_path / root, workers)

    return run


def with_lesions(table, row, *lesions):
    column = table["lesions"].copy()
    column[row] = lesions
    return table.assign(lesions=column, lesions_known=table["lesions_known"] | (table.index == row))


def test_the_store_holds_every_image(table, draw, prepared, geometry_of):
    store = prepared()
    assert store.image_ids == [f"i{number}" for number in range(6)]
    assert store.settings == {"height": 64, "width": 48, "crop": True, "flip": True}
    image = store.image(store.index_of("i3"))
    assert (image.shape, image.dtype) == ((64, 48), np.uint16)
    assert 0 < (image == 0).mean() < 0.6
    back = geometry_of(store, 3).map_to_original(image.astype(np.float32))
    assert abs(back[95:105, 30:60].mean() - draw(3)[95:105, 30:60].mean()) < 1000
    assert store.left_out.empty


@pytest.mark.parametrize(("height", "width", "word"), [(31, 64, "height=31"), (64, 16, "width=16"), (64.5, 64, "64.5")])
def test_a_size_that_no_network_takes_is_refused(height, width, word):
    with pytest.raises(LemlightError, match=f"PrepareSettings: .*{word}: must be"):
        PrepareSettings(height, width)


def test_lesions_move_with_the_image_and_a_foreign_mask_is_noted(table, prepared, geometry_of):
    store = prepared()
    assert [store.mask(i) is not None for i in range(6)] == [False, True, False, False, False, False]
    x, y = geometry_of(store, 1).points_to_prepared(np.array([[34.5, 99.5]]))[0]
    rows, columns = np.nonzero(store.mask(1))
    assert abs(columns.mean() - x) < 1
    assert abs(rows.mean() - y) < 1
    assert store.notes["image_id"].tolist() == ["i2"]
    assert "(200, 100)" in store.notes["note"][0]


def test_a_mask_of_another_size_is_used_and_noted_and_one_beside_the_breast_makes_lesions_unknown(
    table, prepared, geometry_of
):
    mask = np.zeros((100, 80), np.uint8)
    mask[45:55, 10:25] = 255
    cv2.imwrite(table.at[1, "lesions"][0].path, mask)
    store = prepared()
    assert abs(int(store.mask(1).sum()) - 600 * np.prod(geometry_of(store, 1).scale)) < 20
    assert "rescaled" in store.notes["note"][0]
    mask = np.zeros((200, 160), np.uint8)
    mask[0:4, 150:160] = 255
    cv2.imwrite(table.at[1, "lesions"][0].path, mask)
    store = prepared(root="other")
    assert store.mask(1) is None
    assert store.notes["note"].tolist()[:2] == [
        "a lesion lies to 100% outside the breast that was found",
        "lesions left out: none of them lies on the breast that was found",
    ]


def test_what_is_odd_about_a_file_is_noted_and_a_turned_image_is_prepared_upright_with_its_lesions(
    table, prepared, draw, write_dicom
):
    turned = {"turned": 1, "upright": 0}
    lesions = {"turned": Lesion("circle", "mass", points=((100.0, 60.0),), radius=15.0)}
    lesions["upright"] = Lesion("circle", "mass", points=((60.0, 99.0),), radius=15.0)
    rows = table[:2].copy()
    for row, name in enumerate(turned):
        pixels = np.rot90(draw(1), -turned[name])
        tags = {"PatientOrientation": ["R", "A"] if name == "turned" else ["A", "R"], "Modality": "DX"}
        path = Path(table.at[0, "path"]).with_name(f"{name}.dcm")
        rows.loc[row, "path"] = str(write_dicom(path, np.ascontiguousarray(pixels), **tags))
        rows.at[row, "lesions"] = (lesions[name],)
    store = prepared(rows.assign(lesions_known=True))
    assert [store.sides(i) for i in range(2)] == [("", ""), ("", "L")]
    assert store.notes["note"].tolist() == ["Modality DX, not MG: is it a mammogram?"] * 2
    np.testing.assert_array_equal(store.image(0), store.image(1))
    np.testing.assert_array_equal(store.mask(0), store.mask(1))
    assert store.mask(0).any()


def test_a_breast_without_any_air_is_noted(table, prepared, draw):
    cv2.imwrite(table.at[3, "path"], draw(3)[60:140, :80])
    notes = prepared().notes
    assert notes.loc[notes["image_id"] == "i3", "note"].tolist() == [
        "the breast that was found is a whole rectangle: no air is in sight"
    ]


def test_lesions_keep_number_and_type_from_the_table_to_the_store(table, prepared, geometry_of):
    calcification = Lesion("points", "calcification", points=((60.0, 100.0),))
    unseen = Lesion("box", "", points=((62.0, 95.0), (66.0, 99.0)))
    table = with_lesions(with_lesions(table, 3, calcification, CIRCLE, unseen), 4)
    table.at[2, "lesions_known"], table.at[2, "lesions"] = False, ()
    store = prepared(table)
    assert store.lesion_types(3) == ["calcification", "mass", ""]
    labels = store.mask(3)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for number, (x, y) in {1: (60, 100), 2: (45, 85), 3: (64, 97)}.items():
        column, row = np.round(geometry_of(store, 3).points_to_prepared([[x, y]])[0]).astype(int)
        assert labels[row, column] == number
    assert (store.mask(2), store.lesion_types(2)) == (None, [])
    assert (store.mask(4).any(), store.lesion_types(4)) == (False, [])


def test_images_known_to_hold_no_lesion_need_no_mask_file(table, prepared):
    without = table.assign(lesions=pd.Series([()] * 6, dtype=object))
    store = prepared(without.assign(lesions_known=True))
    assert [store.mask(i).any() for i in range(6)] == [False] * 6
    unknown = prepared(without.assign(lesions_known=False))
    assert [unknown.mask(i) for i in range(6)] == [None] * 6
    assert not (unknown.folder / "masks.npy").exists()


def test_one_lesion_that_cannot_be_drawn_makes_the_image_unknown_and_keeps_it(table, prepared):
    far = Lesion("circle", "mass", points=((500.0, 100.0),), radius=3.0)
    store = prepared(with_lesions(table, 1, table.at[1, "lesions"][0], far))
    assert (store.mask(1), store.lesion_types(1)) == (None, [])
    assert len(store) == 6
    assert "outside the image of 200 x 160 px" in dict(store.notes.itertuples(index=False))["i1"]


def test_other_lesions_settings_or_files_make_another_store(table, draw, prepared):
    tables = [
        table,
        with_lesions(table, 3),
        with_lesions(table, 3, CIRCLE),
        with_lesions(table, 3, replace(CIRCLE, type="other")),
        with_lesions(table, 3, replace(CIRCLE, radius=31.0)),
        with_lesions(table, 3, CIRCLE, CIRCLE),
    ]
    stores = [prepared(each) for each in tables] + [prepared(settings=PrepareSettings(64, 64))]
    cv2.imwrite(table.at[0, "path"], draw(99))
    os.utime(table.at[0, "path"], (1, 1))
    stores.append(prepared())
    assert len({store.folder for store in stores}) == len(stores)
    assert stores[-1].fingerprint(0) != stores[0].fingerprint(0)


def test_several_processes_give_the_same_store_as_one_where_the_system_has_no_functions_of_linux(prepared, monkeypatch):
    one = prepared(root="one")
    for name in ("sched_getaffinity", "posix_fallocate"):  # macOS
        monkeypatch.delattr(os, name)
    assert cores() >= 1
    two = prepared(root="two", workers=2)
    assert one.folder.name == two.folder.name
    for name in ("images.npy", "masks.npy"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
        assert (two.folder / name).stat().st_blocks * 512 >= (two.folder / name).stat().st_size
    assert [one.fingerprint(i) for i in range(6)] == [two.fingerprint(i) for i in range(6)]


def test_a_second_call_decodes_nothing(prepared, monkeypatch):
    prepared()
    monkeypatch.setattr(store_module, "read_image", None)
    assert len(prepared()) == 6


def test_the_store_can_be_sent_to_a_worker_and_opens_its_files_there(prepared):
    store = prepared()
    store.image(0), store.mask(1)
    data = pickle.dumps(store)
    assert len(data) < 20_000
    np.testing.assert_array_equal(pickle.loads(data).image(5), store.image(5))


def test_an_image_that_cannot_be_used_is_left_out_with_its_reason(table, prepared, tmp_path):
    (tmp_path / "images" / "0.png").write_bytes(b"nothing")
    cv2.imwrite(table.at[4, "path"], np.zeros((200, 160), np.uint16))
    store = prepared()
    assert store.image_ids == ["i1", "i2", "i3", "i5"]
    reasons = dict(store.left_out.itertuples(index=False))
    assert "0.png" in reasons["i0"]
    assert "no breast" in reasons["i4"]
    assert pd.read_csv(store.folder / "left_out.csv")["image_id"].tolist() == ["i0", "i4"]


def test_no_usable_image_at_all_is_an_error(table, prepared):
    for path in table["path"]:
        cv2.imwrite(path, np.zeros((50, 50), np.uint8))
    with pytest.raises(LemlightError, match="none of the 6 images can be used"):
        prepared()


def test_missing_files_are_listed_together_before_any_work(prepared, tmp_path):
    for name in ("2.png", "5.png", "mask1.png"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(LemlightError, match=r"3 files of the image table are missing") as caught:
        prepared()
    assert all(name in str(caught.value) for name in ("2.png", "5.png", "mask1.png"))
    assert not (tmp_path / "store").exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_found_before_the_work(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    with pytest.raises(LemlightError, match=r"the disk is full .it needs 0\.0 GB"):
        prepared()
    assert not list((tmp_path / "store").rglob("*.npy*"))
    monkeypatch.undo()
    assert len(prepared()) == 6


prepare_image = store_module._prepare_image


def full_after_three(task, folder, settings):
    return prepare_image(task, folder, settings) if task.slot < 3 else full_disk()


def test_a_disk_that_fills_up_on_the_way_loses_nothing(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_prepare_image", full_after_three)
    with pytest.raises(LemlightError, match=r"the disk is full.*store=DIR"):
        prepared()
    monkeypatch.undo()
    (folder,) = (tmp_path / "store").iterdir()
    assert len(PreparedStore(folder)) == 3
    assert len(prepared()) == 6


def test_a_line_cut_off_by_a_kill_is_done_again(prepared):
    store = prepared()
    whole = (store.folder / "images.npy").read_bytes()
    records = store.folder / "done.jsonl"
    records.write_text(records.read_text()[:-25])
    assert len(PreparedStore(store.folder)) == 5
    assert len(prepared()) == 6
    assert (store.folder / "images.npy").read_bytes() == whole


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(LemlightError, match="is no prepared store"):
        PreparedStore(tmp_path)


SCRIPT = """
import sys, time
from pathlib import Path
import pandas as pd
from lemlight.data.preparing import store
original = store._prepare_image
def slow(task, folder, settings):
    time.sleep(0.2)
    return original(task, folder, settings)
def main():
    store._prepare_image = slow
    table = pd.read_pickle(sys.argv[1])
    part = tuple(map(int, sys.argv[3].split("/"))) if len(sys.argv) > 3 else None
    store.fill_store(table, store.PrepareSettings(64, 48), Path("store"), int(sys.argv[2]), part=part)
    print("done")
"""


@pytest.fixture
def start(table, tmp_path):
    """Start a slow preparation in a process of its own."""

    def run(workers=1, *part):
        table.to_pickle(tmp_path / "table.pkl")
        (tmp_path / "slowly.py").write_text(SCRIPT)  # a module: the processes import it, too
        call = [sys.executable, "-c", "import slowly; slowly.main()", "table.pkl", str(workers), *part]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(call, cwd=tmp_path, start_new_session=True, **pipes)

    return run


def records(tmp_path):
    return [line for file in (tmp_path / "store").glob("*/*done.jsonl") for line in file.read_text().splitlines()]


def wait_for_records(tmp_path, count=2):
    deadline = time.monotonic() + 60
    while len(records(tmp_path)) < count and time.monotonic() < deadline:
        time.sleep(0.02)


def left_running(session):
    found = subprocess.run(["ps", "-s", str(session), "-o", "pid="], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_killed_preparation_takes_its_workers_along_and_goes_on_where_it_was(prepared, start, tmp_path, how, workers):
    running = start(workers)
    wait_for_records(tmp_path)
    if how == signal.SIGINT:
        os.killpg(running.pid, how)  # Ctrl-C reaches the workers as well
    else:
        running.send_signal(how)
    _, said = running.communicate()
    assert said.count("Traceback") <= 1, said
    before = len(records(tmp_path))
    assert 2 <= before < 6
    deadline = time.monotonic() + 20
    while left_running(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_running(running.pid)
    store = prepared()
    assert len(store) == 6
    assert len([line for line in records(tmp_path) if line]) == 6  # nothing that was done is done again
    assert (store.folder / "images.npy").read_bytes() == (prepared(root="other").folder / "images.npy").read_bytes()


def test_a_second_process_waits_for_the_first(start, tmp_path):
    running = [start(), start()]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [out.strip() for out, _ in outputs] == ["done", "done"], outputs
    assert sorted(json.loads(line)["image_id"] for line in records(tmp_path) if line) == [f"i{n}" for n in range(6)]
    assert sum("waiting for it" in err for _, err in outputs) == 1


def test_parts_side_by_side_of_which_one_is_killed_join_into_the_store_of_one_preparation(prepared, start, tmp_path):
    killed, other = start(1, "1/2"), start(1, "2/2")
    wait_for_records(tmp_path, 1)
    killed.kill()
    killed.communicate()
    out, _ = other.communicate(timeout=120)
    assert out.strip() == "done"
    (folder,) = (tmp_path / "store").iterdir()
    of_part = [json.loads(line)["image_id"] for line in (folder / "2-of-2-done.jsonl").read_text().splitlines()]
    assert of_part == ["i3", "i4", "i5"]
    again = start(1, "1/2")
    again.communicate(timeout=120)
    before = records(tmp_path)
    assert sorted(json.loads(line)["image_id"] for line in before if line) == [f"i{n}" for n in range(6)]
    joined, whole = prepared(), prepared(root="other")
    assert records(tmp_path) == before  # there was nothing left to do
    assert joined.image_ids == whole.image_ids
    assert (joined.folder / "images.npy").read_bytes() == (whole.folder / "images.npy").read_bytes()
    assert (joined.folder / "masks.npy").read_bytes() == (whole.folder / "masks.npy").read_bytes()

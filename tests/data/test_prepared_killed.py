"""Preparing in real processes that are killed, or that prepare the same store at once."""

import json
import signal
import subprocess
import sys
import time

from lemlight.data.store import PrepareSettings, prepare

SETTINGS = PrepareSettings(height=64, width=48)


def prepared(table, root):
    return prepare(table, SETTINGS, root, 1, progress=False)


SCRIPT = """
import sys, time
import pandas as pd
from pathlib import Path
from lemlight.data import store as prepared; preparation = prepared
original = preparation.prepare_image
def slow(task, folder, settings):
    time.sleep(0.2)
    return original(task, folder, settings)
prepared.prepare_image = slow
if __name__ == "__main__":
    table = pd.read_pickle(sys.argv[1])
    prepared.prepare(table, preparation.PrepareSettings(64, 48), Path(sys.argv[2]), 1, progress=False)
    print("done")
"""


def start(table, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    table.to_pickle(tmp_path / "table.pkl")
    call = [sys.executable, "script.py", "table.pkl", "store"]
    return subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(tmp_path):
    return [line for file in (tmp_path / "store").glob("*/done.jsonl") for line in file.read_text().splitlines()]


def test_a_killed_preparation_goes_on_where_it_was(table, tmp_path):
    running = start(table, tmp_path)
    deadline = time.monotonic() + 60
    while len(records(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    before = len(records(tmp_path))
    assert 2 <= before < 6
    store = prepared(table, tmp_path / "store")
    assert len(store) == 6
    assert len([line for line in records(tmp_path) if line]) == 6  # nothing that was done is done again
    undisturbed = prepared(table, tmp_path / "other")
    assert (store.folder / "images.npy").read_bytes() == (undisturbed.folder / "images.npy").read_bytes()


def test_a_second_process_waits_for_the_first(table, tmp_path):
    running = [start(table, tmp_path), start(table, tmp_path)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [out.strip() for out, _ in outputs] == ["done", "done"], outputs
    lines = [json.loads(line)["image_id"] for line in records(tmp_path) if line]
    assert sorted(lines) == [f"i{number}" for number in range(6)]
    assert sum("waiting for it" in err for _, err in outputs) == 1

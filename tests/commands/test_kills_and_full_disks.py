"""A kill at any moment and a disk that is full cost nothing that was there, and the same command then goes on."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd

from lemlight.data.preparing.store import PreparedStore
from lemlight.training.checkpoint import load_checkpoint
from tests.commands.conftest import ALWAYS, environment

DRAW = random.Random(0)


def killed(command, folder, first, *arguments, told=None):
    """Start a command, wait for its first file, and kill it a moment later, most often at work; code and stderr.

    `told` is a signal in place of the kill, to the command and its processes, and once more, as `timeout` sends it.
    """
    call = [sys.executable, "-m", f"lemlight.{command}", *ALWAYS[command], f"hydra.run.dir={folder}", *arguments]
    process = subprocess.Popen(
        call,
        cwd=folder.parent,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not first():
        time.sleep(0.005)
    time.sleep(DRAW.random() * 0.3)
    for _ in range(2 if told else 0):
        os.killpg(process.pid, told)
    if not told:
        process.kill()
    return process.communicate()[1], process.returncode


@contextmanager
def no_room(size):
    """Let no file become larger than `size` bytes, in the processes that are started meanwhile, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python turns the signal into an error
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def store_in(root):
    """What a store holds: its images, and the lines on them by their names."""
    (folder,) = (path.parent for path in root.glob("*/images.npy"))
    store = PreparedStore(folder)
    return np.load(folder / "images.npy"), store.image_ids, store.left_out.values.tolist()


def test_preparing_goes_on_after_kills_and_a_disk_that_was_full(folder_data, lemlight_run, refused, tmp_path):
    (tmp_path / "one").mkdir()
    data = [*folder_data[1:], f"store={tmp_path / 'store'}"]
    with no_room(100_000):
        assert "cannot write the prepared store" in refused("prepare", *data)
    assert not list(tmp_path.rglob("*.npy"))
    for _ in range(2):
        killed("prepare", tmp_path / "one" / "run", lambda: list(tmp_path.rglob("done.jsonl")), *data)
    if len(store_in(tmp_path / "store")[1]) < 20:  # else the killer came late
        with no_room(200_000):  # the arrays are there, and cannot be written to their end
            assert "what is done stays done" in refused("prepare", *data)
    lemlight_run("prepare", *data)
    lemlight_run("prepare", *folder_data[1:], f"store={tmp_path / 'straight'}")
    for mine, straight in zip(store_in(tmp_path / "store"), store_in(tmp_path / "straight"), strict=True):
        assert np.array_equal(mine, straight)


def test_localizing_goes_on_after_a_kill_and_a_disk_that_was_full(best, dicoms, lemlight_run, refused, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(20):
        (root / f"{number:02}.dcm").write_bytes(dicoms[number % 3].read_bytes())
    (tmp_path / "one").mkdir()
    folder, wanted = tmp_path / "one" / "run", [best, f"input={root}", "maps=false"]
    killed("localize", folder, (folder / "predictions.csv").is_file, *wanted, "batch_size=1")
    with no_room(8_000):
        assert "File too large; check that folder" in refused("localize", *wanted, "resume=true", folder=folder)
    done = lemlight_run("localize", *wanted, "resume=true", folder=folder)
    straight = lemlight_run("localize", *wanted, "overlays=false")
    pd.testing.assert_frame_equal(*(pd.read_csv(one.folder / "predictions.csv") for one in (done, straight)))
    assert sum(path.name[0] != "." for path in (done.folder / "overlays").iterdir()) == 20
    (folder / "localize.json").write_text("[" * 10**4)
    assert "is damaged: leave out resume=true" in refused("localize", *wanted, "resume=true", folder=folder)


def test_a_training_goes_on_after_a_signal_to_its_group_and_after_a_kill(folder_data, lemlight_run, tmp_path):
    (tmp_path / "one").mkdir()
    folder, wanted = tmp_path / "one" / "run", [*folder_data, "trainer.max_epochs=300", "workers=2"]
    last = folder / "checkpoints" / "last.ckpt"
    err, code = killed("train", folder, last.is_file, *wanted, told=signal.SIGTERM)
    assert err == f"lemlight: told to end (SIGTERM); the same command with resume={last} goes on\n"
    assert code == 143
    assert not list(folder.rglob(".*.ckpt"))
    epoch, wanted = load_checkpoint(last).epoch, [*wanted, f"resume={last}"]
    killed("train", folder, lambda: load_checkpoint(last).epoch > epoch, *wanted)
    epoch = load_checkpoint(last).epoch
    done = lemlight_run("train", *folder_data, f"trainer.max_epochs={epoch + 2}", f"resume={last}", folder=folder)
    assert load_checkpoint(last).epoch == epoch + 1
    assert (done.folder / "metrics.json").is_file()

"""Going on: bit for bit what an uninterrupted training gives, in a moved folder, and what is refused."""

import csv
import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.training.checkpoint import load_checkpoint
from lemlight.training.trainer import difference, merged
from tests.composing import values_of

STOP = {"monitor": "val/loss", "mode": "min", "patience": 30, "min_delta": 0.0}


def rows(folder):
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(one, other):
    assert rows(one) == rows(other)
    for name in ("best", "last"):
        first, second = (load_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (one, other))
        assert (first.epoch, first.step) == (second.epoch, second.step)
        assert all(torch.equal(first.state_dict[key], second.state_dict[key]) for key in first.state_dict)
    assert sorted(path.name for path in (other / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_killed_in_mid_epoch_and_resumed_equals_uninterrupted_bit_for_bit(tiny, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    tiny.train_tiny(straight, early_stopping=STOP)
    options = {"what": "train", "kill": [2, 3], "early_stopping": STOP, "workers": 1}
    run = subprocess.run([sys.executable, tiny.__file__, killed, json.dumps(options)], capture_output=True)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert [row["epoch"] for row in rows(killed)] == ["0", "1"]
    last = load_checkpoint(killed / "checkpoints" / "last.ckpt")
    assert last.epoch == 1
    (last.path.parent / ".best-1.ckpt").write_bytes(b"as a kill in the middle of writing leaves it")

    tiny.train_tiny(killed, resume=last.path, early_stopping=STOP, workers=1)

    assert [row["epoch"] for row in rows(killed)] == ["0", "1", "2", "3"]
    assert rows(killed)[0]["lambda"] != rows(killed)[3]["lambda"]
    assert_same_run(straight, killed)


def test_a_run_folder_can_be_moved_and_another_folder_can_go_on(tiny, tmp_path):
    straight, first = tmp_path / "straight", tmp_path / "first"
    tiny.train_tiny(straight)
    shutil.copytree(straight, first)
    tiny.train_tiny(first, resume=first / "checkpoints" / "last.ckpt", epochs=5)
    moved = tmp_path / "moved"
    straight.rename(moved)
    elsewhere = tmp_path / "elsewhere"
    tiny.train_tiny(elsewhere, resume=moved / "checkpoints" / "last.ckpt", epochs=5)
    assert_same_run(first, elsewhere)
    assert len(rows(elsewhere)) == 5


def test_resumed_without_its_best_checkpoint_the_best_of_the_rest_is_kept(tiny, tmp_path):
    tiny.train_tiny(tmp_path / "run", epochs=2)
    alone = tmp_path / "alone.ckpt"
    shutil.copy(tmp_path / "run" / "checkpoints" / "last.ckpt", alone)
    tiny.train_tiny(tmp_path / "new", resume=alone, epochs=3)
    assert load_checkpoint(tmp_path / "new" / "checkpoints" / "best.ckpt").epoch == 2


def test_a_training_that_has_stopped_early_stays_stopped(tiny, tmp_path):
    never = {"monitor": "val/loss", "mode": "min", "patience": 1, "min_delta": 100.0}
    tiny.train_tiny(tmp_path, epochs=6, early_stopping=never)
    done = rows(tmp_path)
    assert len(done) == 2
    tiny.train_tiny(tmp_path, epochs=6, early_stopping=never, resume=tmp_path / "checkpoints" / "last.ckpt")
    assert rows(tmp_path) == done


def test_resuming_with_another_network_is_refused_before_any_work(tiny, tmp_path):
    tiny.train_tiny(tmp_path, epochs=1)
    written = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    trainer, other = tiny.make_trainer(tmp_path), tiny.make_module(tiny.make_classifier(channels=6))
    with pytest.raises(LemlightError, match="another network"):
        tiny.fit(trainer, other, tiny.make_data(), tmp_path / "checkpoints" / "last.ckpt")
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("localization/methods=mine", True),
        ("localization/methods=default", False),
        ("pooling=gap", True),
        ("+scale=small", True),
        ("~callbacks.lambda_ramp", True),
        ("loss.beta=0.5", True),
        ("workers=4", False),
        ("trainer.max_epochs=9", False),
        ("dataset.root=elsewhere", False),
    ],
)
def test_what_a_resumed_run_refuses_is_what_changes_a_figure(override, changes):
    stored = values_of("backbone.weights=none")
    asked = stored | {"loss": {**stored["loss"], "beta": 0.5}, "callbacks": {}}
    assert bool(difference(override, asked, stored)) == changes


def test_files_of_a_resumed_run_are_where_the_command_says_and_nowhere_else():
    mine = {"_target_": "own.Count", "file": "/new/count.txt", "every": 1}
    asked = {"output": "/new", "store": "/mine", "choices": {"dataset": "cbis"}, "trainer": {"max_epochs": 3}}
    asked |= {"dataset": {"root": "/here", "seed": 1}, "callbacks": {"mine": mine, "early_stopping": {}}}
    stored = {"output": "/old/run", "store": "/etc", "choices": {"dataset": "cbis"}, "trainer": {"max_epochs": 2}}
    for path in ("/etc/cron.d", "../../elsewhere", "~/.ssh", "file://x"):
        parts = {"mine": {"_target_": "own.Count", "file": path, "every": 2, "other": path}, "early_stopping": None}
        values = merged(stored | {"dataset": {"root": path, "seed": 2}, "callbacks": parts}, asked, set())
        assert values["callbacks"] == {"mine": {**mine, "every": 2}, "early_stopping": None}
        assert values["dataset"] == {"root": "/here", "seed": 2}
        assert (values["output"], values["store"]) == ("/new", "/mine")
    with pytest.raises(LemlightError, match=r"give dataset=cbis dataset\.root=DIR"):
        merged(stored, asked | {"choices": {"dataset": "phantom"}}, set())


def test_an_optimizer_state_of_another_shape_is_one_sentence(tiny, tmp_path):
    tiny.train_tiny(tmp_path / "one", epochs=1)
    last = tmp_path / "one" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg"] = torch.zeros(3, 7)
    torch.save(content, last)
    with pytest.raises(LemlightError, match=r"last\.ckpt cannot be gone on from .*optimizer"):
        tiny.train_tiny(tmp_path / "two", epochs=2, resume=last)

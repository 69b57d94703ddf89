"""Trainings that cannot go on: one message, the last good checkpoint kept, nothing half-written."""

import os
import resource
import shutil

import pandas as pd
import pytest
import torch

from lemlight.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def begun(lemlight_run, folder_data):
    """One epoch on the folder."""
    return lemlight_run("train", *folder_data).folder


@pytest.fixture
def going_on(begun, tmp_path):
    """A copy of a run of one epoch, to be resumed for a second."""
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    (folder / "metrics.json").unlink()
    return folder


def half_written(folder):
    return [str(path) for path in folder.rglob(".*") if path.is_file() and ".hydra" not in path.parts]


def test_a_loss_that_is_no_number_from_the_first_epoch(refused, folder_data, tmp_path):
    rates = ["optimizer.lr_backbone=1e30", "optimizer.lr_head=1e30"]
    message = refused("train", *folder_data, *rates, folder=tmp_path / "run")
    assert "NaN or infinite in epoch 0" in message
    assert "optimizer.lr_backbone" in message
    assert not list(tmp_path.rglob("*.ckpt"))
    assert half_written(tmp_path) == []


def test_a_loss_that_is_no_number_later_keeps_the_last_good_checkpoint(refused, folder_data, going_on):
    last = going_on / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    for state in content["optimizer_states"]:
        for group in state["param_groups"]:
            group["lr"] = 1e30
    for schedule in content["lr_schedulers"]:
        schedule["base_lrs"] = [1e30 for _ in schedule["base_lrs"]]
    torch.save(content, last)
    before = {path.name: path.read_bytes() for path in last.parent.iterdir()}
    wanted = [*folder_data, "trainer.max_epochs=3", f"resume={last}"]
    message = refused("train", *wanted, folder=going_on)
    assert "NaN or infinite in epoch 1" in message
    assert {path.name: path.read_bytes() for path in last.parent.iterdir()} == before
    assert load_checkpoint(last).epoch == 0
    assert pd.read_csv(going_on / "logs" / "metrics.csv")["epoch"].tolist() == [0]
    assert half_written(going_on) == []
    assert not (going_on / "metrics.json").exists()


def test_no_room_for_the_next_checkpoint_keeps_the_one_before(refused, folder_data, going_on):
    checkpoints = going_on / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # Python turns the signal into an error
    try:
        wanted = [*folder_data, "trainer.max_epochs=2", f"resume={checkpoints / 'last.ckpt'}"]
        message = refused("train", *wanted, folder=going_on)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ckpt: File too large; check that folder and the room on its disk" in message
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before
    assert half_written(going_on) == []


def test_a_full_disk_is_called_by_its_name(refused, folder_data, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / f".last-{os.getpid()}.ckpt").symlink_to("/dev/full")  # where last.ckpt is written aside
    message = refused("train", *folder_data, folder=tmp_path / "run")
    assert "last.ckpt: No space left on device; check that folder and the room on its disk" in message
    assert [path.name for path in checkpoints.iterdir()] == ["best.ckpt"]
    assert load_checkpoint(checkpoints / "best.ckpt").epoch == 0


def test_a_full_disk_before_the_training_starts(refused, folder_data, tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").symlink_to("/dev/full")
    message = refused("train", *folder_data, folder=tmp_path / "run")
    assert "the disk is full; make room or set hydra.run.dir=DIR" in message
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_folder_that_cannot_be_made_is_named(refused, folder_data, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for folder in (taken, taken / "run"):
        assert str(taken) in refused("train", *folder_data, folder=folder, cwd=tmp_path)
    assert f"cannot write {taken / 'config.yaml'}" in refused("train", *folder_data, f"output={taken}")
    assert taken.read_text() == "mine"


def test_a_resume_from_nothing_is_refused_before_any_work(refused, folder_data, tmp_path):
    message = refused("train", *folder_data, f"resume={tmp_path / 'last.ckpt'}", folder=tmp_path / "run")
    assert "there is no checkpoint at" in message
    assert not (tmp_path / "run" / "leaks.json").exists()


def test_a_resume_with_another_network_is_refused(refused, folder_data, going_on):
    last = going_on / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    message = refused("train", *folder_data, "pooling=attention_mil", f"resume={last}", folder=going_on)
    assert "pooling=attention_mil: the run has pooling=lem" in message
    assert last.read_bytes() == before


def test_a_mistake_in_a_process_of_its_own(refused, folder_data, tmp_path):
    nowhere = tmp_path / "nowhere"
    message = refused("train", *folder_data, f"dataset.root={nowhere}", own_process=True)
    assert message == f"there is no folder {nowhere}: set dataset.root to the folder that holds images.csv\n"

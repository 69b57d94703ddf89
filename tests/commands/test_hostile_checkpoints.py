"""Checkpoints from a stranger, given to the evaluate command: nothing of them is run."""

import os
import pickle

import pytest
import torch


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def good(trained):
    return trained.folder / "checkpoints" / "best.ckpt"


@pytest.fixture
def content(good):
    return torch.load(good, weights_only=True)


@pytest.fixture
def message(refused, tmp_path, folder_data):
    """What the evaluate command says about `bad.ckpt`; it must not have got as far as the data."""

    def ask():
        folder = tmp_path / "out"
        said = refused("evaluate", f"checkpoint={tmp_path / 'bad.ckpt'}", *folder_data, "split=all", folder=folder)
        assert not (folder / "metrics.json").exists()
        assert not (folder / "leaks.json").exists()
        return said

    return ask


@pytest.mark.parametrize("place", ["config", "state_dict", "hyper_parameters"])
def test_a_pickle_that_runs_a_command_runs_nothing(place, content, message, tmp_path):
    marker = tmp_path / "owned"
    if place == "config":
        content["lemlight"]["config"]["seed"] = Evil(marker)
    else:
        content[place] = Evil(marker)
    torch.save(content, tmp_path / "bad.ckpt")
    assert "could run code on this machine" in message()
    assert not marker.exists()


@pytest.mark.parametrize("write", [pickle.dump, lambda o, f: torch.save(o, f, _use_new_zipfile_serialization=False)])
def test_a_bare_pickle_is_not_even_looked_into(write, content, message, tmp_path):
    marker = tmp_path / "owned"
    with (tmp_path / "bad.ckpt").open("wb") as file:
        write(Evil(marker), file)
    assert "is not a checkpoint" in message()
    assert not marker.exists()


@pytest.mark.parametrize("section", ["optimizer", "pooling", "backbone", "dataset", "trainer"])
def test_a_target_in_the_configuration_is_refused_by_name(section, content, message, tmp_path):
    marker = tmp_path / "owned"
    content["lemlight"]["config"][section] |= {"_target_": "os.system", "_args_": [f"touch {marker}"]}
    torch.save(content, tmp_path / "bad.ckpt")
    said = message()
    assert f"{section}._target_: there is no such key" in said
    assert f"{section}._args_: there is no such key" in said
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"_target_": "os.system"}, "_target_"),
        ({"height": "../../../elsewhere/96"}, "height"),
        ({"height": 96.5}, "height"),
        ({"width": 0}, "width"),
        ({"flip": "os.system"}, "flip"),
    ],
)
def test_preprocessing_that_is_none_is_refused_by_name(change, key, content, message, tmp_path):
    content["lemlight"]["preprocessing"] |= change
    torch.save(content, tmp_path / "bad.ckpt")
    assert key in message()


def test_the_weights_of_another_network_are_refused(content, message, tmp_path):
    content["lemlight"]["config"]["backbone"] |= {"name": "resnet18", "weights": "none"}
    torch.save(content, tmp_path / "bad.ckpt")
    said = message()
    assert "holds the weights of another network" in said
    assert "backbone" in said


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_checkpoint(kept, good, message, tmp_path):
    whole = good.read_bytes()
    (tmp_path / "bad.ckpt").write_bytes(whole[: int(kept * len(whole))])
    assert "bad.ckpt is" in message()


def test_a_damaged_checkpoint(good, message, tmp_path):
    damaged = bytearray(good.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = bytes(64)
    (tmp_path / "bad.ckpt").write_bytes(damaged)
    assert "bad.ckpt" in message()


def test_a_text_file(message, tmp_path):
    (tmp_path / "bad.ckpt").write_text("weights\n")
    assert "is not a checkpoint" in message()


def test_no_file(message):
    assert "there is no checkpoint at" in message()


def test_a_checkpoint_of_another_program(message, tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "bad.ckpt")
    assert "no card" in message()

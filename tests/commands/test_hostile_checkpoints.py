"""Checkpoints from a stranger, given to the evaluate command: nothing of them is run."""

import os
import pickle

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.training.module import MammogramModule


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


def config_of(content):
    return content["hyper_parameters"]["config"]


@pytest.mark.parametrize("place", ["config", "state_dict", "lemlight"])
def test_a_pickle_that_runs_a_command_runs_nothing(place, content, message, tmp_path):
    marker = tmp_path / "owned"
    if place == "config":
        config_of(content)["seed"] = Evil(marker)
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


@pytest.mark.parametrize(
    "hostile",
    [
        {"_target_": "os.system", "_args_": ["touch owned"]},
        {"_target_": "os.system", "command": "touch owned"},
        {"_target_": "lemlight.cli.os.system", "command": "touch owned"},
        {"weights": {"_target_": "os.system", "command": "touch owned"}},
        {"_partial_": {"_target_": "os.system", "command": "touch owned"}},
        {"k": "${oc.env:HOME}"},
    ],
)
@pytest.mark.parametrize("section", ["optimizer", "pooling", "backbone", "dataset", "trainer"])
def test_a_target_in_the_configuration_is_refused_by_name(section, hostile, content, message, tmp_path):
    config_of(content)[section] |= hostile
    torch.save(content, tmp_path / "bad.ckpt")
    said = message()
    assert section in said
    assert "is refused" in said or "add trust=[os]" in said
    assert not list(tmp_path.rglob("owned"))


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
    config_of(content)["dataset"]["prepare"] |= change
    torch.save(content, tmp_path / "bad.ckpt")
    assert key in message()


def test_the_weights_of_another_network_are_refused(content, message, tmp_path):
    other = {"_target_": "lemlight.models.backbones.torchvision_cnn", "name": "resnet18", "weights": "none"}
    config_of(content)["backbone"] |= other
    torch.save(content, tmp_path / "bad.ckpt")
    said = message()
    assert "holds the weights of another network" in said
    assert "backbone" in said


def test_loading_it_in_python_is_as_safe(content, good, tmp_path):
    assert MammogramModule.load_from_checkpoint(good).classifier.output_stride == 32
    config_of(content)["pooling"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'owned'}"}
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(LemlightError, match=r"add trust=\[os\]"):
        MammogramModule.load_from_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "owned").exists()


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
    assert "no metadata" in message()

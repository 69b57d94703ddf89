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


SYSTEM = {"_target_": "os.system", "command": "touch owned"}


@pytest.mark.parametrize(
    ("section", "hostile"),
    [
        *((section, SYSTEM) for section in ("optimizer", "pooling", "backbone", "dataset", "trainer")),
        ("pooling", {"_target_": "os.system", "_args_": ["touch owned"]}),
        ("pooling", {"_target_": "lemlight.cli.os.system", "command": "touch owned"}),
        ("backbone", {"weights": SYSTEM}),
        ("trainer", {"_partial_": SYSTEM}),
        ("dataset", {"k": "${oc.env:HOME}"}),
    ],
)
def test_a_target_in_the_configuration_is_refused_by_name(section, hostile, content, message, tmp_path):
    config_of(content)[section] |= hostile
    torch.save(content, tmp_path / "bad.ckpt")
    said = message()
    assert section in said
    assert "is refused" in said or "add trust=[os]" in said
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize(
    ("change", "key"),
    [({"_target_": "os.system"}, "_target_"), ({"height": "../../96"}, "height"), ({"width": 0}, "width")],
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


def test_a_truncated_checkpoint_a_damaged_one_and_none(good, message, tmp_path):  # others: tests/training
    assert "there is no checkpoint at" in message()
    whole = bytearray(good.read_bytes())
    (tmp_path / "bad.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "bad.ckpt is truncated" in message()
    whole[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    (tmp_path / "bad.ckpt").write_bytes(whole)
    assert "bad.ckpt cannot be read as a checkpoint, it seems damaged" in message()

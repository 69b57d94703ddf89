"""Checkpoints: what they bring back, what of a stranger's is refused, and writing them whole or not at all."""

import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.training.checkpoint import FORMAT, AtomicCheckpointIO, load_checkpoint, load_weights, plain
from lemlight.training.module import MammogramModule


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny.train_tiny(folder, epochs=1)
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture
def saved(trained, tmp_path):
    return Path(shutil.copy(trained, tmp_path / "last.ckpt"))


def changed(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def nested(depth):
    return {"deep": nested(depth - 1)} if depth else {}


def test_a_checkpoint_brings_back_weights_and_metadata_and_no_path_of_the_machine(tiny, saved, tmp_path):
    checkpoint = load_checkpoint(saved)
    assert (checkpoint.versions, checkpoint.trained_on) == (tiny.METADATA["versions"], tiny.METADATA["trained_on"])
    assert {name: checkpoint.config[name] for name in tiny.CONFIG} == tiny.CONFIG
    assert (checkpoint.preprocessing, checkpoint.label_names) == ({"height": 20, "width": 14}, ["benign", "malignant"])
    assert (checkpoint.epoch, checkpoint.step) == (0, 3)
    fresh = tiny.make_classifier()
    assert set(checkpoint.state_dict) == set(fresh.state_dict())
    load_weights(fresh, checkpoint)
    assert all(torch.equal(value, checkpoint.state_dict[key]) for key, value in fresh.state_dict().items())
    with zipfile.ZipFile(saved) as archive:
        assert not any(str(tmp_path.parent).encode() in archive.read(name) for name in archive.namelist())


def test_a_compiled_classifier_neither_leaves_nor_needs_its_prefix(tiny, saved):
    def compiled(content):
        content["state_dict"] = {
            key.replace("classifier.", "classifier._orig_mod."): value for key, value in content["state_dict"].items()
        }

    checkpoint = load_checkpoint(changed(saved, compiled))
    fresh = tiny.make_classifier()
    assert set(checkpoint.state_dict) == set(fresh.state_dict())
    load_weights(torch.compile(fresh), checkpoint)
    assert torch.equal(fresh.scorer.weight, checkpoint.state_dict["scorer.weight"])


@pytest.mark.parametrize("place", ["config", "state_dict", "lemlight"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(place, saved, tmp_path):
    victim = tmp_path / "victim"
    content = torch.load(saved, weights_only=True)
    (content["hyper_parameters"] if place == "config" else content)[place] = Bomb(victim)
    torch.save(content, saved)
    with pytest.raises(LemlightError, match="is refused: it holds objects other than tensors and plain values"):
        load_checkpoint(saved)
    assert not victim.exists()
    torch.load(saved, weights_only=False)  # the bomb is live: what is tested above does protect
    assert victim.exists()


@pytest.mark.parametrize("write", [pickle.dump, partial(torch.save, _use_new_zipfile_serialization=False)])
def test_a_bare_pickle_is_not_even_looked_into(write, tmp_path):
    with (tmp_path / "bare.ckpt").open("wb") as file:
        write(Bomb(tmp_path / "victim"), file)
    with pytest.raises(LemlightError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "bare.ckpt")
    assert not (tmp_path / "victim").exists()


def test_files_that_are_no_checkpoint_say_so(saved, tmp_path):
    with pytest.raises(LemlightError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "missing.ckpt")
    for name, data in {"empty": b"", "text": b"weights", "image": b"\x89PNG\r\n\x1a\n" * 9}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LemlightError, match="is not a checkpoint"):
            load_checkpoint(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(LemlightError, match="damaged"):
        load_checkpoint(tmp_path / "archive.zip")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(LemlightError, match="no metadata"):
        load_checkpoint(tmp_path / "other.ckpt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_says_so(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(LemlightError, match="is truncated"):
        load_checkpoint(saved)


def test_a_damaged_checkpoint_says_so(saved):
    data, middle = bytearray(saved.read_bytes()), saved.stat().st_size // 2
    data[middle : middle + 64] = bytes(64)
    saved.write_bytes(data)
    with pytest.raises(LemlightError, match="cannot be read as a checkpoint, it seems damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["lemlight"].update(format=FORMAT + 1), "upgrade lemlight"),
        (lambda content: content["lemlight"].update(format="x"), "no format number"),
        (lambda content: content["lemlight"].update(versions=None), "versions missing"),
        (lambda content: content["hyper_parameters"].update(config=[]), "hyper_parameters missing"),
        (lambda content: content.update(hyper_parameters=["x"]), "hyper_parameters missing"),
        (lambda content: content["lemlight"].update(format=FORMAT - 1), "train again"),
        (lambda content: content.update(state_dict={"a": 1}, epoch=None), "state_dict, epoch missing"),
        (lambda content: content.pop("lemlight"), "no metadata"),
        (
            lambda content: content["hyper_parameters"]["config"].update(label_names=["benign"]),
            "hyper_parameters missing",
        ),
        (lambda content: content["hyper_parameters"]["config"].update(deep=nested(400)), "hyper_parameters missing"),
        (lambda content: content["hyper_parameters"]["config"].update(level_rule=["max"]), "hyper_parameters missing"),
        (lambda content: content["state_dict"].update(a=torch.ones(2, 2).to_sparse()), "state_dict missing"),
        (lambda content: content["state_dict"].update(a=torch.ones(2) * 1j), "state_dict missing"),
    ],
)
def test_metadata_that_do_not_fit_names_what_is_wrong(saved, change, message):
    with pytest.raises(LemlightError, match=message):
        load_checkpoint(changed(saved, change))


def test_another_architecture_is_named_by_its_keys_and_shapes_and_nothing_is_loaded(tiny, saved):
    other = tiny.make_classifier(channels=6, pooling="attention_mil")
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(LemlightError) as caught:
        load_weights(other, load_checkpoint(saved))
    for words in ("missing: pooling.", "backbone.0.weight is (4, 1, 3, 3), expected (6, 1, 3, 3)", "more"):
        assert words in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    gap = tiny.make_classifier(pooling="gap")
    del gap.backbone[1]
    with pytest.raises(LemlightError, match=r"unknown: backbone\.1"):
        load_weights(gap, load_checkpoint(saved))


def test_metadata_are_plain_data_only(tmp_path):
    values = plain({"root": tmp_path, "size": (2, 3), 4: None})
    assert values == {"root": str(tmp_path), "size": [2, 3], "4": None}
    assert json.loads(json.dumps(values)) == values
    with pytest.raises(TypeError, match="Tensor"):
        plain({"mean": torch.zeros(1)})


def test_the_checkpoint_tells_lambda_of_its_epoch(tiny, saved, tmp_path):
    ramp = {"shape": "linear", "start_value": 0.25, "end_value": 0.25, "start_at": 0.0, "end_at": 1.0}
    tiny.train_tiny(tmp_path / "late", epochs=1, ramp=ramp)
    assert load_checkpoint(saved).lam == 1.0
    assert load_checkpoint(tmp_path / "late" / "checkpoints" / "best.ckpt").lam == 0.25


def test_without_room_the_old_checkpoint_stays_and_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "last.ckpt"
    for value in (0, 1):  # the second takes the place of the first
        AtomicCheckpointIO().save_checkpoint({"value": value}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(LemlightError, match=r"cannot write .*last.ckpt: .*room on its disk"):
            AtomicCheckpointIO().save_checkpoint({"value": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_interruption_of_the_writing_is_one_and_the_old_checkpoint_stays(tmp_path, monkeypatch):
    class Interrupted(io.FileIO):
        def write(self, data):
            if len(data) > 100_000 and not came:
                came.append(len(data))
                raise KeyboardInterrupt  # torch then ends the archive, which is not as long as it thinks
            return super().write(data)

    came, path = [], tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"value": 1}, path)
    monkeypatch.setattr(type(path), "open", lambda self, mode: Interrupted(self, mode))
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"value": torch.zeros(100_000)}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_weights_that_are_no_numbers_are_refused_by_name(tiny, saved):
    broken = changed(saved, lambda content: content["state_dict"]["classifier.scorer.weight"].fill_(float("nan")))
    with pytest.raises(LemlightError, match=r"NaN or infinite \(scorer\.weight\)"):
        load_weights(tiny.make_classifier(), load_checkpoint(broken))


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused_unread(saved, tmp_path):
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in archive.namelist():
            bomb.writestr(member, archive.read(member))
        bomb.writestr("archive/data/999", bytes(10**8))
    with pytest.raises(LemlightError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "bomb.ckpt")


def test_a_file_of_any_size_is_refused_unread(saved):
    os.truncate(saved, 10**12)  # it takes no room on the disk
    with pytest.raises(LemlightError, match=r"has 1000.0 GB, more than any checkpoint has"):
        load_checkpoint(saved)


def test_a_checkpoint_holds_neither_folder_nor_file_of_the_machine(tiny, tmp_path):
    planted = "/secret/planted"
    places = {"store": planted, "output": planted, "dataset": {**tiny.CONFIG["dataset"], "root": planted, "seed": 3}}
    module = MammogramModule(tiny.CONFIG | places, None, tiny.make_classifier())
    assert "planted" not in str(module.hparams)
    assert module.hparams["config"]["dataset"] == {**tiny.CONFIG["dataset"], "seed": 3}

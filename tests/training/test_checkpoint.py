import json
import os
import pickle
import zipfile

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.training.checkpoint import FORMAT, load_checkpoint, load_weights, plain


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


@pytest.fixture
def saved(tiny, tmp_path):
    tiny.train_tiny(tmp_path / "run", epochs=1)
    return tmp_path / "run" / "checkpoints" / "last.ckpt"


def changed(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


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
        assert not any(str(tmp_path).encode() in archive.read(name) for name in archive.namelist())


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


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(saved, tmp_path):
    victim = tmp_path / "victim"
    hostile = changed(saved, lambda content: None)
    content = torch.load(hostile, weights_only=True)
    content["hyper_parameters"]["config"]["harmless"] = Bomb(victim)
    torch.save(content, hostile)
    with pytest.raises(LemlightError, match="is refused: it holds objects other than tensors and plain values"):
        load_checkpoint(hostile)
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(pickle.dumps(Bomb(victim)))
    with pytest.raises(LemlightError, match="is not a checkpoint"):
        load_checkpoint(bare)
    assert not victim.exists()
    torch.load(hostile, weights_only=False)  # the bomb is live: what is tested above does protect
    assert victim.exists()


def test_a_target_in_the_config_stays_text(saved, tmp_path):
    target = {"_target_": "os.system", "command": f"touch {tmp_path / 'victim'}"}
    checkpoint = load_checkpoint(
        changed(saved, lambda content: content["hyper_parameters"]["config"].update(backbone=target))
    )
    assert checkpoint.config["backbone"] == target
    assert not (tmp_path / "victim").exists()


def test_files_that_are_no_checkpoint_say_so(saved, tmp_path):
    with pytest.raises(LemlightError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "missing.ckpt")
    with pytest.raises(LemlightError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path)
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
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    with pytest.raises(LemlightError, match="no metadata"):
        load_checkpoint(tmp_path / "tensor.ckpt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_says_so(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(LemlightError, match="is truncated"):
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
    assert "missing in the file (pooling." in str(caught.value)
    assert "backbone.0.weight is (4, 1, 3, 3) in the file and (6, 1, 3, 3) here" in str(caught.value)
    assert "more)" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    gap = tiny.make_classifier(pooling="gap")
    del gap.backbone[1]
    with pytest.raises(LemlightError, match=r"unknown here \(backbone.1"):
        load_weights(gap, load_checkpoint(saved))


def test_metadata_are_plain_data_only(tmp_path):
    values = plain({"root": tmp_path, "size": (2, 3), 4: None})
    assert values == {"root": str(tmp_path), "size": [2, 3], "4": None}
    assert json.loads(json.dumps(values)) == values
    with pytest.raises(TypeError, match="not Tensor"):
        plain({"mean": torch.zeros(1)})


def test_the_checkpoint_tells_lambda_of_its_epoch(tiny, saved, tmp_path):
    late = {"shape": "step", "start_value": 0.25, "end_value": 1.0, "start_at": 0.0, "end_at": 1.0}
    tiny.train_tiny(
        tmp_path / "late", epochs=1, ramp={**late, "shape": "linear", "start_value": 0.25, "end_value": 0.25}
    )
    assert load_checkpoint(saved).lam == 1.0
    assert load_checkpoint(tmp_path / "late" / "checkpoints" / "best.ckpt").lam == 0.25

"""Exported files from a stranger, damaged files, and a machine without the packages."""

import io
import json
import os
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from lemlight.errors import LemlightError
from lemlight.models import exported as onnx_file
from lemlight.models.exported import (
    FORMAT,
    MOST_BYTES,
    card_text,
    card_values,
    check_packages,
    is_exported,
    open_onnx,
    open_program,
    write_onnx,
    write_program,
)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def model(gap_program, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.onnx"
    write_onnx(gap_program, {"threshold": 0.5}, path)
    return path


@pytest.fixture(scope="module")
def program(gap_program, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    write_program(gap_program, {"threshold": 0.5}, path)
    return path


def small_model(path, card='{"format": 1}', location=None, output="probability"):
    """A graph with lemlight's names that adds four numbers, which may lie in another file."""
    numbers = helper.make_tensor("numbers", TensorProto.FLOAT, [4], np.zeros(4, np.float32))
    if location is not None:
        numbers.ClearField("float_data")
        numbers.data_location = TensorProto.EXTERNAL
        numbers.external_data.add(key="location", value=location)
    values = [helper.make_tensor_value_info(name, 1, [4]) for name in ("image", output, "score_map")]
    nodes = [helper.make_node("Add", ["image", "numbers"], [name]) for name in (output, "score_map")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [numbers])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if card is not None:
        helper.set_model_props(model, {"lemlight": card})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["{}/near.bin", "near.bin", "../near.bin", "*/_ORT_MEM_ADDR_/*"])
def test_no_other_file_is_read(location, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    for folder in (tmp_path, tmp_path / "work"):
        np.ones(4, np.float32).tofile(folder / "near.bin")
    monkeypatch.chdir(tmp_path / "work")
    path = small_model(tmp_path / "work" / "model.onnx", location=location.format(tmp_path))
    with pytest.raises(LemlightError, match="cannot be read as an ONNX model"):
        open_onnx(path)
    open_onnx(small_model(path))  # without the other file it is one


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_file(kept, model, program, tmp_path):
    for good, open_, words in (
        (model, open_onnx, "cannot be read"),
        (program, open_trusted, "no whole program|no card"),
    ):
        path = tmp_path / good.name
        path.write_bytes(good.read_bytes()[: int(kept * good.stat().st_size)])
        with pytest.raises(LemlightError, match=words):
            open_(path)


def open_trusted(path):
    return open_program(path, trusted=True)


def test_a_text_file_and_no_file(tmp_path):
    (tmp_path / "model.onnx").write_text("weights\n")
    for open_ in (open_onnx, open_trusted):
        with pytest.raises(LemlightError):
            open_(tmp_path / "model.onnx")
        with pytest.raises(LemlightError, match="there is no exported network at"):
            open_(tmp_path / "nothing.onnx")


def test_a_model_of_another_program(tmp_path):
    with pytest.raises(LemlightError, match="no card"):
        open_onnx(small_model(tmp_path / "model.onnx", card=None))
    with pytest.raises(LemlightError, match="other inputs or outputs"):
        open_onnx(small_model(tmp_path / "model.onnx", output="logit"))
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/models/model.json", "{}")
    with pytest.raises(LemlightError, match="no card"):
        open_trusted(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"threshold": 0.5}', '{"format": "1"}', '{"format": true}', "[" * 10**5, "{" + " " * MOST_BYTES + "}"],
)
def test_a_card_that_is_none(text, tmp_path):
    with pytest.raises(LemlightError, match="damaged"):
        card_values(text, tmp_path)


def test_a_card_of_a_newer_lemlight(tmp_path):
    with pytest.raises(LemlightError, match="upgrade lemlight"):
        open_onnx(small_model(tmp_path / "model.onnx", card=json.dumps({"format": FORMAT + 1})))


def test_a_card_comes_back_as_it_was(tmp_path):
    card = {"label_names": ["ärztlich", "b"], "threshold": 0.1, "preprocessing": {"height": 96, "crop": True}}
    assert card_values(card_text(card), tmp_path) == card


def test_a_program_of_a_stranger_is_not_loaded(program, tmp_path):
    """`torch.export.load` runs this one: it reads example inputs that it refused again, without weights_only."""
    marker, path = tmp_path / "owned", tmp_path / "evil.pt2"
    evil = io.BytesIO()
    torch.save((Evil(marker),), evil)
    with zipfile.ZipFile(program) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, evil.getvalue() if "sample_inputs" in name else good.read(name))
    with pytest.raises(LemlightError, match=r"can run code on this machine.*trust=true"):
        open_program(path, trusted=False)
    assert not marker.exists()


def test_a_damaged_program_that_is_trusted(program, tmp_path, caplog):
    with zipfile.ZipFile(program) as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"{}" if name.endswith("models/model.json") else good.read(name))
    with pytest.raises(LemlightError, match="cannot be read as a program of this torch"):
        open_trusted(tmp_path / "bad.pt2")
    assert not caplog.records


def test_missing_packages_are_named_with_their_remedy(monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name.startswith("onnx") else object())
    with pytest.raises(LemlightError, match=r"onnxruntime: pip install 'lemlight\[onnx\]'"):
        check_packages()


def test_weights_that_no_file_of_onnx_holds(gap_program, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_BYTES_ONNX_FILE", 100)
    with pytest.raises(LemlightError, match="use format=torch"):
        write_onnx(gap_program, {}, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_the_file_says_what_it_holds(model):
    graph = onnx.load(model).graph
    assert [value.name for value in graph.output] == ["probability", "score_map"]
    (image,) = graph.input
    sizes = image.type.tensor_type.shape.dim
    assert sizes[0].dim_param
    assert [size.dim_value for size in sizes[1:]] == [1, 83, 61]


def test_the_suffix_tells_an_export_from_a_checkpoint(model, program):
    assert is_exported(model)
    assert is_exported(program.with_suffix(".PT2"))
    assert not is_exported(model.with_name("best.ckpt"))

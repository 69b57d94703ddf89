"""Exported networks: they predict what was trained, and files from strangers, damaged or none are refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from lemlight.errors import LemlightError
from lemlight.models import exported as module
from lemlight.models.backbones import Backbone
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.exported import (
    FORMAT,
    ExportedNetwork,
    PredictingGraph,
    check_packages,
    compare,
    images_to_compare,
    is_exported,
    open_onnx,
    write_onnx,
)
from lemlight.models.pooling import Scorer
from tests import parts
from tests.parts import build_backbone, build_pooling

SHAPE = (83, 61)
METADATA = {"label_names": ["ärztlich", "malignant"], "threshold": 0.25, "cam": None, "preprocessing": {"crop": True}}
POOLINGS = {name: {"name": name} for name in parts.POOLINGS}
POOLINGS |= {"lem, all ties, summed": {"name": "lem", "ties": "all", "aggregate": "sum"}}


def make(backbone=None, **pooling):
    """A network whose scores spread by some units around 0: its probabilities are neither 0 nor 1 nor all alike."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 5, stride=4, padding=2), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, stride=2)]
    backbone = backbone or Backbone("tiny", nn.Sequential(*layers, nn.ReLU()), (0.4, 0.2))
    channels = backbone.out_channels
    classifier = MammogramClassifier(backbone, Scorer(channels), build_pooling(channels=channels, **pooling)).eval()
    with torch.no_grad():
        scores = classifier(torch.rand(4, 1, *SHAPE)).score_map
        classifier.scorer.weight /= scores.std()
        classifier.scorer.bias -= scores.mean() / scores.std()
    return classifier.requires_grad_(False)


class EveryPooling(nn.Module):
    """The logits of all poolings `(P, N)`: one graph instead of eleven, of seconds each."""

    def __init__(self, channels):
        super().__init__()
        self.poolings = nn.ModuleList(build_pooling(channels=channels, **options) for options in POOLINGS.values())

    def forward(self, score_map, features, scorer, valid=None):
        return torch.stack([pooling(score_map, features, scorer, valid) for pooling in self.poolings])


def some_images(count, shape):
    images = torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(count))
    images[0, :, shape[0] // 2 :] = 0  # air: equal scores
    return images


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    classifier, path = make(name="gap"), tmp_path_factory.mktemp("all") / "model.onnx"
    # the harder half: a graph for all cells is the same with fewer steps
    classifier.pooling, classifier.inside_breast = EveryPooling(8).eval().requires_grad_(False), True
    write_onnx(PredictingGraph(classifier), SHAPE, METADATA, path)
    return classifier, path


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_predicts_what_was_trained(pooling, count, everything):
    classifier, path = everything
    images = some_images(count, SHAPE)
    scores = classifier(images)
    assert not scores.valid[0].all()
    probabilities, found_map = open_onnx(path).run(images)
    torch.testing.assert_close(found_map, scores.score_map, atol=1e-4, rtol=0)
    number = list(POOLINGS).index(pooling)
    expected = scores.logit[number].sigmoid()
    torch.testing.assert_close(probabilities[number], expected, atol=1e-4, rtol=0)
    assert pooling.startswith("lem,") or 0.001 < expected.min() <= expected.max() < 0.999  # a sum of many may not


def test_a_real_backbone_at_a_halved_stride(tmp_path):
    torch.manual_seed(0)
    classifier = make(build_backbone("resnet18", output_stride=16), name="lem")
    write_onnx(PredictingGraph(classifier), (98, 71), METADATA, tmp_path / "model.onnx")
    network = open_onnx(tmp_path / "model.onnx")
    for count in (3, 1):
        expected = classifier(some_images(count, (98, 71)))
        probability, score_map = network.predict(some_images(count, (98, 71)))
        torch.testing.assert_close(probability, expected.logit.sigmoid(), atol=1e-4, rtol=0)
        torch.testing.assert_close(score_map, expected.score_map, atol=1e-4, rtol=0)


def test_the_file_says_what_it_holds(everything):
    _, path = everything
    assert open_onnx(path).metadata == METADATA
    graph = onnx.load(path).graph
    assert [value.name for value in graph.output] == ["probability", "score_map"]
    (image,) = graph.input
    sizes = image.type.tensor_type.shape.dim
    assert sizes[0].dim_param
    assert [size.dim_value for size in sizes[1:]] == [1, 83, 61]
    assert is_exported(path)
    assert not is_exported(path.with_name("best.ckpt"))


def test_images_of_another_size_are_refused(everything):
    with pytest.raises(LemlightError, match="fails on images of 61 x 83 px"):
        open_onnx(everything[1]).predict(torch.rand(1, 1, 61, 83))


def shifted(classifier, probability=0.0, score=0.0, cells=None):
    """The network itself, with its answers shifted by known amounts."""

    def run(images):
        scores = classifier(images)
        return scores.logit.sigmoid() + probability, (scores.score_map + score)[:, :cells]

    return ExportedNetwork(Path("model.onnx"), {}, run)


def test_the_largest_difference_on_noise_on_black_and_on_prepared_images_is_found():
    gap, prepared = make(name="gap"), torch.full((1, 1, *SHAPE), 0.5)
    batches = images_to_compare(SHAPE, [prepared])
    assert [batch.shape for batch in batches] == [(3, 1, *SHAPE), (1, 1, *SHAPE), (1, 1, *SHAPE)]
    assert (batches[0].unique().numel() > 1, batches[1].max(), batches[2].max()) == (True, 0, 0.5)
    found = compare(PredictingGraph(gap), shifted(gap, 0.9e-4, 0.5), batches)
    assert found == (5, pytest.approx(0.9e-4, abs=1e-6), pytest.approx(0.5, abs=1e-5))
    for wrong, words in ((shifted(gap, cells=2), "score maps of"), (shifted(gap, 0.03, 0.5), "no file was left"),
                         (shifted(gap, 0.03), "equal but for rounding")):  # fmt: skip
        with pytest.raises(LemlightError, match=words):
            compare(PredictingGraph(gap), wrong, batches)


@pytest.mark.parametrize(
    "answer",
    [
        (torch.tensor([1.5]), torch.zeros(1, 2, 3)),
        (torch.tensor([float("nan")]), torch.zeros(1, 2, 3)),
        (torch.tensor([0.5]), torch.full((1, 2, 3), float("inf"))),
        (torch.tensor([0.5]), torch.zeros(2, 3)),
    ],
)
def test_an_answer_that_is_none_is_refused(answer):
    with pytest.raises(LemlightError, match="other than probabilities"):
        ExportedNetwork(Path("model.onnx"), {}, lambda _: answer).predict(torch.zeros(1, 1, *SHAPE))


def small_model(path, metadata='{"format": 1}', location=None, output="probability"):
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
    if metadata is not None:
        helper.set_model_props(model, {"lemlight": metadata})
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
def test_a_truncated_file_a_text_file_and_no_file(kept, everything, tmp_path):
    good, path = everything[1].read_bytes(), tmp_path / "model.onnx"
    for content in (good[: int(kept * len(good))], b"weights\n"):
        path.write_bytes(content)
        with pytest.raises(LemlightError, match="cannot be read"):
            open_onnx(path)
    with pytest.raises(LemlightError, match="there is no exported network at"):
        open_onnx(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": None}, "no metadata"),
        ({"output": "logit"}, "other inputs or outputs"),
        ({"metadata": json.dumps({"format": FORMAT + 1})}, "upgrade lemlight"),
        *[
            ({"metadata": text}, "damaged")
            for text in ("[1]", '{"threshold": 0.5}', '{"format": "1"}', '{"format": true}', "[" * 10**5)
        ],
    ],
)
def test_a_model_of_another_program_or_lemlight_is_refused(change, words, tmp_path):
    with pytest.raises(LemlightError, match=words):
        open_onnx(small_model(tmp_path / "model.onnx", **change))


def test_inside_breast_needs_a_pooling_that_takes_the_cells_that_count():
    classifier = make(name="gap")
    classifier.inside_breast = True
    PredictingGraph(classifier)
    classifier.pooling = nn.Identity()
    with pytest.raises(LemlightError, match="Identity cannot be exported with inside_breast=true: give its forward"):
        PredictingGraph(classifier)


def test_missing_packages_are_named_with_their_remedy(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name.startswith("onnx") else object())
    with pytest.raises(LemlightError, match=r"onnxruntime: pip install 'lemlight\[onnx\]'"):
        check_packages()

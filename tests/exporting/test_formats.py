"""What is exported predicts what was trained: every pooling, both formats, any number of images at once."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lemlight.config.conf_dir import conf_dir
from lemlight.errors import LemlightError
from lemlight.models.backbones import build_backbone
from lemlight.models.exported import open_onnx, open_program, trace, write_onnx, write_program
from lemlight.models.pooling import build_pooling

SHAPE = (83, 61)
CARD = {"label_names": ["benign", "malignant"], "threshold": 0.25, "cam": None}
POOLINGS = {
    path.stem: OmegaConf.to_container(OmegaConf.load(path))
    for path in sorted(Path(conf_dir(), "pooling").glob("*.yaml"))
} | {"lem, all ties, summed": {"name": "lem", "ties": "all", "aggregate": "sum"}}
OPENED = {".onnx": open_onnx, ".pt2": lambda path: open_program(path, trusted=True)}


class EveryPooling(nn.Module):
    """The logits of all poolings `(P, N)`: one graph instead of eleven, of seconds each."""

    def __init__(self, channels):
        super().__init__()
        self.poolings = nn.ModuleList(build_pooling(channels=channels, **options) for options in POOLINGS.values())

    def forward(self, score_map, features, scorer):
        return torch.stack([pooling(score_map, features, scorer) for pooling in self.poolings])


def exported(classifier, shape, folder):
    """The network in both formats, written and opened again, by suffix."""
    program = trace(classifier, shape)
    write_onnx(program, CARD, folder / "model.onnx")
    write_program(program, CARD, folder / "model.pt2")
    return {suffix: open_(folder / f"model{suffix}") for suffix, open_ in OPENED.items()}


def some_images(count, shape):
    images = torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(count))
    images[0, :, shape[0] // 2 :] = 0  # air: equal scores
    return images


@pytest.fixture(scope="module")
def everything(make_classifier, tmp_path_factory):
    classifier = make_classifier(name="gap")
    classifier.pooling = EveryPooling(8).eval().requires_grad_(False)
    return classifier, exported(classifier, SHAPE, tmp_path_factory.mktemp("all"))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("suffix", OPENED)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling(pooling, suffix, count, everything):
    classifier, networks = everything
    images = some_images(count, SHAPE)
    features = classifier.backbone(images)
    score_map = classifier.scorer(features)
    number = list(POOLINGS).index(pooling)
    expected = classifier.pooling.poolings[number](score_map, features, classifier.scorer).sigmoid()
    probabilities, found_map = networks[suffix].run(images)
    torch.testing.assert_close(probabilities[number], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found_map, score_map, atol=1e-4, rtol=0)
    assert pooling.startswith("lem,") or 0.001 < expected.min() <= expected.max() < 0.999  # a sum of many may not


def test_a_real_backbone_at_a_halved_stride(make_classifier, tmp_path):
    torch.manual_seed(0)
    classifier = make_classifier(build_backbone("resnet18", output_stride=16), name="lem")
    for network in exported(classifier, (98, 71), tmp_path).values():
        assert network.card == CARD
        for count in (3, 1):
            expected = classifier(some_images(count, (98, 71)))
            probability, score_map = network.predict(some_images(count, (98, 71)))
            torch.testing.assert_close(probability, expected.logit.sigmoid(), atol=1e-4, rtol=0)
            torch.testing.assert_close(score_map, expected.score_map, atol=1e-4, rtol=0)


def test_images_of_another_size_are_refused(everything):
    for network in everything[1].values():
        with pytest.raises(LemlightError, match="fails on images of 61 x 83 px"):
            network.predict(torch.rand(1, 1, 61, 83))

"""Weights from a file, from an installed package and by download; what does not fit is named."""

import pickle
import re
import urllib.error

import pytest
import torch
import torchvision

from lemlight.errors import LemlightError
from lemlight.models.backbones import bundled_weights
from tests.parts import build_backbone


def equal_parameters(one, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("stride", [32, 16])
def test_the_bundled_weights_load_completely(stride):
    backbone = build_backbone("efficientnet_lite0", "bundled", output_stride=stride)
    given = torch.load(bundled_weights(), weights_only=True)
    loaded = backbone.features.state_dict()
    assert set(given) - set(loaded) == {"_fc.weight", "_fc.bias"}
    assert set(loaded) <= set(given)
    for key, value in loaded.items():
        expected = given[key].sum(dim=1, keepdim=True) if key == "_conv_stem.weight" else given[key]
        assert torch.equal(value, expected), key


@torch.no_grad()
def test_the_bundled_network_is_the_one_of_its_package():
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(bundled_weights(), weights_only=True))
    images = torch.rand(1, 1, 128, 192)
    features = build_backbone("efficientnet_lite0", "bundled").eval()(images)
    assert torch.allclose(features, network.extract_features((2 * images - 1).expand(-1, 3, -1, -1)), atol=1e-4)
    assert features.max() <= 6


def test_a_grey_backbone_reads_back_what_it_saved(tmp_path):
    saved = build_backbone("resnet18")
    torch.save({"state_dict": saved.features.state_dict()}, tmp_path / "grey.pth")
    assert equal_parameters(saved, build_backbone("resnet18", "file", str(tmp_path / "grey.pth")))


def test_the_old_names_in_torchvisions_densenet_files_are_understood(tmp_path):
    network = torchvision.models.densenet121(weights=None)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", k): v for k, v in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    backbone = build_backbone("densenet121", "file", str(tmp_path / "old.pth"))
    last = network.features.denseblock4.denselayer16.conv2.weight
    assert torch.equal(backbone.features.features.denseblock4.denselayer16.conv2.weight, last)


def test_a_file_of_another_architecture_is_refused_with_what_differs(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(LemlightError) as error:
        build_backbone("resnet18", "file", str(tmp_path / "resnet34.pth"))
    assert re.search(
        r"resnet34.pth is of another architecture. \d+ unknown: layer1.2.conv1.weight.* more", str(error.value)
    )
    with pytest.raises(LemlightError) as error:
        build_backbone("resnet50", "file", str(tmp_path / "resnet34.pth"))
    for words in ("missing: layer1.0.conv3.weight", "of another shape: layer1.0.conv1.weight is (64, 64, 3, 3)"):
        assert words in str(error.value)


class Hostile:
    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no file .* give weights_file an existing"),
        (lambda path: path.write_bytes(b"not a network"), "cannot be read as tensors"),
        (lambda path: path.write_bytes(b""), "cannot be read as tensors"),
        (lambda path: path.mkdir(), "cannot be read as tensors"),
        (lambda path: torch.save({"x": Hostile()}, path), "cannot be read as tensors"),
        (lambda path: path.write_bytes(pickle.dumps(Hostile())), "cannot be read as tensors"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no state dict"),
        (lambda path: torch.save({}, path), "another architecture. 100 missing: conv1.weight"),
    ],
)
def test_unusable_files_are_refused_and_run_no_code(write, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "weights.pth")
    with pytest.raises(LemlightError, match=message):
        build_backbone("resnet18", "file", str(tmp_path / "weights.pth"))
    assert not (tmp_path / "owned").exists()


def test_a_truncated_file_is_refused(tmp_path):
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(LemlightError, match="cannot be read as tensors"):
        build_backbone("squeezenet1_1", "file", str(tmp_path / "half.pth"), output_stride=16)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_without_internet_the_error_names_the_ways_out(hub, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(LemlightError) as error:
        build_backbone("resnet18", "imagenet")
    for words in ("resnet18-", "no route to host", "weights=file", "weights=none", "backbone=efficientnet_lite0"):
        assert words in str(error.value)


def test_downloaded_weights_are_loaded_from_torchs_cache(hub):
    network = torchvision.models.resnet18(weights=None)
    hub.mkdir()
    name = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    torch.save(network.state_dict(), hub / name)
    backbone = build_backbone("resnet18", "imagenet")
    assert torch.equal(backbone.features.layer4[1].conv2.weight, network.layer4[1].conv2.weight)
    assert torch.equal(backbone.features.conv1.weight, network.conv1.weight.sum(dim=1, keepdim=True))

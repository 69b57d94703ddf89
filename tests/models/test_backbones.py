"""Backbones: every family, grey input, the function and the weights of the published network, half its stride."""

import pickle
import re
import urllib.error

import pytest
import torch
import torchvision

from lemlight.errors import LemlightError
from lemlight.models.backbones import bundled_weights
from tests.parts import build_backbone

FAMILIES = {
    "resnet18": 512,
    "densenet121": 1024,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 576,
    "convnext_tiny": 768,
    "regnet_y_400mf": 440,
    "shufflenet_v2_x0_5": 1024,
    "googlenet": 1024,
    "efficientnet_lite0": 1280,
}


@pytest.mark.parametrize(("name", "channels"), FAMILIES.items())
def test_every_family_maps_odd_images(name, channels):
    torch.manual_seed(0)
    backbone = build_backbone(name)
    with torch.no_grad():
        features = backbone(torch.rand(1, 1, 65, 98))
    assert (backbone.name, backbone.out_channels, backbone.output_stride) == (name, channels, 32)
    assert features.shape[:2] == (1, channels)
    assert features.shape[2] in (1, 2, 3)
    assert features.shape[3] - features.shape[2] == 1  # rows and columns are not swapped
    assert features.min() >= 0


def linear_input(network, images):
    """What the last fully connected layer of a torchvision network sees."""
    layer = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(images)
    handle.remove()
    return seen[0]


# Networks whose features are averaged and go straight into the last layer; the others are compared before their heads.
AVERAGED = ["resnet18", "densenet121", "mobilenet_v2", "regnet_y_400mf", "shufflenet_v2_x0_5", "googlenet"]
OTHERS = ["mobilenet_v3_small", "efficientnet_b0", "squeezenet1_1"]


@pytest.mark.parametrize("name", AVERAGED + OTHERS)
@torch.no_grad()
def test_a_grey_backbone_is_the_rgb_network_on_grey_three_times(name, tmp_path):
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh statistics would hide a layer that was not loaded
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    network.eval()
    torch.save(network.state_dict(), tmp_path / "rgb.pth")
    stride = 16 if name == "squeezenet1_1" else 32
    backbone = build_backbone(name, "file", str(tmp_path / "rgb.pth"), output_stride=stride).eval()
    images = torch.rand(2, 1, 65, 98)
    rgb = ((images - backbone.mean) / backbone.std).expand(-1, 3, -1, -1)
    if name in AVERAGED:
        actual, expected = backbone(images).mean(dim=(2, 3)), linear_input(network, rgb)
    else:
        actual, expected = backbone(images), network.features(rgb).relu()
    assert torch.allclose(actual, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())
    assert expected.std() > 0


def test_the_normalisation_is_that_of_the_pretrained_network():
    backbone = build_backbone("resnet18")
    assert (backbone.mean, backbone.std) == pytest.approx((0.449, 0.226))
    lite = build_backbone("efficientnet_lite0")
    assert (lite.mean, lite.std) == (0.5, 0.5)
    with torch.no_grad():
        seen = []
        lite.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        lite(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(1, 1, 64, 32))
    assert (seen[0].min(), seen[0].max()) == (-1, 1)


def test_building_leaves_mode_and_random_numbers_alone():
    torch.manual_seed(3)
    one = build_backbone("resnet18")
    state = torch.get_rng_state()
    torch.manual_seed(3)
    other = build_backbone("resnet18", output_stride=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in one.modules())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all((module.running_mean == 0).all() for module in one.modules() if hasattr(module, "running_mean"))


def test_images_of_another_shape_are_refused():
    backbone = build_backbone("mobilenet_v3_small")
    with pytest.raises(LemlightError, match=r"shape \(N, 1, H, W\), got \(2, 3, 64, 64\)"):
        backbone(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet81"}, r"backbone.name=resnet81: .*did you mean resnet18"),
        ({"name": "vit_b_16"}, "transformers have tokens"),
        ({"name": "resnet18", "weights": "yes"}, "weights=yes: must be 'imagenet', 'file' or 'none'"),
        ({"name": "resnet18", "weights": "file"}, "weights=file and weights_file=FILE go together"),
        ({"name": "resnet18", "weights_file": "x.pth"}, "weights=file and weights_file=FILE go together"),
        (
            {"name": "efficientnet_lite0", "weights": "imagenet"},
            "weights=imagenet: must be 'bundled', 'file' or 'none'",
        ),
        ({"name": "resnet18", "output_stride": 8}, "output_stride=8: must be 16 or 32"),
        ({"name": "squeezenet1_1"}, "has an output stride of 16: set output_stride=16"),
        ({"name": "inception_v3", "output_stride": 16}, "cannot run at output_stride=16.*Use output_stride=32"),
    ],
)
def test_impossible_choices_are_refused(options, message):
    with pytest.raises(LemlightError, match=message):
        build_backbone(**options)


@torch.no_grad()
def test_the_bundled_network_is_the_one_of_its_package():
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(bundled_weights(), weights_only=True))
    images = torch.rand(1, 1, 128, 192)
    features = build_backbone("efficientnet_lite0", "bundled").eval()(images)
    assert torch.allclose(features, network.extract_features((2 * images - 1).expand(-1, 3, -1, -1)), atol=1e-4)
    assert features.max() <= 6


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
    with pytest.raises(LemlightError, match=r"\d+ unknown: layer1.2.conv1.weight.* more"):
        build_backbone("resnet18", "file", str(tmp_path / "resnet34.pth"))
    words = r"missing: layer1.0.conv3.weight.*of another shape: layer1.0.conv1.weight is \(64, 64, 3, 3\)"
    with pytest.raises(LemlightError, match=words):
        build_backbone("resnet50", "file", str(tmp_path / "resnet34.pth"))


class Hostile:
    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no file .* give weights_file an existing"),
        (lambda path: path.write_bytes(b"not a network"), "cannot be read as tensors"),
        (lambda path: path.mkdir(), "cannot be read as tensors"),
        (lambda path: torch.save({"x": Hostile()}, path), "cannot be read as tensors"),
        (lambda path: path.write_bytes(pickle.dumps(Hostile())), "cannot be read as tensors"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no state dict"),
        (lambda path: torch.save({}, path), "another architecture: 100 missing: conv1.weight"),
    ],
)
def test_unusable_files_are_refused_and_run_no_code(write, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "weights.pth")
    with pytest.raises(LemlightError, match=message):
        build_backbone("resnet18", "file", str(tmp_path / "weights.pth"))
    assert not (tmp_path / "owned").exists()


def test_imagenet_weights_come_from_torchs_cache_and_without_internet_the_error_names_the_ways_out(
    tmp_path, monkeypatch
):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(LemlightError) as error:
        build_backbone("resnet18", "imagenet")
    for words in ("resnet18-", "no route to host", "weights=file", "weights=none", "backbone=efficientnet_lite0"):
        assert words in str(error.value)
    network = torchvision.models.resnet18(weights=None)
    name = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    torch.save(network.state_dict(), tmp_path / "checkpoints" / name)
    features = build_backbone("resnet18", "imagenet").features
    assert torch.equal(features.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


def pair(name, tmp_path, weights="none"):
    torch.manual_seed(0)
    coarse = build_backbone(name, weights).eval()
    torch.save(coarse.features.state_dict(), tmp_path / "weights.pth")
    fine = build_backbone(name, "file", str(tmp_path / "weights.pth"), output_stride=16).eval()
    assert (coarse.output_stride, fine.output_stride) == (32, 16)
    assert fine.out_channels == coarse.out_channels
    return coarse, fine


@pytest.mark.parametrize(
    ("name", "weights", "size", "first"),
    [
        *((name, "none", size, 0) for name in ("resnet18", "regnet_x_400mf") for size in ((64, 96), (65, 98))),
        ("efficientnet_lite0", "bundled", (64, 96), 1),
    ],
)
@torch.no_grad()
def test_every_second_value_equals_the_coarse_map(name, weights, size, first, tmp_path):
    coarse, fine = pair(name, tmp_path, weights)
    images = torch.rand(2, 1, *size)
    expected, found = coarse(images), fine(images)
    assert found.shape[2] in (2 * expected.shape[2], 2 * expected.shape[2] - 1)
    assert found.shape[3] in (2 * expected.shape[3], 2 * expected.shape[3] - 1)
    assert torch.allclose(found[..., first::2, first::2], expected, rtol=1e-4, atol=1e-5 * expected.max())


@torch.no_grad()
def test_a_network_that_reduces_by_pooling_has_a_map_twice_as_fine(tmp_path):
    coarse, fine = pair("densenet121", tmp_path)
    images = torch.rand(1, 1, 64, 96)
    expected, found = coarse(images), fine(images)
    assert found.shape == (1, coarse.out_channels, 4, 6)
    assert found.isfinite().all()
    pooled = torch.nn.functional.avg_pool2d(found, 2)
    similarity = torch.corrcoef(torch.stack([pooled.flatten(), expected.flatten()]))[0, 1]
    assert similarity > 0.9

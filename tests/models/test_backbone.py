"""Backbones: every family, grey input, the same function as the published network, nothing in place."""

import copy
import pickle

import pytest
import torch
import torchvision

from lemlight.errors import LemlightError
from lemlight.models.backbones import torchvision_names
from tests.parts import build_backbone

FAMILIES = {
    "resnet18": 512,
    "densenet121": 1024,
    "vgg11": 512,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 576,
    "efficientnet_b0": 1280,
    "convnext_tiny": 768,
    "regnet_y_400mf": 440,
    "mnasnet0_5": 1280,
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
AVERAGED = [
    "resnet18",
    "densenet121",
    "mobilenet_v2",
    "regnet_y_400mf",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "googlenet",
]
OTHERS = ["mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "squeezenet1_1"]


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


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "efficientnet_lite0"])
def test_the_backbone_travels(name):
    backbone = build_backbone(name)
    travelled = pickle.loads(pickle.dumps(copy.deepcopy(backbone)))
    assert list(travelled.state_dict()) == list(backbone.state_dict())


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
        ({"name": "resnet81"}, "'resnet81' is unknown. Did you mean .*resnet18"),
        ({"name": "vit_b_16"}, "is a transformer"),
        ({"name": "swin_t"}, "is a transformer"),
        ({"name": "maxvit_t"}, "is a transformer"),
        ({"name": "resnet18", "weights": "yes"}, "weights=yes: must be 'imagenet', 'file' or 'none'"),
        ({"name": "resnet18", "weights": "file"}, "weights=file and weights_file=FILE go together"),
        ({"name": "resnet18", "weights_file": "x.pth"}, "weights=file and weights_file=FILE go together"),
        ({"name": "resnet18", "weights": "bundled"}, "weights=bundled: must be 'imagenet', 'file' or 'none'"),
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


def test_the_names_are_torchvisions_cnns():
    names = torchvision_names()
    assert {"resnet18", "resnet50", "resnet101", "densenet121", "densenet169"} <= set(names)
    assert not [name for name in names if "vit" in name or "swin" in name or "raft" in name or "rcnn" in name]

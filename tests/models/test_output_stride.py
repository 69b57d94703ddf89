"""Output stride 16: a map twice as fine, on which the values of stride 32 are found again."""

import pytest
import torch

from tests.parts import build_backbone


def pair(name, tmp_path, weights="none"):
    torch.manual_seed(0)
    coarse = build_backbone(name, weights).eval()
    torch.save(coarse.features.state_dict(), tmp_path / "weights.pth")
    fine = build_backbone(name, "file", str(tmp_path / "weights.pth"), output_stride=16).eval()
    assert (coarse.output_stride, fine.output_stride) == (32, 16)
    assert fine.out_channels == coarse.out_channels
    return coarse, fine


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "regnet_x_400mf"])
@pytest.mark.parametrize("size", [(64, 96), (65, 98)])
@torch.no_grad()
def test_every_second_value_equals_the_coarse_map(name, size, tmp_path):
    coarse, fine = pair(name, tmp_path)
    images = torch.rand(2, 1, *size)
    expected, found = coarse(images), fine(images)
    assert found.shape[2] in (2 * expected.shape[2], 2 * expected.shape[2] - 1)
    assert found.shape[3] in (2 * expected.shape[3], 2 * expected.shape[3] - 1)
    assert torch.allclose(found[..., ::2, ::2], expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@torch.no_grad()
def test_reductions_with_an_even_kernel_keep_their_values_too(tmp_path):
    coarse, fine = pair("convnext_tiny", tmp_path)
    images = torch.rand(1, 1, 64, 96)  # even: without padding, a reduction drops the last row of an odd map
    expected, found = coarse(images), fine(images)
    assert torch.allclose(found[..., ::2, ::2], expected, rtol=1e-4, atol=1e-5 * expected.max())


@torch.no_grad()
def test_efficientnet_lite_keeps_its_values_at_odd_places(tmp_path):
    coarse, fine = pair("efficientnet_lite0", tmp_path, "bundled")
    images = torch.rand(2, 1, 64, 96)
    expected, found = coarse(images), fine(images)
    assert found.shape == (2, 1280, 4, 6)
    assert torch.allclose(found[..., 1::2, 1::2], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["densenet169", "vgg11"])
@torch.no_grad()
def test_networks_that_reduce_by_pooling_have_a_map_twice_as_fine(name, tmp_path):
    coarse, fine = pair(name, tmp_path)
    images = torch.rand(1, 1, 64, 96)
    expected, found = coarse(images), fine(images)
    assert found.shape == (1, coarse.out_channels, 4, 6)
    assert found.isfinite().all()
    pool = torch.nn.functional.max_pool2d if name == "vgg11" else torch.nn.functional.avg_pool2d
    pooled = pool(found, 2)
    similarity = torch.corrcoef(torch.stack([pooled.flatten(), expected.flatten()]))[0, 1]
    assert similarity > 0.9


def test_stride_16_trains():
    backbone = build_backbone("densenet121", output_stride=16)
    features = backbone(torch.rand(1, 1, 33, 64))
    assert features.shape == (1, 1024, 2, 4)
    features.mean().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())

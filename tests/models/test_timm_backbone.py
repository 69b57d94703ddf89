"""Networks of timm: any of them as a grid, their weights from a file, what cannot be used and why."""

import itertools
import sys
import urllib.error
import urllib.request

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch import nn

from lemlight.errors import LemlightError
from lemlight.localization.attribution import Importance, explain, try_methods
from lemlight.localization.baselines import CAM, AttentionRollout, GradCAM, GradCAMPlusPlus
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from tests.localization.by_hand import opened
from tests.parts import POOLINGS, build_backbone, build_pooling

VIT = "vit_tiny_patch16_224"


def backbone(name, weights="none", weights_file=None, output_stride=None):
    torch.manual_seed(0)
    return build_backbone(f"timm {name}", weights, weights_file and str(weights_file), output_stride)


def written(name, path, **options):
    """A network of timm, with statistics that are not the fresh ones, in a file."""
    torch.manual_seed(1)
    network = timm.create_model(name, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    (save_file if path.suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    return network


def rgb(ours, images):
    return ((images - ours.mean) / ours.std).expand(-1, 3, -1, -1)


def classifier_of(network, pooling="lem"):
    scorer = Scorer(network.out_channels)
    nn.init.normal_(scorer.weight)
    return MammogramClassifier(network, scorer, build_pooling(pooling, network.out_channels)).eval()


CNNS = {"convnext_atto": 320, "regnety_002": 368, "mobilenetv3_small_050": 288, "resnet10t": 512}


@pytest.mark.parametrize(("name", "channels"), CNNS.items())
def test_a_grey_network_is_the_rgb_network_on_grey_three_times(name, channels, tmp_path):
    path = tmp_path / ("weights.safetensors" if name == "resnet10t" else "weights.pth")
    network, images = written(name, path), torch.rand(2, 1, 65, 98)
    ours = backbone(name, "file", path).eval()
    with torch.no_grad():
        expected = network.forward_features(rgb(ours, images)).relu()
        torch.testing.assert_close(ours(images), expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert (ours.out_channels, ours.output_stride) == (channels, 32)
    assert (ours.mean, ours.std) == pytest.approx((0.449, 0.226))
    ours(images).sum().backward()  # a weight without a gradient would let DDP wait for ever
    assert all(weight.grad is not None for weight in ours.parameters())


@torch.no_grad()
def test_tokens_become_a_grid_without_the_class_token(tmp_path):
    network, images = written(VIT, tmp_path / "vit.pth"), torch.rand(1, 1, 224, 224)
    ours = backbone(VIT, "file", tmp_path / "vit.pth").eval()
    found, tokens = ours(images), network.forward_features(rgb(ours, images))
    assert found.shape == (1, 192, 14, 14)
    assert found.min() < 0  # nothing of a token is cut off
    torch.testing.assert_close(found[0, :, 3, 5], tokens[0, 1 + 3 * 14 + 5], rtol=1e-3, atol=1e-4)
    # at another size, as the network that timm builds for that size; positions are resized to it
    smaller = timm.create_model(VIT, img_size=(64, 96), pretrained=True, pretrained_cfg_overlay={
        "state_dict": torch.load(tmp_path / "vit.pth", weights_only=True)
    }).eval()  # fmt: skip
    images = torch.rand(1, 1, 64, 96)
    tokens = smaller.forward_features(rgb(ours, images))[:, 1:]
    torch.testing.assert_close(ours(images), tokens.transpose(1, 2).view(1, 192, 4, 6), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_registers_go_and_patches_of_another_size_are_resampled():
    ours = backbone("vit_small_patch14_reg4_dinov2").eval()
    assert ours.output_stride == 16
    assert ours.features.network.num_prefix_tokens == 5
    assert ours(torch.rand(1, 1, 65, 98)).shape == (1, 384, 5, 7)
    assert backbone(VIT, output_stride=32).output_stride == 32


@pytest.fixture(scope="module")
def vit():
    return backbone(VIT)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_works_on_tokens(pooling, vit):
    classifier = classifier_of(vit, pooling)
    logit = classifier(torch.rand(2, 1, 64, 96)).logit
    assert logit.shape == (2,)
    logit.sum().backward()
    assert vit.features.network.pos_embed.grad.isfinite().all()


def test_importance_is_refused_on_tokens_and_the_other_maps_work(vit):
    classifier, images = classifier_of(vit), torch.rand(1, 1, 64, 96)
    with pytest.raises(LemlightError, match=r"no rule for .* localization.method=cam or grad_cam"):
        try_methods(classifier, [CAM(), Importance()], (64, 96))
    for method in (CAM(), GradCAM(), GradCAMPlusPlus()):
        try_methods(classifier, [method], (64, 96))
        assert explain(classifier, images, method).maps.shape == (1, 64, 96)


def test_attention_rollout_is_that_of_a_naive_loop_and_is_refused_without_attention(vit):
    classifier, images = classifier_of(vit, "gap"), torch.rand(2, 1, 48, 64, generator=torch.Generator().manual_seed(3))
    malignant = torch.tensor([True, False])
    try_methods(classifier, [AttentionRollout()], (48, 64))
    maps = AttentionRollout()(classifier, images, malignant)
    assert maps.shape == (2, 48, 64)
    network = vit.features.network
    assert all(block.attn.fused_attn for block in network.blocks)  # as before
    for number, sign in enumerate((1, -1)):
        kept = []
        for block in network.blocks:  # its own attention in place of the fused one

            def attend(x, attn=block.attn, kept=kept, **_):
                batch, tokens, width = x.shape
                q, k, v = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
                kept.append((q @ k.transpose(-2, -1) * attn.scale).softmax(-1))
                return attn.proj((kept[-1] @ v).transpose(1, 2).reshape(batch, tokens, width))

            block.attn.forward = attend
        features = vit(images[number : number + 1].requires_grad_())
        logit = sign * classifier.judge(features).logit.sum()
        *gradients, last = torch.autograd.grad(logit, [*kept, features])
        for block in network.blocks:
            del block.attn.forward
        rolled = torch.eye(13)
        for attention, gradient in zip(kept, gradients, strict=True):
            rolled = rolled + (attention * gradient).clamp(min=0)[0].mean(dim=0) @ rolled
        weights = (last * features).sum(dim=1).clamp(min=0).flatten()
        expected = sum(weight * rolled[1 + cell, 1:] for cell, weight in enumerate(weights)).view(1, 1, 3, 4)
        enlarged = nn.functional.interpolate(expected, size=(48, 64), mode="bilinear")[0, 0]
        torch.testing.assert_close(maps[number], enlarged.detach(), rtol=1e-3, atol=1e-6)
    with pytest.raises(LemlightError, match=r"localization.method=rollout .* has none: use"):
        try_methods(classifier_of(backbone("resnet10t")), [AttentionRollout()], (64, 64))


def blobs():
    """Images of some bright spots on a noisy ground."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    images = 0.2 + 0.05 * torch.rand(8, 1, 96, 128, generator=generator)
    for image in images:
        for y, x, width in torch.rand(4, 3, generator=generator) * torch.tensor([96, 128, 14.0]):
            image[0] += 0.4 * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * (4 + width) ** 2))
    return images.clamp(max=1)


@torch.no_grad()
def agreement(name, side=32):
    """How well importance ranks squares by what the logit loses with them: Spearman's correlation, mean over images."""
    classifier, images = classifier_of(opened(backbone(name))), blobs()
    logit = classifier(images).logit
    maps = Importance().maps(classifier, images, logit > 0, "both", 0.0)
    changes, fractions = [], []
    for y, x in itertools.product(range(0, 96, side), range(0, 128, side)):
        changed = images.clone()
        changed[..., y : y + side, x : x + side] = images.mean()
        changes.append((classifier(changed).logit - logit).abs())
        fractions.append(maps[:, y : y + side, x : x + side].sum(dim=(1, 2)))
    pairs = zip(torch.stack(changes).T, torch.stack(fractions).T, strict=True)
    return sum(float(spearmanr(*pair).statistic) for pair in pairs) / len(images)


def test_a_perturbation_agrees_with_importance_on_convnext_no_worse_than_on_resnet():
    assert agreement("convnext_atto") >= agreement("resnet18") > 0


@torch.no_grad()
def test_half_the_stride_has_the_coarse_values_at_every_second_place():
    coarse, fine = backbone("regnetx_002").eval(), backbone("regnetx_002", output_stride=16).eval()
    images = torch.rand(1, 1, 64, 96)
    torch.testing.assert_close(fine(images)[..., ::2, ::2], coarse(images), rtol=1e-3, atol=1e-4)


class Strange(nn.Module):
    """A network whose last map is what the test says."""

    num_features, pretrained_cfg = 8, {"mean": (0.5,), "std": (0.5,)}

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward_features(self, images):
        return images.new_zeros(self.shape) if self.shape else [images]


@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 7, 5, 2), (1, 1024, 9), (1, 255, 8), None])
def test_a_last_map_that_is_no_grid_is_refused(shape, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: Strange(shape))
    with pytest.raises(LemlightError, match=r"backbone.name=resnet10t: .*(is no grid|takes no images)"):
        backbone("resnet10t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "convnext_tinny"},
            r"=convnext_tinny: timm has no such .*mean convnext_tiny or convnextv2_tiny or ",
        ),
        ({"name": "convnext_atto.d3_in1k"}, "did you mean convnext_atto.d2_in1k"),
        ({"name": "mixer_s16_224"}, "takes no images of 512 x 512 px"),
        ({"name": "regnety_002", "weights": "file"}, "weights=file and weights_file=FILE go together"),
        ({"name": "regnety_002", "weights": "imagenet"}, "must be 'hub', 'file' or 'none'"),
        ({"name": "regnety_002", "output_stride": 8}, "output_stride=8: must be 16 or 32"),
        ({"name": "inception_v3", "output_stride": 16}, "cannot run at output_stride=16"),
    ],
)
def test_impossible_choices_are_refused(options, message):
    with pytest.raises(LemlightError, match=message):
        backbone(**options)


def test_sizes_that_a_network_does_not_take_are_named():
    network = backbone("hrnet_w18_small")
    network.check_size(64, 96)
    with pytest.raises(LemlightError, match=r"multiples of 32 px, not 100 x 96: set dataset\.prepare\.height"):
        network.check_size(100, 96)


def test_files_of_other_networks_are_refused_and_none_of_the_weights_is_left_random(tmp_path):
    network = written("resnet10t", tmp_path / "resnet.pth")
    with pytest.raises(LemlightError, match=r"another architecture: .*missing: stem.conv.weight"):
        backbone("regnety_002", "file", tmp_path / "resnet.pth")
    state = network.state_dict()
    torch.save({key: value for key, value in state.items() if "layer4" not in key}, tmp_path / "part.pth")
    with pytest.raises(LemlightError, match=r"\d+ missing: layer4.0.conv1.weight"):
        backbone("resnet10t", "file", tmp_path / "part.pth")
    torch.save(state | {"layer1.0.conv1.weight": torch.zeros(3, 3)}, tmp_path / "shape.pth")
    with pytest.raises(LemlightError, match=r"1 of another shape: layer1.0.conv1.weight is \(3, 3\), expected \(64"):
        backbone("resnet10t", "file", tmp_path / "shape.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(LemlightError, match="cannot be read as tensors"):
        backbone("resnet10t", "file", tmp_path / "broken.safetensors")
    # the head may be missing, or another one
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "headless.pth")
    ours = backbone("resnet10t", "file", tmp_path / "headless.pth")
    assert torch.equal(ours.features.network.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def test_without_the_hub_the_error_names_the_ways_out_and_its_cache_is_enough(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(LemlightError) as error:
        backbone("resnet10t", "hub")
    for words in ("timm/resnet10t.c3_in1k", "no route to host", "weights=file", "weights=none", "efficientnet_lite0"):
        assert words in str(error.value)
    network = written("resnet10t", tmp_path / "model.safetensors")
    cached = {("timm/resnet10t.c3_in1k", "model.safetensors"): str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *asked: cached.get(asked))
    ours = backbone("resnet10t", "hub")
    assert torch.equal(ours.features.network.layer4[0].conv1.weight, network.layer4[0].conv1.weight)


def test_without_timm_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LemlightError, match=r"pip install 'lemlight\[timm\]'"):
        backbone("resnet10t")

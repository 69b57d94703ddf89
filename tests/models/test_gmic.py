"""GMIC and the feature pyramid: closed forms and shapes of the papers, training, checkpoints, maps, what is refused."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from lemlight.building import build
from lemlight.errors import LemlightError
from lemlight.localization.attribution import Importance, explain, try_methods
from lemlight.localization.baselines import CAM, GradCAM, Gradient, Saliency
from lemlight.models.classifier import build_classifier
from lemlight.models.exported import PredictingGraph
from lemlight.models.gmic import best_windows, cut
from lemlight.models.losses import CombinedLoss
from lemlight.models.pooling import MultiScaleMIL, Scorer
from tests.parts import part_of


def config_of(pooling="gmic", backbone="torchvision", **more):
    network = {"name": "resnet18", "weights": "none"}
    return {"backbone": part_of("backbone", backbone) | network, "pooling": part_of("pooling", pooling)} | more


@pytest.fixture(scope="module")
def gmic():
    torch.manual_seed(0)
    classifier = build_classifier(config_of())
    torch.nn.init.normal_(classifier.scorer.weight, std=0.1)
    return classifier.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 1, 192, 256, generator=torch.Generator().manual_seed(1))


def by_hand(saliency, window, number):
    """Algorithm 1, cell by cell."""
    left = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    found = []
    for _ in range(number):
        places = np.ndindex(left.shape[0] - window[0] + 1, left.shape[1] - window[1] + 1)
        sums = {(y, x): left[y : y + window[0], x : x + window[1]].sum() for y, x in places}
        y, x = max(sums, key=sums.get)
        left[y : y + window[0], x : x + window[1]] = 0
        found.append((y, x))
    return found


@pytest.mark.parametrize("window", [(2, 3), (1, 1), (5, 7)])
def test_windows_are_those_of_the_greedy_search(window):
    maps = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = best_windows(maps, window, 4)
    assert found.shape == (3, 4, 2)
    expected = [by_hand(one.numpy().copy(), window, 4) for one in maps]
    if window != (5, 7):  # which is taken whole at once
        assert found.tolist() == [[list(corner) for corner in one] for one in expected]
    assert (found >= 0).all()
    assert (found <= torch.tensor([5 - window[0], 7 - window[1]])).all()
    assert best_windows(torch.ones(1, 5, 7), window, 2).shape == (1, 2, 2)  # flat


def test_patches_are_cut_where_they_are_asked_for(images):
    corners = torch.tensor([[[0, 0], [160, 224]], [[7, 100], [3, 5]]])
    patches = cut(images, corners, 32)
    assert patches.shape == (2, 2, 1, 32, 32)
    assert torch.equal(patches[1, 0, 0], images[1, 0, 7:39, 100:132])


@torch.no_grad()
def test_its_three_logits_are_those_of_the_equations(gmic, images):
    pooling, features = gmic.pooling, gmic.backbone(images)
    scores = gmic(images)
    saliency = scores.score_map.sigmoid().flatten(1)  # 6 x 8 cells
    top = saliency.sort(dim=1, descending=True).values[:, : round(0.02 * 48)].mean(dim=1)
    whole, local = scores.further
    torch.testing.assert_close(whole.sigmoid(), top)
    corners, side = pooling._places(saliency.view(2, 6, 8), images)
    assert side == 32
    assert corners.shape == (2, 6, 2)
    assert (corners >= 0).all()
    assert (corners <= torch.tensor([160, 224])).all()
    vectors = pooling.local(cut(images, corners, side).flatten(0, 1)).mean(dim=(2, 3)).view(2, 6, 512)
    attention = pooling.attention
    content, gate, weight = (one.weight.flatten(1) for one in (attention.content, attention.gate, attention.weight))
    hidden = torch.tanh(vectors @ content.T + attention.content.bias) * torch.sigmoid(
        vectors @ gate.T + attention.gate.bias
    )
    alpha = (hidden @ weight.T).softmax(dim=1)
    bag = (alpha * vectors).sum(dim=1)
    torch.testing.assert_close(local, pooling.local_score(bag)[:, 0])
    together = torch.cat([features.amax(dim=(2, 3)), bag], dim=1)
    torch.testing.assert_close(scores.logit, pooling.fusion(together)[:, 0])
    assert float(scores.regularizer) == pytest.approx(float(saliency.mean()))


def test_all_three_are_trained_with_the_label_and_every_weight_learns(gmic, images):
    scores, label = gmic(images), torch.tensor([1.0, 0.0])
    losses = CombinedLoss(0.001)(scores, label, 1.0)
    parts = [functional.binary_cross_entropy_with_logits(one, label) for one in (scores.logit, *scores.further)]
    torch.testing.assert_close(losses["pool"], sum(parts))
    torch.testing.assert_close(losses["total"], sum(parts) + 0.001 * scores.regularizer)
    losses["total"].backward()
    assert all(weight.grad is not None for weight in gmic.parameters())
    gmic.zero_grad()


def test_it_is_localized_like_the_rest(gmic, images):
    for method in (Saliency(), GradCAM(), Gradient(), Importance()):
        try_methods(gmic, [method], (192, 256))
        found = explain(gmic, images, method, threshold=0.0)
        assert found.maps.shape == (2, 192, 256)
    saliency = explain(gmic, images, Saliency(), threshold=0.0)
    expected = functional.interpolate(gmic(images).score_map.sigmoid()[:, None], size=(192, 256), mode="bilinear")[:, 0]
    torch.testing.assert_close(saliency.maps, expected.detach())
    benign = explain(gmic, images, Saliency(), threshold=1.0)
    torch.testing.assert_close(benign.maps, 1 - expected.detach())


@torch.no_grad()
def test_air_is_not_looked_at_and_an_image_does_not_see_the_others(images):
    torch.manual_seed(0)
    classifier = build_classifier(config_of(inside_breast=True)).eval()
    images = images.clone()
    images[..., 128:] = 0
    scores, features = classifier(images), classifier.backbone(images)
    corners, side = classifier.pooling._places(scores.score_map.sigmoid() * scores.valid, images)
    assert (corners[:, 0, 1] + side <= 128 + 32).all()
    alone = torch.cat([classifier(image[None]).logit for image in images])
    torch.testing.assert_close(scores.logit, alone)
    assert features.shape[2:] == scores.valid.shape[1:]


def test_small_and_oblong_images_and_the_graph_of_an_export(gmic):
    for size in ((32, 40), (33, 200), (300, 64)):
        assert gmic(torch.rand(1, 1, *size)).logit.isfinite().all()
    program = torch.export.export(PredictingGraph(gmic), (torch.rand(2, 1, 96, 128),), strict=False)
    images = torch.rand(2, 1, 96, 128)
    torch.testing.assert_close(program.module()(images)[0], gmic(images).logit.sigmoid())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"level": "breast"}, "GMIC looks at single images; set level=image"),
        ({"feature_versions": 4}, "feature_versions=null"),
    ],
)
def test_where_there_are_no_images_it_is_refused(more, message):
    config = config_of(**more)
    config["backbone"] |= {"frozen": True}
    with pytest.raises(LemlightError, match=message):
        build_classifier(config)


def test_a_local_network_that_does_not_exist_is_named():
    config = config_of()
    config["pooling"] |= {"local": "resnet19"}
    with pytest.raises(LemlightError, match=r"resnet19.*resnet18"):
        build_classifier(config)
    config["pooling"] |= {"local": "resnet18", "local_weights": "bundled"}
    with pytest.raises(LemlightError, match=r"weights.*imagenet"):
        build_classifier(config)
    build_classifier(config, first_weights=False)  # where they come from the checkpoint, none are asked for


@pytest.fixture(scope="module")
def pyramid():
    torch.manual_seed(0)
    return build_classifier(config_of("multi_scale", "pyramid")).eval()


@torch.no_grad()
def test_a_pyramid_has_three_strides_on_the_finest_grid(pyramid, images):
    backbone = pyramid.backbone
    assert (backbone.out_channels, backbone.output_stride) == (768, 8)
    features = backbone(images)
    assert features.shape == (2, 768, 24, 32)
    for scale, step in enumerate((1, 2, 4)):  # a coarse cell fills step x step of the map
        part = features[:, 256 * scale : 256 * (scale + 1)]
        blocks = part.unfold(2, step, step).unfold(3, step, step)
        assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    assert build(part_of("backbone", "pyramid") | {"name": "densenet121", "weights": "none", "scales": 2}, "b")(
        images[:1, :, :65, :98]
    ).shape == (1, 512, 4, 6)


@torch.no_grad()
def test_attention_within_a_scale_is_attention_over_its_own_cells():
    torch.manual_seed(0)
    pooling, scorer = MultiScaleMIL(4, scales=2, hidden=3), Scorer(4)
    torch.nn.init.normal_(scorer.weight)
    fine, coarse = torch.rand(2, 2, 4, 6), torch.rand(2, 2, 2, 3)
    features = torch.cat([fine, coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)], dim=1)
    means = [torch.einsum("nhw,nchw->nc", attention(part), part)
             for attention, part in zip(pooling.attentions, (fine, coarse), strict=True)]  # fmt: skip
    expected = torch.cat(means, dim=1) @ scorer.weight.flatten() + scorer.bias
    torch.testing.assert_close(pooling(scorer(features), features, scorer), expected)


def test_a_pyramid_is_trained_and_localized_and_importance_closes_its_account(pyramid, images):
    pyramid(images).logit.sum().backward()
    assert all(weight.grad is not None for weight in pyramid.parameters())
    for method in (CAM(), Importance()):
        found = explain(pyramid, images, method)
        assert found.maps.shape == (2, 192, 256)
    started = (found.maxima | found.minima).sum(dim=(1, 2)).double()
    torch.testing.assert_close(found.maps.double().sum(dim=(1, 2)) + found.lost, started, rtol=1e-4, atol=0)
    with pytest.raises(LemlightError, match="maps of 5 sizes"):
        build(part_of("backbone", "pyramid") | {"weights": "none", "scales": 7}, "backbone")
    with pytest.raises(LemlightError, match="use backbone=pyramid"):
        MultiScaleMIL(512)
    assert np.isfinite(float(pyramid(images).regularizer))


def test_the_fusion_takes_the_highest_features_of_the_breast_also_where_they_are_below_0(gmic, images):
    valid = torch.zeros(2, 6, 8, dtype=torch.bool)
    valid[:, 1:4, 2:7] = True
    generator = torch.Generator().manual_seed(2)
    features = -torch.rand(2, 512, 6, 8, generator=generator)  # as of a network that does not end in ReLU
    features = features.masked_fill(~valid.unsqueeze(1), -5.0)
    scores = torch.randn(2, 6, 8, generator=generator).masked_fill(~valid, -30.0)
    with torch.no_grad():
        everywhere = gmic.pooling(scores, features, gmic.scorer, images=images)[0]
        inside = gmic.pooling(scores, features, gmic.scorer, valid=valid, images=images)[0]
    torch.testing.assert_close(inside, everywhere)

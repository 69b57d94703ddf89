"""Every pooling method against its closed form, its limits and its invariances."""

import math

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.models.pooling import Scorer
from tests.parts import POOLINGS, build_pooling

CHANNELS = 6


def setup(height=5, width=7, seed=0, images=3, dtype=torch.float64):
    torch.manual_seed(seed)
    scorer = Scorer(CHANNELS).to(dtype)
    with torch.no_grad():
        scorer.weight.normal_()
        scorer.bias.normal_()
    features = torch.rand(images, CHANNELS, height, width, dtype=dtype)
    return features, scorer


def pool(name, features, scorer, **options):
    pooling = build_pooling(name, CHANNELS, **options).to(features.dtype)
    return pooling(scorer(features), features, scorer)


def gap(features, scorer):
    return torch.stack([scorer(image.unsqueeze(0)).mean() for image in features])


def sorted_scores(features, scorer):
    return [sorted(image.flatten().tolist(), reverse=True) for image in scorer(features)]


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    return torch.allclose(actual.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


def test_gap_is_a_fully_connected_layer_on_averaged_features():
    features, scorer = setup()
    connected = features.mean(dim=(2, 3)) @ scorer.weight.flatten() + scorer.bias
    assert close(pool("gap", features, scorer), connected)


@pytest.mark.parametrize("name", ["gmp", "sparse_mil"])
def test_gmp_and_sparse_mil_take_the_highest_score(name):
    features, scorer = setup()
    assert close(pool(name, features, scorer), [scores[0] for scores in sorted_scores(features, scorer)])


def test_the_loss_of_sparse_mil_is_the_mean_region_probability():
    regularizer = build_pooling("sparse_mil", CHANNELS).regularizer(torch.tensor([[[0.0, math.log(3)]]]))
    assert regularizer.item() == pytest.approx((0.5 + 0.75) / 2)


@pytest.mark.parametrize("k", [1e-6, 0.1, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("name", ["rgp", "ggp"])
def test_rgp_averages_the_features_of_the_top_regions_and_ggp_the_top_of_every_channel(name, k):
    features, scorer = setup()
    count = max(1, round(k * 35))
    vectors = []
    for image, scores in zip(features, scorer(features), strict=True):
        ranked = scores.flatten() if name == "rgp" else image.flatten(1)
        chosen = ranked.argsort(descending=True).expand(CHANNELS, -1)[:, :count]
        vectors.append(image.flatten(1).gather(1, chosen).mean(dim=1))
    assert close(pool(name, features, scorer, k=k), torch.stack(vectors) @ scorer.weight.flatten() + scorer.bias)


def test_lse_closed_form_and_limits():
    features, scorer = setup()
    expected = [
        math.log(sum(math.exp(2.5 * s) for s in scores) / 35) / 2.5 for scores in sorted_scores(features, scorer)
    ]
    assert close(pool("lse", features, scorer, r=2.5), expected)
    assert torch.allclose(pool("lse", features, scorer, r=1e-7), gap(features, scorer), atol=1e-5)
    assert torch.allclose(pool("lse", features, scorer, r=1e6), pool("gmp", features, scorer), atol=1e-5)


def test_lse_does_not_overflow():
    score_map = torch.tensor([[[1e4, -1e4]]])
    assert build_pooling("lse", 1, r=10.0)(score_map, None, None).item() == pytest.approx(1e4, abs=0.1)


def test_max_min_closed_form_and_limits():
    features, scorer = setup()
    expected = [(sum(s[:7]) / 7 + 0.7 * sum(s[-4:]) / 4) / 2 for s in sorted_scores(features, scorer)]
    assert close(pool("max_min", features, scorer, kmax=0.2, kmin=0.1, alpha=0.7), expected)
    assert close(pool("max_min", features, scorer, kmax=1.0, kmin=1.0, alpha=1.0), gap(features, scorer))
    halved = pool("max_min", features, scorer, kmax=1e-6, alpha=0.0)
    assert close(2 * halved, pool("gmp", features, scorer))


def test_peak_on_a_flat_map_is_its_value_with_a_gradient():
    score_map = torch.full((2, 3, 4), 0.5, requires_grad=True)
    pooled = build_pooling("peak", 1)(score_map, None, None)
    assert pooled.tolist() == [0.5, 0.5]
    pooled.sum().backward()
    assert score_map.grad.sum().item() == pytest.approx(2)


def test_attention_closed_form():
    features, scorer = setup()
    pooling = build_pooling("attention_mil", CHANNELS, hidden=4).double()
    content, gate, weight = (layer.weight.flatten(1) for layer in (pooling.content, pooling.gate, pooling.weight))
    expected = []
    for image in features:
        vectors = image.flatten(1).T
        hidden = torch.tanh(vectors @ content.T + pooling.content.bias)
        hidden = hidden * torch.sigmoid(vectors @ gate.T + pooling.gate.bias)
        attention = torch.softmax(hidden @ weight.flatten() + pooling.weight.bias, dim=0)
        expected.append((attention @ vectors) @ scorer.weight.flatten() + scorer.bias)
    assert close(pooling(scorer(features), features, scorer), torch.cat(expected))
    assert close(pooling.attention(features).sum(dim=(1, 2)), torch.ones(3))


@pytest.mark.parametrize("name", POOLINGS)
def test_an_image_is_pooled_on_its_own_and_its_mirror_image_alike(name):
    features, scorer = setup(images=4)
    pooling = build_pooling(name, CHANNELS).double()
    together = pooling(scorer(features), features, scorer)
    alone = [pooling(scorer(image[None]), image[None], scorer) for image in features]
    mirrored = features.flip(3).transpose(2, 3).contiguous()
    assert together.shape == (4,)
    assert close(together, torch.cat(alone))
    assert close(together, pooling(scorer(mirrored), mirrored, scorer))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 4)])
def test_gradients_equal_finite_differences(name, shape):
    features, scorer = setup(*shape, images=2)
    pooling = build_pooling(name, CHANNELS).double()
    features.requires_grad_()

    def loss(features):
        score_map = scorer(features)
        return pooling(score_map, features, scorer), pooling.regularizer(score_map) + 0 * score_map.sum()

    assert torch.autograd.gradcheck(loss, features)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_constant_image_gives_a_finite_logit_and_gradient(name):
    _, scorer = setup(dtype=torch.float32)
    features = torch.full((2, CHANNELS, 4, 5), 0.5, requires_grad=True)
    logit = pool(name, features, scorer)
    logit.sum().backward()
    assert logit.isfinite().all()
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


def test_unknown_options_are_refused_by_name():
    with pytest.raises(LemlightError, match="RegionGroupMaxPooling: r=2: Unexpected keyword argument"):
        build_pooling("rgp", 4, r=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rgp", {"k": 1.2}),
        ("ggp", {"k": float("nan")}),
        ("lse", {"r": float("inf")}),
        ("max_min", {"alpha": -1.0}),
        ("attention_mil", {"hidden": 0}),
        ("lem", {"threshold": -1.0}),
        ("lem", {"ties": "once"}),
    ],
)
def test_values_outside_their_range_are_refused_by_name(name, options):
    option, value = next(iter(options.items()))
    with pytest.raises(LemlightError, match=f"{option}={value}: must be"):
        build_pooling(name, 4, **options)

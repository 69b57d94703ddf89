"""Scorer, classifier and losses: float32 scores under autocast, gradients, numbers worked out by hand.

Which cells count: every pooling with a mask and over bags of views against loops over single images and cells.
"""

import copy
import math
import statistics

import pytest
import torch
from torch import nn

from lemlight.errors import LemlightError
from lemlight.localization.attribution import Importance, explain
from lemlight.localization.baselines import CAM, GradCAM
from lemlight.models.classifier import MammogramClassifier, Scores, bags_by_size, breast_cells, side_by_side
from lemlight.models.losses import CombinedLoss, PoolingLoss
from lemlight.models.pooling import Scorer
from tests.parts import POOLINGS, build_backbone, build_pooling, combined_loss


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone("resnet18")


def test_the_scorer_is_a_1x1_convolution():
    scorer = Scorer(5)
    torch.nn.init.normal_(scorer.bias)
    features = torch.rand(2, 5, 3, 4)
    expected = torch.nn.functional.conv2d(features, scorer.weight, scorer.bias).squeeze(1)
    assert torch.allclose(scorer(features), expected, atol=1e-6)
    last = features.to(memory_format=torch.channels_last)
    assert torch.allclose(scorer(last), expected, atol=1e-6)


def test_the_scorer_without_bias_and_its_start():
    scorer = Scorer(1000, bias=False)
    assert [name for name, _ in scorer.named_parameters()] == ["weight"]
    assert 0.008 < scorer.weight.std() < 0.012
    assert Scorer(4).bias.tolist() == [0.0]
    with pytest.raises(LemlightError, match="channels=0: must be greater than or equal to 1"):
        Scorer(0)


def test_scores_are_float32_under_autocast_and_do_not_tie():
    torch.manual_seed(0)
    scorer = Scorer(64)
    features = 1 + torch.rand(1, 64, 20, 31) / 100
    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer(features.bfloat16())
    assert scores.dtype == torch.float32
    assert torch.equal(scores, scorer(features.bfloat16().float()))
    assert scores.unique().numel() > 600
    assert scorer.bfloat16()(features).dtype == torch.float32


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_trains_every_parameter_and_runs_in_bf16(backbone, name):
    torch.manual_seed(0)
    model = MammogramClassifier(copy.deepcopy(backbone), Scorer(512), build_pooling(name, 512))
    scores = model(torch.rand(2, 1, 97, 130))
    assert scores.logit.shape == scores.gap_logit.shape == (2,)
    assert scores.score_map.shape == (2, 4, 5)
    assert scores.regularizer.shape == ()
    assert torch.allclose(scores.gap_logit, scores.score_map.mean(dim=(1, 2)))
    assert (scores.logit.sigmoid() - 0.5).abs().max() < 0.4
    combined_loss(scores, torch.tensor([0.0, 1.0]), 0.5, 0.01)["total"].backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name

    images = torch.rand(2, 1, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.eval()(images)
        loss = combined_loss(scores, torch.tensor([0.0, 1.0]), 0.5, 0.01)["total"]
    assert scores.score_map.dtype == scores.logit.dtype == loss.dtype == torch.float32
    assert loss.isfinite()
    assert torch.allclose(scores.gap_logit, model(images).gap_logit, atol=0.05)


# Probabilities 0.75 and 0.25 by the pooling, 0.5 and 0.5 by GAP.
SCORES = Scores(
    logit=torch.tensor([math.log(3), -math.log(3)]),
    gap_logit=torch.zeros(2),
    score_map=torch.zeros(2, 3, 4),
    regularizer=torch.tensor(0.5),
)
LABEL = torch.tensor([1.0, 1.0])
POOL = (math.log(4 / 3) + math.log(4)) / 2
GAP = math.log(2)


@pytest.mark.parametrize("lam", [0.0, 0.25, 1.0, torch.tensor(0.25)])
def test_by_hand(lam):
    losses = combined_loss(SCORES, LABEL, lam, beta=0.2)
    assert losses["gap"].item() == pytest.approx(GAP)
    assert losses["pool"].item() == pytest.approx(POOL)
    assert losses["regularizer"].item() == 0.5
    assert losses["total"].item() == pytest.approx((1 - float(lam)) * GAP + float(lam) * (POOL + 0.2 * 0.5))


def test_the_positive_weight_counts_malignant_images_more():
    losses = combined_loss(SCORES, torch.tensor([1, 0]), 1.0, beta=0.0, positive_weight=3.0)
    assert losses["pool"].item() == pytest.approx((3 * math.log(4 / 3) + math.log(4 / 3)) / 2)
    assert losses["gap"].item() == pytest.approx((3 + 1) * math.log(2) / 2)


def test_lambda_zero_sends_no_gradient_through_the_pooling():
    logit, gap_logit = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    scores = Scores(logit, gap_logit, torch.zeros(2, 1, 1), torch.tensor(1.0))
    combined_loss(scores, LABEL, 0.0, beta=1.0)["total"].backward()
    assert logit.grad.abs().sum() == 0
    assert gap_logit.grad.tolist() == [-0.25, -0.25]


def test_impossible_values_are_all_named():
    with pytest.raises(LemlightError, match=r"beta=-1.0: must be.*positive_weight"):
        CombinedLoss(-1.0, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_cross_entropy_with_soft_targets(smoothing):
    label = torch.tensor([1.0, 0.0])
    soft = label * (1 - smoothing) + smoothing / 2

    def entropy(logit):
        return -(soft * torch.nn.functional.logsigmoid(logit) + (1 - soft) * torch.nn.functional.logsigmoid(-logit))

    losses = CombinedLoss(0.0, label_smoothing=smoothing)(SCORES, label, 0.3)
    assert losses["pool"].item() == pytest.approx(entropy(SCORES.logit).mean().item(), rel=1e-5)
    assert losses["gap"].item() == pytest.approx(entropy(SCORES.gap_logit).mean().item(), rel=1e-5)
    assert PoolingLoss(label_smoothing=smoothing)(SCORES, label, 0.3)["total"].item() == losses["pool"].item()
    with pytest.raises(LemlightError, match="label_smoothing"):
        CombinedLoss(0.0, label_smoothing=1.0)


def test_the_loss_of_the_pooling_alone_knows_no_lambda_and_no_regularizer():
    losses = PoolingLoss()(SCORES, LABEL, 0.3)
    assert losses["total"].item() == losses["pool"].item()
    assert losses["total"].item() == combined_loss(SCORES, LABEL, 1.0, beta=0.0)["total"].item()


def test_balanced_is_the_ratio_of_the_classes_in_the_train_split():
    assert CombinedLoss(0.0, "balanced", train_labels=[0, 0, 0, 1]).positive_weight == 3
    assert CombinedLoss(0.0, "balanced", train_labels=[0, 0]).positive_weight is None


CHANNELS = 4
OPTIONS = [(name, {}) for name in POOLINGS]
OPTIONS += [("lem", {"ties": "all"}), ("lem", {"aggregate": "sum", "norm": "l2", "threshold": 0.1})]
IDS = [" ".join([name, *map(str, options.values())]) for name, options in OPTIONS]
BAG = torch.tensor([3, 1, 0, 3, 2, 3, 3, 3, 1, 3, 3])  # 1, 2, 1 and 7 views, not in order


class TopMean(nn.Module):
    """A pooling from outside: it has no argument `valid`."""

    def forward(self, score_map, features, scorer):
        scores = score_map.flatten(1)
        return scores.topk(min(3, scores.shape[1]), dim=1).values.mean(dim=1)

    def regularizer(self, score_map):
        return score_map.square().mean()


def random_features(pooling, images=11, shape=(5, 4), inside_breast=False, dtype=torch.float64, seed=0):
    """A classifier whose backbone hands its input through, and random features."""
    torch.manual_seed(seed)
    classifier = MammogramClassifier(nn.Identity(), Scorer(CHANNELS), pooling, inside_breast).to(dtype)
    with torch.no_grad():
        classifier.scorer.weight.normal_()
        classifier.scorer.bias.normal_()
    return classifier, torch.rand(images, CHANNELS, *shape, dtype=dtype)


def some_valid(images, shape=(5, 4)):
    valid = torch.rand(images, *shape) < 0.6
    valid[0] = False
    valid[0, 2, 1] = True  # one cell, without neighbours
    valid[:, 0, 0] = True
    return valid


def by_hand(name, options, views, scorer, pooling):
    """Logit, mean and loss term of the bag whose views are (scores (h, w), vectors (C, h, w), valid (h, w))."""
    cells = [
        (n, i, j) for n, (scores, _, valid) in enumerate(views)
        for i in range(scores.shape[0]) for j in range(scores.shape[1]) if valid[i, j]
    ]  # fmt: skip
    score = {(n, i, j): views[n][0][i, j].item() for n, i, j in cells}
    values = list(score.values())
    gap = statistics.fmean(values)

    def neighbours(n, i, j):
        near = [(n, a, b) for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1) if (a, b) != (i, j)]
        return [score[cell] for cell in near if cell in score]

    if name == "peak":
        median = sorted(values)[(len(values) - 1) // 2]
        peaks = [s for cell, s in score.items() if s >= max([*neighbours(*cell), median])]
        return statistics.fmean(peaks), gap, 0.0
    if name == "lem":
        everyone, rounding = options.get("ties") == "all", 1e-4 * (max(values) - min(values))
        limit, order = options.get("threshold", 1.0), 2 if options.get("norm") == "l2" else 1
        kinds = []
        for sign in (1, -1):
            kinds.append(set())
            for cell, s in score.items():
                near = [sign * other for other in neighbours(*cell)]
                stands_out = bool(near) and sign * s > max(near) + rounding
                if (sign * s >= max(near, default=-math.inf)) if everyone else stands_out:
                    kinds[-1].add(cell)
        means = [statistics.fmean(score[cell] for cell in kind) if kind else 0.0 for kind in kinds]
        sums = [sum(score[cell] for cell in kind) for kind in kinds]
        found = sum(sums if options.get("aggregate") == "sum" else means)
        others = [max(0.0, abs(s) - limit) for cell, s in score.items() if cell not in kinds[0] | kinds[1]]
        penalty = statistics.fmean(excess**order for excess in others) ** (1 / order) if others else 0.0
        wrong = [[max(0.0, -sign * score[cell]) for cell in kind] for sign, kind in zip((1, -1), kinds, strict=True)]
        wrong = sum(statistics.fmean(one) if one else 0.0 for one in wrong)
        return found if kinds[0] | kinds[1] else gap, gap, wrong + 3 * penalty
    # the others see a set of cells: what they make of all cells has its own tests
    vectors = torch.stack([views[n][1][:, i, j] for n, i, j in cells], dim=1)
    term = statistics.fmean(1 / (1 + math.exp(-s)) for s in values) if name == "sparse_mil" else 0.0
    one_row = torch.tensor(values).view(1, 1, -1)
    return pooling(one_row, vectors[None, :, None], scorer).item(), gap, term


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
@pytest.mark.parametrize("masked", [False, True])
def test_every_pooling_pools_the_cells_that_count_of_all_views_of_a_bag(name, options, masked):
    torch.set_default_dtype(torch.float64)
    try:
        pooling = build_pooling(name, CHANNELS, **options)
        classifier, features = random_features(pooling)
        valid = some_valid(11) if masked else None
        maps, everything = classifier.scorer(features), torch.ones(11, 5, 4, dtype=torch.bool)
        for bag in (None, BAG):
            numbers = torch.arange(11) if bag is None else bag
            found = classifier.judge(features, valid, bag)
            counted = everything if valid is None else valid
            views = [(maps[n], features[n], counted[n]) for n in range(11)]
            bags = [[views[n] for n in (numbers == own).nonzero().flatten()] for own in range(int(numbers.max()) + 1)]
            expected = torch.tensor([by_hand(name, options, one, classifier.scorer, pooling) for one in bags])
            torch.testing.assert_close(found.logit, expected[:, 0], rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.gap_logit, expected[:, 1], rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.regularizer, expected[:, 2].mean(), rtol=1e-6, atol=1e-9)
            assert found.score_map.shape == (11, 5, 4)
            assert torch.equal(found.score_map, maps * counted)
    finally:
        torch.set_default_dtype(torch.float32)


def outcome(classifier, features, valid=None, bag=None):
    """All that a step of training sees: logits, loss term, gradients."""
    features = features.clone().requires_grad_()
    scores = classifier.judge(features, valid, bag)
    gradients = torch.autograd.grad((scores.logit + 2 * scores.gap_logit).sum() + scores.regularizer, features)
    return scores.logit, scores.gap_logit, scores.regularizer, scores.score_map, *gradients


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
def test_all_cells_and_bags_of_one_view_change_no_digit(name, options):
    classifier, features = random_features(build_pooling(name, CHANNELS, **options), shape=(7, 5), dtype=torch.float32)
    without = outcome(classifier, features)
    for more in ({"valid": torch.ones(11, 7, 5, dtype=torch.bool)}, {"bag": torch.arange(11)}):
        assert all(map(torch.equal, without, outcome(classifier, features, **more)))
    among = classifier.judge(features, bag=BAG)  # single views keep theirs among larger bags
    assert torch.equal(among.logit[[0, 2]], without[0][[2, 4]])


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_are_added_up_in_the_order_of_before_which_rounds_them(name):
    classifier, features = random_features(build_pooling(name, CHANNELS), shape=(9, 7), dtype=torch.float32)
    found = outcome(classifier, features)
    features = features.requires_grad_()
    score_map = classifier.scorer(features)
    logit, gap_logit = classifier.pooling(score_map, features, classifier.scorer), score_map.mean(dim=(1, 2))
    total = (logit + 2 * gap_logit).sum() + classifier.pooling.regularizer(score_map)
    assert torch.equal(found[-1], torch.autograd.grad(total, features)[0])


@pytest.mark.parametrize("pooling", [*POOLINGS, "own"])
def test_what_does_not_count_has_no_say_and_no_gradient(pooling):
    own = TopMean() if pooling == "own" else build_pooling(pooling, CHANNELS)
    classifier, features = random_features(own)
    valid = some_valid(11)
    air = ~valid.unsqueeze(1)
    for bag in (None, BAG):
        first = outcome(classifier, features, valid, bag)
        assert all(part.isfinite().all() for part in first)
        assert (first[-1] * air == 0).all()
        other = outcome(classifier, torch.where(air, 100 * torch.randn_like(features), features), valid, bag)
        for one, two in zip(first, other, strict=True):
            torch.testing.assert_close(one, two)


def test_a_pooling_from_outside_is_given_the_list_of_cells():
    classifier, features = random_features(TopMean())
    valid = some_valid(11)
    scores = classifier.judge(features, valid, BAG)
    for number in range(4):
        values = torch.cat([scores.score_map[n][valid[n]] for n in (number == BAG).nonzero().flatten()])
        assert scores.logit[number].item() == pytest.approx(values.sort().values[-3:].mean().item())
    assert scores.regularizer.isfinite()


def test_half_of_a_cell_by_hand():
    images = torch.zeros(3, 1, 6, 5)  # cells of 3 x 2.5 px
    images[0, 0, :, :2] = 0.1  # 80 % of the first column
    images[1, 0, :2, 1:4] = 1 / 65535  # the least that is no air; 40 % of each upper cell
    images[1, 0, 0:3, 4] = 0.5  # the upper right cell has 3 px more: 80 %
    found = breast_cells(images, (2, 2))
    assert found[0].tolist() == [[True, False], [True, False]]
    assert found[1].tolist() == [[False, True], [False, False]]
    assert found[2].all()  # no breast at all: nothing is left out
    half = torch.zeros(1, 1, 6, 6)
    half[..., 3:] = 1
    assert breast_cells(half, (1, 1)).all()
    assert breast_cells(half, (1, 2)).tolist() == [[[False, True]]]
    assert breast_cells(half, (7, 6)).sum() == 21  # cells smaller than a px


def test_views_stand_side_by_side_with_a_column_between():
    maps = torch.arange(12.0).view(3, 2, 2) + 1
    ((ones, one), (twos, two)) = bags_by_size(torch.tensor([1, 0, 1]))
    assert (ones.tolist(), one.tolist(), twos.tolist(), two.tolist()) == ([0], [[1]], [1], [[0, 2]])
    assert side_by_side(maps, two).tolist() == [[[1, 2, 0, 9, 10], [3, 4, 0, 11, 12]]]


def breast_and_air():
    """A classifier with `inside_breast` that sees the images directly, at a quarter of their size."""
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Conv2d(1, CHANNELS, 4, stride=4), nn.ReLU())
    nn.init.uniform_(backbone[0].weight, 0, 1)
    classifier = MammogramClassifier(backbone, Scorer(CHANNELS), build_pooling("lem", CHANNELS), True).eval()
    classifier.scorer.weight.data.copy_(torch.tensor([1, -1, 0.5, -0.5]).view(1, 4, 1, 1))
    images = torch.rand(2, 1, 36, 32) + 0.01
    images[0, :, :, 16:] = 0
    return classifier, images


def test_importance_cam_and_grad_cam_stay_inside_the_breast():
    classifier, images = breast_and_air()
    scores = classifier(images)
    assert scores.valid[0, :, :4].all()
    assert not scores.valid[0, :, 4:].any()
    assert not any(kind[0, :, 4:].any() for kind in classifier.extrema(scores))
    for method in (Importance(), CAM(), GradCAM()):
        for follow in ("maxima", "minima"):
            found = explain(classifier, images, method, follow=follow, keep=0.0)
            torch.testing.assert_close(found.probability, scores.logit.double().sigmoid())
            assert torch.equal(found.valid, scores.valid)
            assert (found.maps[0, :, 20:] == 0).all()
            assert found.maps[1].any() or not isinstance(method, Importance)


def test_an_image_that_is_all_breast_or_none_at_all_has_the_figures_of_before():
    classifier, images = breast_and_air()
    images[0] = 0
    features = classifier.backbone(images).detach()
    valid = classifier.valid(images, features)
    assert valid.all()
    assert all(map(torch.equal, outcome(classifier, features, valid), outcome(classifier, features)))

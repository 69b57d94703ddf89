"""What single functions of a network do with importance; those without a rule are named and refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lemlight.errors import LemlightError
from lemlight.localization.propagation_rules import Ledger, Sum, Weighted, Weights
from tests.localization.by_hand import Network, Steps, location_maps


def maps_of(function, images, maxima, channels=1, weights=(1.0,)):
    found = location_maps(Network(Steps(function, channels), list(weights)), images, maxima, torch.zeros_like(maxima))
    total = found.maps.double().sum(dim=(1, 2)) + found.lost
    torch.testing.assert_close(total, found.started, rtol=1e-4, atol=0)
    return found


def image(rows):
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def test_max_pooling_hands_to_the_winner_and_to_one_of_several():
    images = image([[1, 2, 5, 5], [3, 9, 5, 5]]) / 10
    found = maps_of(lambda x: functional.max_pool2d(x, 2), images, torch.tensor([[[1.0, 4.0]]]))
    assert found.maps[0, 1, 1] == 1
    tie = found.maps[0, :, 2:]
    assert tie.max() == 4
    assert (tie > 0).sum() == 1


@pytest.mark.parametrize(
    "pool", [lambda x: functional.avg_pool2d(x, 2), lambda x: functional.adaptive_avg_pool2d(x, (1, 2))]
)
def test_average_pooling_hands_down_in_proportion_to_the_values(pool):
    images = image([[1, 2, 0, 0], [3, 4, 0, 5]]) / 10
    found = maps_of(pool, images, torch.tensor([[[1.0, 2.0]]]))
    expected = np.array([[0.1, 0.2, 0, 0], [0.3, 0.4, 0, 2]])
    np.testing.assert_allclose(found.maps[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.sigmoid(functional.adaptive_avg_pool2d(x, 1)),
        lambda x: functional.hardsigmoid(x.mean((2, 3), keepdim=True)) * x,
        lambda x: x.mul_(torch.sigmoid(x)),
        functional.silu,
        functional.gelu,
        functional.hardswish,
        functional.relu6,
        lambda x: functional.leaky_relu(x, 0.1),
        lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (1,), bias=torch.ones(1)).permute(0, 3, 1, 2),
        lambda x: torch.full((1, 1, 1), 0.3) * x,
        lambda x: functional.dropout(x, training=False),
        lambda x: functional.pad(x, (1, 0, 0, 2))[:, :, :2, 1:],
        lambda x: x.flatten(2).view(1, 1, 2, 3),
        lambda x: torch.cat(x.chunk(3, dim=3), dim=3).contiguous(),
        lambda x: torch.stack(x.split(1, dim=2), dim=2).squeeze(3).unsqueeze(0)[0],
        torch.no_grad()(torch.relu),
        torch.detach,
        lambda x: functional.relu(input=x),
    ],
)
def test_one_to_one_functions_and_moves_leave_importance_where_it_is(function):
    images, maxima = image([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), torch.tensor([[[1.0, 0, 2], [0, 3, 0]]])
    np.testing.assert_allclose(maps_of(function, images, maxima).maps, maxima, rtol=1e-5)


def test_a_gate_carries_nothing_also_where_the_map_is_one_cell():
    images, maxima = image([[0.5]]), torch.ones(1, 1, 1)
    found = maps_of(lambda x: torch.sigmoid(x) * functional.adaptive_avg_pool2d(x, 1), images, maxima)
    assert found.maps.item() == pytest.approx(1)


class Standardised(nn.Conv2d):
    """A weight that is computed from a parameter."""

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


def test_what_is_computed_from_parameters_is_a_constant():
    torch.manual_seed(0)
    standardised, images, maxima = Standardised(1, 1, 3, padding=1), torch.rand(1, 1, 4, 4), torch.ones(1, 4, 4)
    plain = copy.deepcopy(standardised)
    plain.__class__ = nn.Conv2d
    plain.weight.data -= plain.weight.data.mean()
    expected = maps_of(plain, images, maxima).maps
    torch.testing.assert_close(maps_of(standardised, images, maxima).maps, expected)
    assert standardised.weight.grad is None


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(x.mean())
        return x


def test_a_buffer_that_the_network_overwrites_stays_as_it_is():
    counting = Counting()
    for _ in range(2):
        maps_of(counting, torch.rand(1, 1, 2, 2), torch.ones(1, 2, 2))
        assert counting.seen.tolist() == [0]
        assert not vars(counting.seen)


@pytest.mark.parametrize(
    "normalise",
    [
        lambda x: x * 4 + (-2.0),
        lambda x: torch.add(x / 0.25, torch.tensor(-2.0)),
        lambda x: torch.cat([x.expand(-1, 3, -1, -1) * 4 - 2][0].chunk(3, dim=1), dim=1)[:, :1],
        lambda x: torch.stack(list(((x - 0.5) / 0.25)[:, 0].unbind(0))).unsqueeze(1),
        lambda x: functional.pad(x * 4 - 2, (1, 1, 1, 1))[..., 1:-1, 1:-1],
        lambda x: functional.batch_norm(x, torch.full((1,), 0.5), torch.full((1,), 0.0625)),
    ],
)
def test_behind_any_normalisation_the_first_convolution_sees_the_image(normalise):
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
            nn.init.ones_(self.convolution.weight)

        def forward(self, images):
            return torch.relu(self.convolution(normalise(images)) + 20)

    found = location_maps(
        Network(Normalised(), [1.0]), image([[0.0, 0.1, 0.3]]), torch.tensor([[[0.0, 1, 0]]]), torch.zeros(1, 1, 3)
    )
    np.testing.assert_allclose(found.maps[0, 0], [0, 0.25, 0.75], rtol=1e-5)


def test_a_batch_norm_with_a_weight_of_0_hands_nothing_down():
    backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
    backbone[0].weight.data.fill_(1)
    backbone[1].weight.data, backbone[1].bias.data = torch.tensor([0.0, 1]), torch.tensor([1.0, 1])
    maxima = torch.ones(1, 1, 1)
    for weights, lost in (([1.0, 0], 1), ([0, 1.0], 0)):
        found = location_maps(Network(backbone, weights), torch.full((1, 1, 1, 1), 0.5), maxima, 0 * maxima)
        assert found.lost.item() == pytest.approx(lost)


def test_a_sum_with_a_broadcast_map_splits_in_proportion_to_both():
    images, maxima = image([[0.2, 0.6]]), torch.tensor([[[1.0, 0]]])
    found = maps_of(lambda x: x + functional.adaptive_avg_pool2d(x, 1), images, maxima)
    # a third is the cell's own; the mean, 0.4, comes from both in proportion
    np.testing.assert_allclose(found.maps[0, 0], [1 / 3 + 2 / 3 * 0.25, 2 / 3 * 0.75], rtol=1e-5)


def discarded(x):
    """In place, with the result left aside; the short cut sees what became of x."""
    x.relu_()
    return x + nn.functional.relu(x - 0.3, inplace=True)


def test_an_in_place_function_counts_for_all_who_hold_the_tensor():
    def plain(x):
        return torch.relu(x) + torch.relu(torch.relu(x) - 0.3)

    images, maxima = image([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), torch.ones(1, 2, 3)
    torch.testing.assert_close(maps_of(discarded, images, maxima).maps, maps_of(plain, images, maxima).maps)


def test_a_sum_where_neither_is_positive_splits_by_size():
    one, other = torch.tensor([[3.0, -1, 1, 0]]), torch.tensor([[1.0, -3, -5, 0]])
    one.requires_grad_(), other.requires_grad_()
    arrived = torch.tensor([[1.0, 1, 1, 1]])
    handed = torch.autograd.grad(Sum.apply(one, other, one.detach() + other.detach()), (one, other), arrived)
    torch.testing.assert_close(handed[0], torch.tensor([[0.75, 0.25, 1, 0.5]]))
    torch.testing.assert_close(handed[0] + handed[1], arrived)


def test_a_depthwise_convolution_keeps_importance_in_its_window():
    """Where its one channel offers nothing positive, by the sizes of the weights; padding takes nothing."""
    depthwise = nn.Conv2d(2, 2, (1, 3), padding=(0, 1), groups=2, bias=False)
    depthwise.weight.data = torch.tensor([[-1.0, -3.0, -1.0], [0, 0, 0]]).view(2, 1, 1, 3)
    source = torch.ones(1, 2, 1, 3, requires_grad=True)
    ledger = Ledger(1, torch.device("cpu"))

    def applying(weight):
        return lambda activation: functional.conv2d(activation, weight, padding=(0, 1), groups=2)

    weights = Weights(applying(depthwise.weight.detach().clamp(min=0)), applying(depthwise.weight.detach().abs()))
    out = Weighted.apply(source, source.detach(), None, depthwise(source).detach(), weights, ledger)
    (handed,) = torch.autograd.grad(out, source, torch.tensor([[4.0, 5, 0], [0, 1, 0]]).view(1, 2, 1, 3))
    torch.testing.assert_close(handed, torch.tensor([[3.0 + 1, 1 + 3, 1], [0, 0, 0]]).view(1, 2, 1, 3))
    assert ledger.lost.item() == pytest.approx(1)  # weights of 0 reach nobody


class Doubled(torch.autograd.Function):
    """A network's own: it does not pass by torch's functions; its gradient would stand in for importance."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.cumsum(x, 3), "cumsum"),
        (torch.exp, "exp"),
        (lambda x: x - x.flip(3), "flip"),
        (lambda x: x - torch.relu(x), "sub"),
        (lambda x: 1 / x, "div|reciprocal"),
        (lambda x: torch.relu(x) * x, "mul"),
        (lambda x: torch.einsum("nchw->nchw", x), "einsum"),
        (lambda x: x.data, "importance"),
        (lambda x: torch.from_numpy(x.detach().numpy()), "importance"),
        (Doubled.apply, "Doubled"),
        (lambda x: torch.relu(Doubled.apply(x)), "Doubled"),
    ],
)
def test_a_function_without_a_rule_is_named_and_what_leaves_torch_is_refused(function, name):
    maxima = torch.ones(1, 2, 2)
    with pytest.raises(LemlightError, match=name):
        location_maps(Network(Steps(function), [1.0]), torch.rand(1, 1, 2, 2), maxima, 0 * maxima)

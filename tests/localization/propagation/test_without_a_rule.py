"""Functions that importance has no rule for are named and refused: their gradient is none."""

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.localization.excitation_backprop import location_maps
from tests.localization.propagation.by_hand import Network, Steps


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
    ],
)
def test_a_function_without_a_rule_is_named(function, name):
    maxima = torch.ones(1, 2, 2)
    with pytest.raises(LemlightError, match=f"'?({name})"):
        location_maps(Network(Steps(function), [1.0]), torch.rand(1, 1, 2, 2), maxima, 0 * maxima)


@pytest.mark.parametrize("function", [lambda x: x.data, lambda x: torch.from_numpy(x.detach().numpy())])
def test_a_map_that_leaves_torch_s_functions_is_refused(function):
    maxima = torch.ones(1, 2, 2)
    with pytest.raises(LemlightError, match="importance"):
        location_maps(Network(Steps(function), [1.0]), torch.rand(1, 1, 2, 2), maxima, 0 * maxima)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize("function", [Doubled.apply, lambda x: torch.relu(Doubled.apply(x))])
def test_a_network_s_own_autograd_function_is_refused(function):
    """It does not pass by torch's functions; its gradient would stand in for importance."""
    maxima = torch.ones(1, 2, 2)
    with pytest.raises(LemlightError, match="Doubled"):
        location_maps(Network(Steps(function), [1.0]), torch.rand(1, 1, 2, 2), maxima, 0 * maxima)

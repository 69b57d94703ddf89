"""The sparse loss against numbers worked out by hand, and against a loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lemlight.models.lem import Extrema, local_extrema, sparse_loss

# One maximum of -1 (wrong by 1), one minimum of -4 (right), others -1.5, -2, -2.5, -3:
# beyond +-2 they exceed by 0, 0, 0.5, 1.
HAND = torch.tensor([[[-1.0, -1.5, -2.0], [-2.5, -3.0, -4.0]]])


def hand_extrema():
    maxima = torch.tensor([[[True, False, False], [False, False, False]]])
    minima = torch.tensor([[[False, False, False], [False, False, True]]])
    return Extrema(maxima, minima)


def test_the_hand_drawn_map_has_the_extrema_that_the_numbers_assume():
    found = local_extrema(HAND)
    assert torch.equal(found.maxima, hand_extrema().maxima)
    assert torch.equal(found.minima, hand_extrema().minima)


def test_l1_by_hand():
    # elimination 1 + 0, penalty (0 + 0 + 0.5 + 1) / 4 = 0.375
    assert sparse_loss(HAND, hand_extrema(), threshold=2.0).item() == pytest.approx(1 + 3 * 0.375)


def test_l2_by_hand():
    # penalty sqrt((0.25 + 1) / 4)
    loss = sparse_loss(HAND, hand_extrema(), threshold=2.0, norm="l2")
    assert loss.item() == pytest.approx(1 + 3 * math.sqrt(1.25 / 4))


def test_another_penalty_factor_and_a_positive_minimum_by_hand():
    # The negated map: its maximum of 4 is right, its minimum of 1 wrong by 1; the penalty is the same.
    flipped = Extrema(hand_extrema().minima, hand_extrema().maxima)
    assert sparse_loss(-HAND, flipped, threshold=2.0, penalty_factor=0.5).item() == pytest.approx(1 + 0.5 * 0.375)


def test_gradient_by_hand():
    score_map = HAND.clone().requires_grad_()
    sparse_loss(score_map, hand_extrema(), threshold=2.0).backward()
    expected = torch.tensor([[[-1.0, 0.0, 0.0], [-0.75, -0.75, 0.0]]])  # 3 * 1/4 where a cell is beyond the threshold
    assert torch.allclose(score_map.grad, expected)


def test_the_loss_is_the_mean_over_images():
    two = torch.cat([HAND, torch.zeros_like(HAND)])
    alone = sparse_loss(HAND, local_extrema(HAND), threshold=2.0)
    assert sparse_loss(two, local_extrema(two), threshold=2.0).item() == pytest.approx(alone.item() / 2)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 4)])
def test_flat_and_tiny_maps_have_a_finite_loss_and_gradient(norm, shape):
    for value in (0.0, 5.0):
        score_map = torch.full((2, *shape), value, requires_grad=True)
        loss = sparse_loss(score_map, local_extrema(score_map), threshold=1.0, norm=norm)
        loss.backward()
        assert loss.item() == pytest.approx(3 * max(value - 1, 0))
        assert score_map.grad.isfinite().all()


def test_a_map_of_extrema_alone_has_no_penalty():
    score_map = torch.tensor([[[-7.0, 7.0]]])
    assert sparse_loss(score_map, local_extrema(score_map)).item() == 0


def naive_loss(maps, maxima, minima, threshold, factor, order):
    losses = []
    for scores, high, low in zip(maps, maxima, minima, strict=True):
        wrong_high = [max(-s, 0) for s, is_high in zip(scores.flat, high.flat, strict=True) if is_high]
        wrong_low = [max(s, 0) for s, is_low in zip(scores.flat, low.flat, strict=True) if is_low]
        others = [max(abs(s) - threshold, 0) for s, e in zip(scores.flat, (high | low).flat, strict=True) if not e]
        mean = [sum(values) / len(values) if values else 0.0 for values in (wrong_high, wrong_low)]
        power = (sum(v**order for v in others) / len(others)) ** (1 / order) if others else 0.0
        losses.append(sum(mean) + factor * power)
    return sum(losses) / len(losses)


@given(
    maps=hnp.arrays(np.float64, (2, 4, 5), elements=st.integers(-4, 4).map(float)),
    threshold=st.floats(0, 3),
    factor=st.floats(0, 5),
    order=st.sampled_from([1, 2]),
)
@settings(deadline=None, max_examples=50)
def test_equals_a_loop(maps, threshold, factor, order):
    score_map = torch.from_numpy(maps)
    extrema = local_extrema(score_map, ties="all")
    loss = sparse_loss(score_map, extrema, threshold, factor, f"l{order}")
    expected = naive_loss(maps, extrema.maxima.numpy(), extrema.minima.numpy(), threshold, factor, order)
    assert loss.item() == pytest.approx(expected, abs=1e-9)

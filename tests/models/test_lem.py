"""LEM's extrema, aggregates, gradients and sparse loss by hand and against a naive loop over rows and columns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lemlight.models.lem import ROUNDING, Extrema, local_extrema, sparse_loss
from tests.parts import build_pooling

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7))
# Few different integers tie everywhere; floats with many values hardly ever do.
TIED = SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(-2, 2).map(float)))
UNTIED = SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-5, 5), unique=True))


def naive_extrema(maps, ties):
    images, height, width = maps.shape
    maxima, minima = np.zeros(maps.shape, bool), np.zeros(maps.shape, bool)
    for n in range(images):
        rounding = ROUNDING * (maps[n].max() - maps[n].min())
        for i in range(height):
            for j in range(width):
                neighbours = [
                    maps[n, a, b]
                    for a in (i - 1, i, i + 1)
                    for b in (j - 1, j, j + 1)
                    if 0 <= a < height and 0 <= b < width and (a, b) != (i, j)
                ]
                centre = maps[n, i, j]
                if ties == "all":
                    maxima[n, i, j] = all(centre >= other for other in neighbours)
                    minima[n, i, j] = all(centre <= other for other in neighbours)
                else:
                    maxima[n, i, j] = len(neighbours) > 0 and all(centre > other + rounding for other in neighbours)
                    minima[n, i, j] = len(neighbours) > 0 and all(-centre > -other + rounding for other in neighbours)
    return maxima, minima


def naive_lem(maps, ties, aggregate):
    """Logits and the gradient of their sum, cell by cell."""
    maxima, minima = naive_extrema(maps, ties)
    logits, gradient = [], np.zeros(maps.shape)
    for n in range(len(maps)):
        highs, lows = np.argwhere(maxima[n]).tolist(), np.argwhere(minima[n]).tolist()
        if not highs and not lows:
            logits.append(float(maps[n].mean()))
            gradient[n] += 1 / maps[n].size
            continue
        total = 0.0
        for cells in (highs, lows):
            share = 1.0 if aggregate == "sum" else 1 / max(1, len(cells))
            for i, j in cells:
                total += share * maps[n, i, j]
                gradient[n, i, j] += share
        logits.append(total)
    return np.array(logits), gradient


@pytest.mark.parametrize("ties", ["strict", "all"])
@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@given(maps=TIED | UNTIED)
@settings(deadline=None, max_examples=50)
def test_extrema_logits_and_gradients_equal_the_naive_loop(maps, ties, aggregate):
    found = local_extrema(torch.from_numpy(maps), ties)
    assert all(map(np.array_equal, found, naive_extrema(maps, ties)))
    score_map = torch.from_numpy(maps).requires_grad_()
    logit = build_pooling("lem", 4, ties=ties, aggregate=aggregate)(score_map, None, None)
    logit.sum().backward()
    expected, gradient = naive_lem(maps, ties, aggregate)
    np.testing.assert_allclose(logit.detach().numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(score_map.grad.numpy(), gradient, atol=1e-12)


@given(maps=TIED | UNTIED)
@settings(deadline=None, max_examples=30)
def test_flipping_a_map_flips_its_extrema_and_negating_it_swaps_them(maps):
    score_map = torch.from_numpy(maps)
    found = local_extrema(score_map)
    flipped = local_extrema(score_map.flip(2).transpose(1, 2))
    assert torch.equal(flipped.maxima, found.maxima.flip(2).transpose(1, 2))
    negated = local_extrema(-score_map)
    assert torch.equal(negated.maxima, found.minima)
    assert torch.equal(negated.minima, found.maxima)


def test_a_hand_drawn_map_with_a_plateau_a_corner_and_an_edge():
    score_map = torch.tensor(
        [
            [9.0, 1.0, 1.0, 1.0, 5.0],
            [1.0, 1.0, 7.0, 7.0, 1.0],
            [1.0, 1.0, 1.0, 1.0, 1.0],
            [-3.0, 1.0, 1.0, 1.0, 8.0],
        ]
    ).unsqueeze(0)
    found = local_extrema(score_map)
    assert found.maxima[0].nonzero().tolist() == [[0, 0], [3, 4]]  # 7 is a plateau, 5 has a higher neighbour
    assert found.minima[0].nonzero().tolist() == [[3, 0]]
    logit = build_pooling("lem", 1)(score_map, None, None)
    assert logit.item() == pytest.approx((9 + 8) / 2 - 3)


@pytest.mark.parametrize("offset", [0.0, -40.0])
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 10))
@settings(deadline=None, max_examples=30)
def test_two_machines_that_round_differently_find_the_same_extrema_over_air(offset, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    exact = scale * torch.randint(-9, 9, (2, 16, 20), generator=generator).float() + offset * scale
    exact[:, :, 12:] = scale * (0.3 + offset)  # air
    spread = exact.max() - exact.min()
    first, second = (exact + 1e-6 * spread * torch.randn(exact.shape, generator=generator) for _ in range(2))
    found = [local_extrema(score_map) for score_map in (first, second)]
    assert torch.equal(found[0].maxima, found[1].maxima)
    assert torch.equal(found[0].minima, found[1].minima)
    assert not (found[0].maxima | found[0].minima)[:, :, 13:].any()
    assert found[0].maxima.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 5), (4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_map_without_extrema_falls_back_to_gap_with_a_gradient(shape, dtype):
    score_map = torch.full((2, *shape), 0.75, dtype=dtype, requires_grad=True)
    logit = build_pooling("lem", 1)(score_map, None, None)
    assert logit.tolist() == [0.75, 0.75]
    logit.sum().backward()
    assert torch.allclose(score_map.grad.float(), torch.tensor(1 / math.prod(shape)), rtol=1e-2)


def test_one_kind_of_extremum_alone_gives_the_score():
    score_map = torch.zeros(1, 5, 6)
    score_map[0, 2, 3] = 4.0
    assert build_pooling("lem", 1)(score_map, None, None).item() == 4.0
    assert build_pooling("lem", 1)(-score_map, None, None).item() == -4.0


def test_bfloat16_maps_are_decided_on_exactly():
    score_map = torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(1)).bfloat16()
    for half, full in zip(local_extrema(score_map), local_extrema(score_map.double()), strict=True):
        assert torch.equal(half, full)


def test_a_nan_is_not_hidden():
    score_map = torch.randn(1, 5, 5)
    score_map[0, 1, 1] = float("nan")
    assert build_pooling("lem", 1)(score_map, None, None).isnan().all()


# One maximum of -1 (wrong by 1), one minimum of -4 (right), others -1.5, -2, -2.5, -3:
# beyond +-2 they exceed by 0, 0, 0.5, 1.
HAND = torch.tensor([[[-1.0, -1.5, -2.0], [-2.5, -3.0, -4.0]]])


EXTREMA = Extrema(*(torch.tensor([[[i == j for j in (0, 1, 2)], [i == j for j in (3, 4, 5)]]]) for i in (0, 5)))


@pytest.mark.parametrize(
    ("sign", "factor", "norm", "expected"),
    [
        (1, 3.0, "l1", 1 + 3 * 0.375),  # elimination 1 + 0, penalty (0 + 0 + 0.5 + 1) / 4 = 0.375
        (1, 3.0, "l2", 1 + 3 * math.sqrt(1.25 / 4)),  # penalty sqrt((0.25 + 1) / 4)
        (-1, 0.5, "l1", 1 + 0.5 * 0.375),  # the maximum of 4 is right, the minimum of 1 wrong by 1
    ],
)
def test_the_sparse_loss_by_hand(sign, factor, norm, expected):
    assert all(map(torch.equal, local_extrema(HAND), EXTREMA))
    loss = sparse_loss(sign * HAND, Extrema(*EXTREMA[::sign]), threshold=2.0, penalty_factor=factor, norm=norm)
    assert loss.item() == pytest.approx(expected)


def test_gradient_by_hand():
    score_map = HAND.clone().requires_grad_()
    sparse_loss(score_map, EXTREMA, threshold=2.0).backward()
    expected = torch.tensor([[[-1.0, 0.0, 0.0], [-0.75, -0.75, 0.0]]])  # 3 * 1/4 where a cell is beyond the threshold
    assert torch.allclose(score_map.grad, expected)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 4)])
def test_flat_and_tiny_maps_have_a_finite_loss_and_gradient(norm, shape):
    for value in (0.0, 5.0):
        score_map = torch.full((2, *shape), value, requires_grad=True)
        loss = sparse_loss(score_map, local_extrema(score_map), threshold=1.0, norm=norm)
        loss.backward()
        assert loss.item() == pytest.approx(3 * max(value - 1, 0))
        assert score_map.grad.isfinite().all()

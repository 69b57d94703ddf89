"""LEM's extrema, aggregates and gradients against a naive loop over images, rows and columns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lemlight.errors import LemlightError
from lemlight.models.lem import ROUNDING, local_extrema
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
@given(maps=TIED | UNTIED)
@settings(deadline=None, max_examples=50)
def test_extrema_equal_the_naive_loop(maps, ties):
    found = local_extrema(torch.from_numpy(maps), ties)
    maxima, minima = naive_extrema(maps, ties)
    assert np.array_equal(found.maxima.numpy(), maxima)
    assert np.array_equal(found.minima.numpy(), minima)


@pytest.mark.parametrize("ties", ["strict", "all"])
@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@given(maps=TIED | UNTIED)
@settings(deadline=None, max_examples=50)
def test_logits_and_gradients_equal_the_naive_loop(maps, ties, aggregate):
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


def test_a_half_constant_map_votes_with_its_other_half_alone():
    score_map = torch.randn(1, 25, 25, generator=torch.Generator().manual_seed(0))
    score_map[:, :, 13:] = 0.25
    strict, literal = local_extrema(score_map), local_extrema(score_map, ties="all")
    assert strict.maxima[:, :, 13:].sum() == 0
    assert strict.minima[:, :, 13:].sum() == 0
    assert literal.maxima.sum() > 300
    assert strict.maxima.sum() < 75


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


def test_a_map_of_two_cells_has_one_maximum_and_one_minimum():
    found = local_extrema(torch.tensor([[[1.0, 2.0]]]))
    assert found.maxima.tolist() == [[[False, True]]]
    assert found.minima.tolist() == [[[True, False]]]


def test_bfloat16_maps_are_decided_on_exactly():
    score_map = torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(1)).bfloat16()
    for half, full in zip(local_extrema(score_map), local_extrema(score_map.double()), strict=True):
        assert torch.equal(half, full)


def test_a_nan_is_not_hidden():
    score_map = torch.randn(1, 5, 5)
    score_map[0, 1, 1] = float("nan")
    assert build_pooling("lem", 1)(score_map, None, None).isnan().all()


def test_gradcheck_in_float64():
    score_map = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    pooling = build_pooling("lem", 1, norm="l2", threshold=0.3)
    assert torch.autograd.gradcheck(lambda s: pooling(s, None, None), score_map)
    assert torch.autograd.gradcheck(pooling.regularizer, score_map)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ties": "once"}, "ties=once: must be 'strict' or 'all'"),
        ({"aggregate": "max"}, "aggregate=max: must be 'mean' or 'sum'"),
        ({"threshold": -1.0, "norm": "l3"}, r"threshold=-1.0: must be greater.*; norm=l3: must be 'l1' or 'l2'"),
        ({"penalty_factor": float("nan")}, "penalty_factor=nan"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(LemlightError, match=message):
        build_pooling("lem", 1, **options)

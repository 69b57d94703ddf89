"""Which extrema are followed: kind, strength, bias, maps without any."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lemlight.errors import LemlightError
from lemlight.localization.attribution import FOLLOW, extremum_points, pack_selections, select_extrema
from lemlight.models.lem import Extrema

# mean 0; maxima 8, 4, 2 and -0.5, minima -8, -4, -1.5 and 0.5 (each in a corner or ringed by values between)
DRAWN = torch.tensor(
    [
        [8.0, 0, 2, 0, -8],
        [0, 0, 0, 0, 0],
        [4, 0, 0, 0, -4],
        [-1, -1, -1, 1, 1],
        [-1, -0.5, -1, 1, 0.5],
        [-1.5, -1, -1, 1, 1],
    ]
)
DRAWN = DRAWN - DRAWN.mean()
MALIGNANT, BENIGN = torch.tensor([0.9]), torch.tensor([0.1])


def cells(mask):
    return [tuple(cell) for cell in torch.nonzero(mask[0]).tolist()]


def test_the_share_of_the_strongest_drawn_by_hand():
    def kept(keep):
        maxima, minima = select_extrema(DRAWN[None], MALIGNANT, follow="both", keep=keep)
        return cells(maxima), cells(minima)

    assert kept(1.0) == ([(0, 0)], [(0, 4)])
    assert kept(0.45) == ([(0, 0), (2, 0)], [(0, 4), (2, 4)])
    # the maximum of -0.5 and the minimum of 0.5 stand on the wrong side of the mean
    assert kept(0.0) == ([(0, 0), (0, 2), (2, 0)], [(0, 4), (2, 4), (5, 0)])


@pytest.mark.parametrize(
    ("follow", "probability", "uses_maxima", "uses_minima"),
    [
        ("predicted", 0.51, True, False),
        ("predicted", 0.5, False, True),
        ("predicted", 0.1, False, True),
        ("maxima", 0.1, True, False),
        ("minima", 0.9, False, True),
        ("both", 0.1, True, True),
    ],
)
def test_what_is_followed(follow, probability, uses_maxima, uses_minima):
    maxima, minima = select_extrema(DRAWN[None], torch.tensor([probability]), follow=follow, keep=0.5)
    assert maxima.dtype == minima.dtype == torch.bool
    assert (bool(maxima.any()), bool(minima.any())) == (uses_maxima, uses_minima)


def test_another_threshold_of_the_prediction():
    chosen = [
        select_extrema(DRAWN[None], torch.tensor([0.3]), follow="predicted", keep=1, threshold=threshold)
        for threshold in (0.2, 0.5)
    ]
    assert [bool(extrema.maxima.any()) for extrema in chosen] == [True, False]


def test_each_image_is_judged_by_itself():
    maps = torch.stack([DRAWN, 0.01 * DRAWN, -DRAWN])
    maxima, minima = select_extrema(maps, torch.tensor([0.9, 0.2, 0.7]), follow="predicted", keep=1.0)
    assert torch.nonzero(maxima).tolist() == [[0, 0, 0], [2, 0, 4]]
    assert torch.nonzero(minima).tolist() == [[1, 0, 4]]


@pytest.mark.parametrize("follow", FOLLOW)
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (3, 4)])
def test_a_flat_map_gives_none(follow, shape):
    maxima, minima = select_extrema(torch.full((1, *shape), -3.0), MALIGNANT, follow=follow, keep=0.0)
    assert not maxima.any()
    assert not minima.any()
    # with the literal equations every cell is an extremum, but none is stronger than the mean
    every = select_extrema(torch.full((1, *shape), -3.0), MALIGNANT, follow="both", keep=0.0, ties="all")
    assert not every.maxima.any()
    assert not every.minima.any()


def test_ties_are_the_rule_of_local_extrema():
    plateau = torch.tensor([[[0.0, 0, 0, 0], [0, 3, 3, 0], [0, 0, 0, 0]]])
    assert not select_extrema(plateau, MALIGNANT, follow="maxima", keep=1.0).maxima.any()
    assert cells(select_extrema(plateau, MALIGNANT, follow="maxima", keep=1.0, ties="all").maxima) == [(1, 1), (1, 2)]


MAPS = st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 7)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(-8, 8).map(float))
)


@settings(deadline=None, max_examples=100)
@given(MAPS, st.floats(0, 1), st.sampled_from([-64.0, 3.0, 128.0]))
def test_a_bias_changes_nothing_and_a_smaller_share_only_adds(maps, keep, bias):
    score_map, probability = torch.from_numpy(maps), torch.tensor([0.2, 0.8])
    chosen = select_extrema(score_map, probability, follow="both", keep=keep)
    # shares right at the cut-off may fall either way by rounding: a hair on both sides of it bounds the answer
    lower = select_extrema(score_map + bias, probability, follow="both", keep=max(0.0, keep - 1e-9))
    upper = select_extrema(score_map + bias, probability, follow="both", keep=min(1.0, keep + 1e-9))
    for kind in range(2):
        assert not (chosen[kind] & ~lower[kind]).any()
        # of equally strong ones rounding may leave one at a share of 1, not at any other
        assert keep > 1 - 1e-8 or not (upper[kind] & ~chosen[kind]).any()
    # maxima of the negated map are the minima of the map
    mirrored = select_extrema(-score_map, probability, follow="both", keep=keep)
    assert torch.equal(mirrored.maxima, chosen.minima)
    everything = select_extrema(score_map, probability, follow="both", keep=0.0)
    assert not (chosen.maxima & ~everything.maxima).any()
    assert bool(everything.maxima.any()) == bool(chosen.maxima.any())


def test_half_precision_scores_are_judged_in_float32():
    maxima, _ = select_extrema(DRAWN[None].bfloat16(), MALIGNANT, follow="maxima", keep=0.45)
    assert cells(maxima) == [(0, 0), (2, 0)]


def test_extrema_as_points_of_the_prepared_image():
    marked = torch.zeros(3, 4, dtype=torch.bool)
    marked[0, 3] = marked[2, 0] = True
    # cells of 32 x 16 px: the centre of the first lies between px 15 and 16, and between px 7 and 8
    np.testing.assert_allclose(extremum_points(marked, (96, 64)), [[55.5, 15.5], [7.5, 79.5]])
    assert extremum_points(marked & False, (96, 64)).shape == (0, 2)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(LemlightError, match=r"follow must be one of .*'maximum'; keep .* got 1.5"):
        select_extrema(DRAWN[None], MALIGNANT, follow="maximum", keep=1.5)
    with pytest.raises(LemlightError, match=r"shapes \(N, h, w\) and \(N,\), got \(1, 6, 5\) and \(2,\)"):
        select_extrema(DRAWN[None], torch.zeros(2), follow="both", keep=float(1))
    with pytest.raises(LemlightError, match="keep"):
        select_extrema(DRAWN[None], MALIGNANT, follow="both", keep=float("nan"))


@settings(deadline=None)
@given(hnp.arrays(bool, (4, 3, 2, 1, 2)))
def test_packed_selections_hold_every_given_one_and_no_image_has_one_twice(drawn):
    given_ones = [Extrema(torch.from_numpy(one[:, 0]), torch.from_numpy(one[:, 1])) for one in drawn]
    packed, places = pack_selections(given_ones)
    distinct = [{one[image].tobytes() for one in drawn} for image in range(3)]
    assert len(packed) == max(len(ones) for ones in distinct)
    for one, where in zip(given_ones, places, strict=True):
        for image, place in enumerate(where):
            assert torch.equal(one.maxima[image], packed[place].maxima[image])
            assert torch.equal(one.minima[image], packed[place].minima[image])
    for image, ones in enumerate(distinct):
        assert set(places[:, image].tolist()) == set(range(len(ones)))


def test_selections_are_packed_by_hand():
    one, other, nothing = (torch.tensor(cells, dtype=torch.bool)[:, None] for cells in ([[1, 0]], [[0, 1]], [[0, 0]]))
    all_of_them = [Extrema(kind, nothing) for kind in (one, one, other, one)]
    packed, places = pack_selections(all_of_them)
    assert places.tolist() == [[0], [0], [1], [0]]
    assert [selection.maxima.tolist() for selection in packed] == [one.tolist(), other.tolist()]

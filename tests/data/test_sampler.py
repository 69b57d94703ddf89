import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.data.datamodule import EvalSampler, TrainSampler

shards = given(length=st.integers(0, 40), world_size=st.integers(1, 5))


@settings(deadline=None, max_examples=50)
@shards
def test_train_ranks_are_equal_and_cover_everything_once_but_for_the_padding(length, world_size):
    pairs = [list(TrainSampler(length, 0, rank, world_size)) for rank in range(world_size)]
    assert {len(rank) for rank in pairs} == {-(-length // world_size)}
    indices = sorted(index for rank in pairs for index, _ in rank)
    assert set(indices) == set(range(length))
    padding = -length % world_size if length else 0
    assert len(indices) == length + padding


@settings(deadline=None, max_examples=50)
@shards
def test_eval_ranks_keep_the_order_and_pad_with_duplicates(length, world_size):
    ranks = [list(EvalSampler(length, rank, world_size)) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {-(-length // world_size)}
    in_turn = [index for step in zip(*ranks, strict=True) for index in step]
    assert in_turn[:length] == list(range(length))
    assert all(index < length for index in in_turn)


def epoch_of(epoch, seed=0, length=20):
    sampler = TrainSampler(length, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_seed_and_epoch_decide_order_and_seeds():
    assert epoch_of(3) == epoch_of(3)
    different = [epoch_of(0), epoch_of(1), epoch_of(0, seed=1), epoch_of(1, seed=1)]
    for one in range(4):
        for other in range(one):
            assert [index for index, _ in different[one]] != [index for index, _ in different[other]]
            assert not {seed for _, seed in different[one]} & {seed for _, seed in different[other]}


def test_padding_repeats_an_image_with_another_seed():
    pairs = [pair for rank in range(3) for pair in TrainSampler(4, 0, rank, 3)]
    assert len({seed for _, seed in pairs}) == 6
    assert len({index for index, _ in pairs}) == 4


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_order_over_all_ranks_does_not_depend_on_their_number(world_size):
    ranks = [list(TrainSampler(8, 5, rank, world_size)) for rank in range(world_size)]
    assert [pair for step in zip(*ranks, strict=True) for pair in step] == list(TrainSampler(8, 5))

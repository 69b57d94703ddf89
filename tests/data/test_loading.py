"""The order of images and of breasts: seeds, ranks, whole breasts in batches; and how a batch gets to the device."""

from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.data import loading
from lemlight.data.loading import EvalBags, TrainBags, TrainSampler, in_turn, pack, views_of

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
    ranks = [in_turn(length, rank, world_size) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {-(-length // world_size)}
    order = [index for step in zip(*ranks, strict=True) for index in step]
    assert order[:length] == list(range(length))
    assert all(index < length for index in order)


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


sizes = st.lists(st.integers(1, 7), min_size=1, max_size=30)


def bags_of(sizes):
    return views_of([number for number, size in enumerate(sizes) for _ in range(size)])


@settings(deadline=None, max_examples=100)
@given(sizes=sizes, most=st.integers(7, 12))
def test_a_bag_goes_into_the_first_batch_with_room(sizes, most):
    free, expected = [], []
    for place, size in enumerate(sizes):
        number = next((n for n, room in enumerate(free) if room >= size), len(free))
        if number == len(free):
            free.append(most)
            expected.append([])
        free[number] -= size
        expected[number].append(place)
    assert pack(sizes, most) == expected


@settings(deadline=None, max_examples=50)
@given(sizes=sizes, most=st.integers(7, 12), world_size=st.integers(1, 3), epoch=st.integers(0, 2))
def test_every_epoch_has_as_many_batches_of_whole_bags_on_every_rank(sizes, most, world_size, epoch):
    bags = bags_of(sizes)
    ranks = [TrainBags(bags, most, 4, rank, world_size) for rank in range(world_size)]
    for rank in ranks:
        rank.sampler.set_epoch(epoch)
    assert {len(list(rank)) for rank in ranks} == {len(ranks[0])}
    batches = [batch for step in zip(*ranks, strict=True) for batch in step]
    seen = Counter()
    for batch in batches:
        assert len(batch) <= most
        views = [view for view, _ in batch]
        whole = [bag for bag in bags if bag[0] in views]
        assert sorted(views) == sorted(view for bag in whole for view in bag)
        places = [views.index(bag[0]) for bag in whole]
        assert all(views[place : place + len(bag)] == bag for place, bag in zip(places, whole, strict=True))
        seen.update(views)
    own = batches[: len(ranks[0].batches)]
    left_out = sum(sizes) - sum(map(len, own))
    assert left_out <= 1  # a batch of one image
    assert len({view for batch in own for view, _ in batch}) == sum(sizes) - left_out
    assert len({seed for batch in batches for _, seed in batch}) == sum(map(len, batches))
    evaluated = [list(EvalBags(bags, most, rank, world_size)) for rank in range(world_size)]
    order = [view for step in zip(*evaluated, strict=True) for batch in step for view in batch]
    assert set(order) == set(range(sum(sizes)))


@pytest.mark.parametrize("length", [1, 8, 9, 11])
def test_bags_of_one_view_come_as_images_do(length):
    for epoch in range(2):
        bags, images = TrainBags(bags_of([1] * length), 4, 5), TrainSampler(length, 5)
        for sampler in (bags, images):
            sampler.set_epoch(epoch)
        pairs = list(images)
        if length == 9:  # the last batch of one image is dropped by the loader
            pairs = pairs[:8]
        assert [pair for batch in bags for pair in batch] == pairs
        assert all(len(batch) == 4 for batch in list(bags)[:-1])


def test_which_bag_stands_where_is_drawn_anew_in_every_epoch():
    sampler = TrainBags(bags_of([1, 2, 2, 2, 2, 3, 4]), 6, 0)
    orders = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert list(map(len, batches)) == [len(batch) for batch in TrainBags(bags_of([1, 2, 2, 2, 2, 3, 4]), 6, 0)]
        orders.append(str([[view for view, _ in batch] for batch in batches]))
    assert len(set(orders)) > 3


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_next_batch_is_copied_before_one_is_handed_on(count, monkeypatch):
    copied, stream = [], SimpleNamespace(record_event=lambda: copied.append(len(copied)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(loading, "_arrived", lambda batch, event: batch | {"copied": len(copied)})
    batches = [{"image": torch.full((1,), number)} for number in range(count)]
    found = list(loading._copied_ahead(iter(batches), torch.device("cpu")))
    assert [int(batch["image"]) for batch in found] == list(range(count))
    assert [batch["copied"] for batch in found] == [min(number + 2, count) for number in range(count)]

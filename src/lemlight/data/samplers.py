"""In which order a split is read: image by image, or in batches of whole breasts."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from torch.utils.data import Sampler

from lemlight.errors import LemlightError


class TrainSampler(Sampler[tuple[int, int]]):
    """Yields (index, augmentation seed) in an order that (seed, epoch, position) alone decide.

    Every rank gets `ceil(length / world_size)` pairs; the last positions repeat the first images with other seeds.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.length)
        total = len(self) * self.world_size
        seeds = generator.integers(2**31, size=total)
        for position in range(self.rank, total, self.world_size):
            yield int(order[position % self.length]), int(seeds[position])


class EvalSampler(Sampler[int]):
    """Yields every `world_size`-th index in order; the last ones repeat the first, so that ranks are equal.

    The consumer removes the repeated ones by their index.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.rank, self.world_size = length, rank, world_size

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[int]:
        for position in range(self.rank, len(self) * self.world_size, self.world_size):
            yield position % self.length


def breasts(table: pd.DataFrame) -> "pd.Series[int]":
    """Number the breasts (patient and laterality) of an image table, from 0 on; without a side an image is its own."""
    sides = table["laterality"]
    names = table["patient_id"] + "/" + sides.where(sides.ne(""), "image " + table.index.astype(str))
    return pd.Series(pd.factorize(names)[0], index=table.index)


def views_of(bag: Sequence[int]) -> list[list[int]]:
    """The positions of the views of each bag, by the number of the bag of every position; bags as they first appear."""
    views: dict[int, list[int]] = defaultdict(list)
    for position, number in enumerate(bag):
        views[number].append(position)
    return list(views.values())


def pack(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Put bags of `sizes` views, by their places, into batches of at most `most` views: each into the first with room.

    Raises:
        LemlightError: a bag is larger than a batch.
    """
    if max(sizes) > most:
        raise LemlightError(
            f"level=breast: a breast has {max(sizes)} views, and batch_size={most} images must hold whole breasts: "
            f"set batch_size={max(sizes)} or more"
        )
    batches: list[list[int]] = []
    room: dict[int, int] = {}  # of the batches that are not full
    for place, size in enumerate(sizes):
        number = next((number for number, free in room.items() if free >= size), len(batches))
        if number == len(batches):
            batches.append([])
        batches[number].append(place)
        room[number] = room.get(number, most) - size
        if not room[number]:
            del room[number]
    return batches


class TrainBags(Sampler[list[tuple[int, int]]]):
    """Yields batches of whole bags as (index, augmentation seed), in an order that (seed, epoch) alone decide.

    How many views the bag at each place has is the same in every epoch, so that these have the same number of batches;
    which one it is, is drawn. Bags of one view each come as from `TrainSampler`. A batch of one image, which BatchNorm
    cannot take, is left out if there are others. Every rank gets as many batches; the last ones repeat the first.
    `bags` are the positions of the views of each, `images` the most that a batch holds.
    """

    def __init__(
        self, bags: Sequence[Sequence[int]], images: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.bags, self.seed, self.rank, self.world_size = bags, seed, rank, world_size
        self.sizes = [len(bags[number]) for number in np.random.default_rng(seed).permutation(len(bags))]
        batches = pack(self.sizes, images)
        several = [batch for batch in batches if sum(self.sizes[place] for place in batch) > 1]
        self.batches = several if several and images > 1 else batches
        self.sampler, self.epoch = self, 0  # Lightning looks for set_epoch there

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.batches) // self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn: dict[int, list[int]] = defaultdict(list)
        for number in generator.permutation(len(self.bags)):
            drawn[len(self.bags[number])].append(int(number))
        chosen = [self.bags[drawn[size].pop(0)] for size in self.sizes]
        total = len(self) * self.world_size
        dealt = [
            [view for place in self.batches[n % len(self.batches)] for view in chosen[place]] for n in range(total)
        ]
        seeds = iter(generator.integers(2**31, size=sum(map(len, dealt))).tolist())
        seeded = [[(view, next(seeds)) for view in batch] for batch in dealt]
        yield from seeded[self.rank :: self.world_size]


class EvalBags(Sampler[list[int]]):
    """Yields batches of whole bags in order; the last ones repeat the first, so that ranks are equal."""

    def __init__(self, bags: Sequence[Sequence[int]], images: int, rank: int = 0, world_size: int = 1) -> None:
        places = pack([len(bag) for bag in bags], images)
        self.batches = [[view for place in batch for view in bags[place]] for batch in places]
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return -(-len(self.batches) // self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.rank, len(self) * self.world_size, self.world_size):
            yield self.batches[number % len(self.batches)]

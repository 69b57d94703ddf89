"""Samplers that shard by rank themselves and carry the randomness of a run: nothing depends on the workers."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


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

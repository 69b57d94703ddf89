"""How a split becomes batches: in which order it is read, image by image or in whole breasts, and by which workers."""

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from lemlight.errors import LemlightError

Batch = dict[str, Tensor]


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


def in_turn(length: int, rank: int = 0, world_size: int = 1) -> list[int]:
    """Give every `world_size`-th index in order; the last ones repeat the first, so that ranks are equal.

    The consumer removes the repeated ones by their index.
    """
    total = -(-length // world_size) * world_size
    return [position % length for position in range(rank, total, world_size)]


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
        batches = [[view for place in batch for view in bags[place]] for batch in pack([*map(len, bags)], images)]
        self.batches = [batches[number] for number in in_turn(len(batches), rank, world_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


SHM = "/dev/shm"  # where PyTorch shares what workers read; 64 MB in a container of Docker
MORE_SHM = "give the container --shm-size=8g or --ipc=host, or set workers=0"
PREFETCH = 2  # batches that each worker reads ahead, PyTorch's own number
PATIENCE = 300  # s without a batch
PATIENCE_WITH_PARENT = 30  # s that a worker lives after a SIGTERM, unless the parent ends it


def rank_and_world_size() -> tuple[int, int]:
    """Give the number of this process and that of all, of a distributed run."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def that_fit(workers: int, batch: int) -> tuple[int, int, str]:
    """Give the workers, and the batches that each reads ahead, for which there is shared memory; fewer in a sentence.

    `batch` is the size of one in bytes.
    """
    room = _free_shared_memory() // (2 * rank_and_world_size()[1] * batch) - 1  # one is in use; two loaders share
    if not workers or room >= workers * PREFETCH:
        return workers, PREFETCH, ""
    fit = max(0, min(workers, room))
    how = f"{fit} of {workers} workers, a batch ahead" if fit else "no worker"
    return fit, 1, f"{SHM} has room for few batches of {batch / 2**20:.0f} MB: {how}; {MORE_SHM}"


def _free_shared_memory() -> int:
    """Bytes; endless where the system has no such folder (macOS)."""
    return shutil.disk_usage(SHM).free if os.path.isdir(SHM) else 2**62


def load(
    dataset: Dataset[Batch], workers: int, ahead: int, seed: int, start: str | None, device: torch.device, **order: Any
) -> DataLoader[Batch]:
    """Read a data set, which gives whole batches, by workers that begin with the method `start`, on to the device.

    `order` is a sampler with its batch_size, or a batch_sampler.
    """
    loader = _Loader(
        dataset,
        **order,
        collate_fn=_as_read,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        timeout=PATIENCE if workers else 0,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=start if workers else None,
        generator=torch.Generator().manual_seed(seed),  # the global generator is left as it is
    )
    loader.device = device
    return loader


def _as_read(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """Keep OpenCV from starting threads in every worker, and let the parent end it: a signal to all comes here, too.

    Workers that die first are an error in the parent, which has the last checkpoint to write and a sentence to say.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE_WITH_PARENT))


class _Loader(DataLoader[Batch]):
    """A loader whose workers end with a sentence where they give nothing for minutes, or die; see `_copied_ahead`."""

    device = torch.device("cpu")

    def __iter__(self) -> Any:
        batches = super().__iter__()
        explained = _explained(batches) if self.num_workers else batches
        return _copied_ahead(explained, self.device) if self.device.type == "cuda" else explained


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy a batch to the GPU on a stream of its own while the network works on those before."""
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # in torch itself
    waiting: list[tuple[Batch, torch.cuda.Event]] = []
    for batch in batches:
        with torch.cuda.stream(copying):
            there = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
            waiting.append((there, copying.record_event()))
        if len(waiting) > 1:
            yield _arrived(*waiting.pop(0))
    yield from (_arrived(*pair) for pair in waiting)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Let what is asked of the GPU from now on wait for the copy, and keep its memory until that has been done."""
    stream = torch.cuda.current_stream(next(iter(batch.values())).device)
    stream.wait_event(copied)
    for values in batch.values():
        values.record_stream(stream)
    return batch


def _explained(batches: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise LemlightError(
            f"the workers that read batches have died, or gave none for {PATIENCE // 60} minutes, for want of shared "
            f"memory ({SHM}) as a rule: {MORE_SHM}; a disk that stands still does that, too"
        ) from error

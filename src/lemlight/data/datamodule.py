"""Samplers that shard by rank themselves and carry the randomness of a run: nothing depends on the workers."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from lemlight.data.augment import AugmentSettings, build_augmentation
from lemlight.data.table import first_ten
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


Key = int | tuple[int, int]
Batch = dict[str, Tensor]
TO_UNIT = np.float32(1 / 65535)  # uint16 of the store -> [0, 1]


def unit_range(images: Tensor) -> Tensor:
    """Bring images of a batch, uint16 as stored or already float32 in [0, 1], to float32 in [0, 1]."""
    return images if images.is_floating_point() else images.float().mul_(float(TO_UNIT))


class Store(Protocol):
    """What the data set needs of a prepared store."""

    @property
    def image_ids(self) -> list[str]:
        """The images it holds."""

    def index_of(self, image_id: str) -> int:
        """Position of an image in the store."""

    def image(self, i: int) -> NDArray[np.uint16]:
        """Pixels (H, W)."""

    def mask(self, i: int) -> NDArray[np.uint8] | None:
        """Lesions (H, W), 0 where there is none; None where unknown."""


class MammogramDataset(Dataset[Batch]):
    """Rows of a table as batches; a key is a position in `rows`, or (position, augmentation seed).

    A batch holds image (N, 1, H, W), label (N,) float32, mask (N, 1, H, W) uint8 of 0 and 1 (0 where unknown),
    has_mask (N,) bool, index (N,) int64 = row of the table. A key without a seed is not augmented. Images are float32
    in [0, 1] where the data set augments, else uint16 as stored, half the bytes; `unit_range` takes both.
    """

    def __init__(
        self, table: pd.DataFrame, rows: Sequence[int], store: Store, augment: AugmentSettings | None = None
    ) -> None:
        chosen = table.iloc[list(rows)]
        self.store = store
        self.rows = torch.as_tensor(list(rows), dtype=torch.int64)
        self.labels = torch.as_tensor(chosen["label"].tolist(), dtype=torch.float32)
        self.places = [store.index_of(image_id) for image_id in chosen["image_id"]]
        self.augments = augment is not None
        self.augmentation = build_augmentation(augment)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: Key) -> Batch:
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Read a whole batch straight into its tensors: no copy per image, no stacking."""
        positions = [key if isinstance(key, int) else key[0] for key in keys]
        has_mask = np.zeros(len(keys), dtype=bool)
        images = masks = None
        for n, (key, position) in enumerate(zip(keys, positions, strict=True)):
            pixels, mask = self.store.image(self.places[position]), self.store.mask(self.places[position])
            if images is None or masks is None:
                images = np.empty((len(keys), 1, *pixels.shape), dtype=np.float32 if self.augments else np.uint16)
                masks = np.zeros((len(keys), 1, *pixels.shape), dtype=np.uint8)
            if mask is not None:
                np.not_equal(mask, 0, out=masks[n, 0].view(np.bool_))
                has_mask[n] = True
            if not self.augments:
                images[n, 0] = pixels
                continue
            np.multiply(pixels, TO_UNIT, out=images[n, 0])
            if not isinstance(key, int):
                images[n, 0], masks[n, 0] = self.augmentation(images[n, 0], masks[n, 0], key[1])
        arrays: dict[str, Any] = {"image": images, "mask": masks, "has_mask": has_mask}
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return batch | {"label": self.labels[positions], "index": self.rows[positions]}


def drop_left_out(table: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Keep the rows whose image is in the store, numbered anew; LemlightError if none is."""
    kept = table[table["image_id"].isin(store.image_ids)].reset_index(drop=True)
    if kept.empty:
        raise LemlightError(
            f"none of the {len(table)} images of the table is in the prepared store: see its list of those left out"
        )
    return kept


def _as_read(batch: Any) -> Any:
    """Hand on what `MammogramDataset.__getitems__` already read as a batch."""
    return batch


def _one_thread(worker: int) -> None:
    """Keep OpenCV from starting threads in every worker: the workers are the parallelism."""
    cv2.setNumThreads(0)


class MammogramData(LightningDataModule):
    """Batches of a split table; the Trainer runs with use_distributed_sampler=False, ranks are sharded here.

    Train shuffles and augments by (seed, epoch, position); val and test keep the order of the table and are not
    augmented. Train drops a last batch of a single image, which BatchNorm cannot take, and nothing else.
    `start_method` is how workers start: fork, forkserver, spawn, or None for Python's default.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        store: Store,
        batch_size: int,
        workers: int = 0,
        augment: AugmentSettings | None = None,
        seed: int = 0,
        start_method: str | None = None,
    ) -> None:
        super().__init__()
        absent = table.loc[~table["image_id"].isin(store.image_ids), "image_id"]
        if len(absent):
            raise LemlightError(
                f"{len(absent)} images are not in the prepared store: {first_ten(absent)}; prepare again"
            )
        self.table = table.reset_index(drop=True)
        self.store, self.batch_size, self.workers = store, batch_size, workers
        self.augment, self.seed, self.start_method = augment, seed, start_method
        self.first_epoch = 0

    def start_at(self, epoch: int) -> None:
        """Begin with this epoch: a worker asks for its first keys before Lightning has named the epoch."""
        self.first_epoch = epoch

    def dataset(self, split: str, augment: AugmentSettings | None = None) -> MammogramDataset:
        """Give one split as a data set; LemlightError if it is empty."""
        rows = np.flatnonzero(self.table["split"] == split)
        if not len(rows):
            raise LemlightError(f"the {split} split holds no image: change dataset.split, or see the images left out")
        return MammogramDataset(self.table, rows.tolist(), self.store, augment)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches in an order of their own in every epoch."""
        dataset = self.dataset("train", self.augment)
        rank, world_size = _rank_and_world_size()
        sampler = TrainSampler(len(dataset), self.seed, rank, world_size)
        sampler.set_epoch(self.first_epoch)
        single = len(sampler) > self.batch_size > 1 and len(sampler) % self.batch_size == 1
        return self._loader(dataset, sampler, drop_last=single)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the val split in the order of the table."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split in the order of the table."""
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> DataLoader[Batch]:
        """Batches of any split in the order of the table, not augmented."""
        dataset = self.dataset(split)
        return self._loader(dataset, EvalSampler(len(dataset), *_rank_and_world_size()), drop_last=False)

    def _loader(self, dataset: MammogramDataset, sampler: Any, drop_last: bool) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=_as_read,
            num_workers=self.workers,
            worker_init_fn=_one_thread,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=self.start_method if self.workers else None,
            generator=torch.Generator().manual_seed(self.seed),  # the global generator is left as it is
        )


def _rank_and_world_size() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1

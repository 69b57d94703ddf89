"""The LightningDataModule: a table with its splits and a prepared store become train, val and test batches."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from pytorch_lightning import LightningDataModule
from torch import distributed
from torch.utils.data import DataLoader

from lemlight.data.augment import AugmentSettings
from lemlight.data.dataset import Batch, MammogramDataset, Store
from lemlight.data.sampler import EvalSampler, TrainSampler
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError


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

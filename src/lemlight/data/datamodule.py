"""The LightningDataModule: files -> image table -> splits -> prepared store -> batches; see docs/own/dataset.md."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lemlight.building import BESIDE, TARGET, build
from lemlight.data.augment import FULL, Augmentation
from lemlight.data.loading import (
    Batch,
    EvalBags,
    TrainBags,
    TrainSampler,
    breasts,
    in_turn,
    load,
    rank_and_world_size,
    that_fit,
    views_of,
)
from lemlight.data.preparing.store import LEFT_OUT, PreparedStore, PrepareSettings, prepare
from lemlight.data.splits import LeakReport, leak_report, split_table
from lemlight.data.table import check_table, first_ten
from lemlight.errors import LemlightError
from lemlight.files import cores, write_csv, write_json

say = rank_zero_only(print)  # once, whatever the number of devices

Key = int | tuple[int, int]


def unit_range(images: Tensor) -> Tensor:
    """Bring images of a batch, uint16 as stored or already float32 in [0, 1], to float32 in [0, 1]."""
    return images if images.is_floating_point() else images.float().mul_(1 / FULL)


class MammogramDataset(Dataset[Batch]):
    """Rows of a table as batches; a key is a position in `rows`, or (position, augmentation seed).

    A batch holds image (N, 1, H, W) uint16 as stored, label (N,) float32 and index (N,) int64 = row of the table. Keys
    with a seed are augmented, and the batch holds seed (N,) int64, too. With the number of the `bag` of each row it
    holds bag (N,) int64, from 0 on as they appear, and label (B,) of the bags: malignant if any of its views is.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        rows: Sequence[int],
        store: PreparedStore,
        augmentation: Augmentation | None = None,
        bag: Sequence[int] | None = None,
    ) -> None:
        chosen = table.iloc[list(rows)]
        self.store = store
        self.rows = torch.as_tensor(list(rows), dtype=torch.int64)
        self.labels = torch.as_tensor(chosen["label"].tolist(), dtype=torch.float32)
        self.places = [store.index_of(image_id) for image_id in chosen["image_id"]]
        self.augmentation, self.bag = augmentation, bag

    @property
    def bytes_of_an_image(self) -> int:
        """Bytes of one image in a batch."""
        return self.store.image(self.places[0]).nbytes

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: Key) -> Batch:
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Read a whole batch straight into its tensors: no copy per image, no stacking."""
        positions = [key if isinstance(key, int) else key[0] for key in keys]
        seeds = [key[1] for key in keys if not isinstance(key, int)] if self.augmentation is not None else []
        batch = self._read(positions, seeds) | {"label": self.labels[positions], "index": self.rows[positions]}
        if self.bag is not None:
            bag = torch.from_numpy(pd.factorize(np.array([self.bag[position] for position in positions]))[0])
            label = torch.zeros(int(bag.max()) + 1).scatter_reduce(0, bag, batch["label"], "amax")
            batch |= {"bag": bag, "label": label}
        return batch

    def _read(self, positions: Sequence[int], seeds: Sequence[int]) -> Batch:
        shape = self.store.image(self.places[positions[0]]).shape
        images = np.empty((len(positions), 1, *shape), np.uint16)
        for n, position in enumerate(positions):
            pixels = self.store.image(self.places[position])
            images[n, 0] = self._augmented(pixels, seeds[n]) if seeds else pixels
        return {"image": torch.from_numpy(images)} | ({"seed": torch.tensor(seeds)} if seeds else {})

    def _augmented(self, pixels: NDArray[np.uint16], seed: int) -> NDArray[np.uint16]:
        assert self.augmentation is not None
        image = self.augmentation(pixels, seed)
        if image.dtype != np.uint16 or image.shape != pixels.shape:
            raise LemlightError(
                f"{type(self.augmentation).__name__} made {image.dtype} {image.shape} of an image of uint16 "
                f"{pixels.shape}: an augmentation keeps both; float32 is for its on_device (lemlight.data.augment)"
            )
        return image


def drop_left_out(table: pd.DataFrame, store: PreparedStore) -> pd.DataFrame:
    """Keep the rows whose image is in the store, numbered anew; LemlightError if none is."""
    kept = table[table["image_id"].isin(store.image_ids)].reset_index(drop=True)
    if kept.empty:
        raise LemlightError(
            f"none of the {len(table)} images of the table is in the prepared store: see its list of those left out"
        )
    return kept


class MammogramData(LightningDataModule):
    """Batches of a split table; the Trainer runs with use_distributed_sampler=False, ranks are sharded here.

    Train shuffles and augments by (seed, epoch, position); val and test keep the order of the table and are not
    augmented. Train drops a last batch of a single image, which BatchNorm cannot take, and nothing else.

    Args:
        table: with image_id, label and split; a `MammogramFiles` finds and prepares it itself.
        store: the prepared images.
        batch_size: of one device.
        workers: processes that read.
        augmentation: of the train split.
        seed: of order and augmentation.
        start_method: how workers start: fork, forkserver, spawn, or None for Python's default.
        level: "breast": batches of whole breasts, which all of its views are judged together, see `TrainBags`.
    """

    table: pd.DataFrame
    store: PreparedStore

    def __init__(
        self,
        table: pd.DataFrame | None,
        store: PreparedStore | None,
        batch_size: int,
        workers: int = 0,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        start_method: str | None = None,
        level: Literal["image", "breast"] = "image",
    ) -> None:
        super().__init__()
        self.level = level
        self.batch_size, self.workers = batch_size, workers
        self.augmentation, self.seed, self.start_method = augmentation, seed, start_method
        self.first_epoch, self.said = 0, False
        self.in_place_of_images: Callable[[MammogramDataset], MammogramDataset] | None = None  # a feature store
        if table is not None and store is not None:
            self._take(table, store)

    def _take(self, table: pd.DataFrame, store: PreparedStore) -> None:
        absent = table.loc[~table["image_id"].isin(store.image_ids), "image_id"]
        if len(absent):
            raise LemlightError(
                f"{len(absent)} images are not in the prepared store: {first_ten(absent)}; prepare again"
            )
        self.table, self.store = table.reset_index(drop=True), store
        self.breasts = None if self.level == "image" else breasts(self.table)
        if self.breasts is not None:
            for split in self.table["split"].unique():
                EvalBags(self._bags(split), self.batch_size)  # a breast that is too large is told now
            if unknown := int(self.table["laterality"].eq("").sum()):
                say(f"{unknown} of {len(self.table)} images name no side: each of them counts as a breast of its own")

    def _bags(self, split: str) -> list[list[int]]:
        """The positions within a split of the views of each breast."""
        assert self.breasts is not None
        return views_of(self.breasts[self.table["split"] == split].tolist())

    def labels(self, split: str) -> list[int]:
        """The labels of a split, 0 or 1, in the order of the table; of its breasts where these are judged."""
        labels = [int(label) for label in self.table.loc[self.table["split"] == split, "label"]]
        return labels if self.breasts is None else [max(labels[view] for view in bag) for bag in self._bags(split)]

    def start_at(self, epoch: int) -> None:
        """Begin with this epoch: a worker asks for its first keys before Lightning has named the epoch."""
        self.first_epoch = epoch

    def dataset(self, split: str, augmentation: Augmentation | None = None) -> MammogramDataset:
        """Give one split as a data set; LemlightError if it is empty."""
        rows = np.flatnonzero(self.table["split"] == split)
        if not len(rows):
            raise LemlightError(f"the {split} split holds no image: change dataset.split, or see the images left out")
        bag = None if self.breasts is None else self.breasts.iloc[rows].tolist()
        images = MammogramDataset(self.table, rows.tolist(), self.store, augmentation, bag)
        return images if self.in_place_of_images is None else self.in_place_of_images(images)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches in an order of their own in every epoch."""
        dataset = self.dataset("train", self.augmentation)
        rank, world_size = rank_and_world_size()
        if self.breasts is not None:
            batches = TrainBags(self._bags("train"), self.batch_size, self.seed, rank, world_size)
            batches.set_epoch(self.first_epoch)
            return self.loader(dataset, batch_sampler=batches)
        sampler = TrainSampler(len(dataset), self.seed, rank, world_size)
        sampler.set_epoch(self.first_epoch)
        single = len(sampler) > self.batch_size > 1 and len(sampler) % self.batch_size == 1
        return self.loader(dataset, sampler=sampler, drop_last=single, batch_size=self.batch_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Let the augmentation go on where the network is, with batches of train; Lightning calls it."""
        if "seed" not in batch:
            return batch
        seeds, rest = batch["seed"], {name: values for name, values in batch.items() if name != "seed"}
        on_device = getattr(self.augmentation, "on_device", None)
        return rest | {"image": on_device(batch["image"], seeds)} if on_device else rest

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the val split in the order of the table."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split in the order of the table."""
        return self.eval_dataloader("test")

    def eval_dataloader(self, split: str) -> DataLoader[Batch]:
        """Batches of any split in the order of the table, not augmented."""
        dataset, shard = self.dataset(split), rank_and_world_size()
        if self.breasts is not None:
            return self.loader(dataset, batch_sampler=EvalBags(self._bags(split), self.batch_size, *shard))
        return self.loader(dataset, sampler=in_turn(len(dataset), *shard), batch_size=self.batch_size)

    def loader(self, dataset: MammogramDataset, **order: Any) -> DataLoader[Batch]:
        """Read a data set in the order of a sampler or of a batch sampler, by as many workers as there is room for."""
        workers, ahead, said = that_fit(self.workers, self.batch_size * dataset.bytes_of_an_image)
        if said and not self.said:
            say(said)
            self.said = True
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return load(dataset, workers, ahead, self.seed, self.start_method, device, **order)


class MammogramFiles(MammogramData):
    """A data set from its files on: found, assigned to splits, prepared where that is missing, then as batches.

    Args:
        dataset: `dataset` of the config: a `_target_` that returns an image table, its arguments, `prepare`, `split`.
        store: folder of the prepared stores.
        prepare_workers: processes that prepare images; None: one per core.
        split: False puts every image into one split, "all".
        options: see `MammogramData`.

    Attributes:
        leaks: who stands on both sides of the split.
    """

    store: PreparedStore
    leaks: LeakReport

    def __init__(
        self,
        dataset: Mapping[str, Any],
        store: str,
        prepare_workers: int | None = None,
        split: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(None, None, **options)
        self.part, self.root, self.prepare_workers, self.split = dict(dataset), Path(store), prepare_workers, split

    def prepare_data(self) -> None:
        """Prepare what the store lacks; Lightning calls it on one process of a machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Find, split, prepare and open the images, unless that is done; LemlightError with all that cannot be used."""
        if hasattr(self, "table"):
            return
        table = find_images_of(self.part)
        scheme = self.part["split"]["scheme"] if self.split else ""
        table = split_table(table, **self.part["split"]) if self.split else table.assign(split="all")
        store = prepare(table, PrepareSettings(**self.part["prepare"]), self.root, self.prepare_workers or cores())
        if len(store.left_out):
            say(f"{len(store.left_out)} of {len(table)} images are left out; why: {store.folder / LEFT_OUT}")
        self._take(drop_left_out(table, store), store)
        self.leaks = leak_report(self.table, scheme)
        say(self.leaks.text(width=shutil.get_terminal_size().columns))

    def fingerprints(self, split: str) -> list[str]:
        """Hashes of the prepared images of a split, in the order of the table."""
        chosen = self.table.loc[self.table["split"] == split, "image_id"]
        return [self.store.fingerprint(self.store.index_of(image_id)) for image_id in chosen]

    def record(self, folder: Path) -> None:
        """Keep in the run folder who stands on both sides, and which images were left out and why."""
        write_json(self.leaks.to_dict(), folder / "leaks.json")
        write_csv(self.store.left_out, folder / LEFT_OUT)


def find_images_of(part: Mapping[str, Any]) -> pd.DataFrame:
    """Build the image table of a data set from `dataset` of the config, and check it."""
    arguments = {key: value for key, value in part.items() if key not in BESIDE["dataset"]}
    table = build(arguments, "dataset")
    if not isinstance(table, pd.DataFrame):
        raise LemlightError(
            f"dataset: {part[TARGET]} must return an image table, a pandas.DataFrame with the columns image_id, path, "
            f"patient_id and label; it returned {type(table).__name__}"
        )
    return check_table(table, f"the image table of {part[TARGET]}")

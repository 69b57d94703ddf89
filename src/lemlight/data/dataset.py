"""The data set of torch: rows of the image table read from the prepared store, a whole batch at a time."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lemlight.data.augment import AugmentSettings, build_augmentation

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

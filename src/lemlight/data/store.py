"""The prepared store on disk, and reading it."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.data.geometry import BreastGeometry
from lemlight.errors import LemlightError

IMAGES, MASKS, RECORDS, CONFIG, LEFT_OUT = "images.npy", "masks.npy", "done.jsonl", "config.json", "left_out.csv"


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """What is known of every image that was worked on, by image_id; a line cut off by a kill counts for nothing."""
    path = folder / RECORDS
    records: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            records[record["image_id"]] = record
    return records


class PreparedStore:
    """The images of one data set in one geometry, in a folder that `prepare` filled.

    `images.npy` is one array of uint16 `(n, H, W)`, air exactly 0; `masks.npy` of uint8, where any mask is known;
    `done.jsonl` holds a line per image. The arrays are mapped into memory anew in every process that reads.

    Attributes:
        folder: where it is.
        settings: of the preparation, plain values.
        image_ids: of the images that it holds, in the order of their positions.
        left_out: image_id and reason of those that could not be used.
        notes: image_id and what was odd about it, of images that are used all the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.settings: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError) as error:
            raise LemlightError(f"{folder} is no prepared store ({error}): prepare the data set again") from error
        records = read_records(folder)
        self._records = sorted((r for r in records.values() if "slot" in r), key=lambda record: record["slot"])
        self.image_ids = [record["image_id"] for record in self._records]
        self._positions = {image_id: i for i, image_id in enumerate(self.image_ids)}
        self.left_out = _frame(records, "reason")
        self.notes = _frame(records, "note")

    def __len__(self) -> int:
        return len(self._records)

    def index_of(self, image_id: str) -> int:
        """Position of an image; raises KeyError if it was left out."""
        return self._positions[image_id]

    def image(self, i: int) -> NDArray[np.uint16]:
        """Pixels (H, W): 0 is air, 65535 is 1.0; a read-only view of the file."""
        pixels: NDArray[np.uint16] = self._images[self._records[i]["slot"]]
        return pixels

    def mask(self, i: int) -> NDArray[np.uint8] | None:
        """Lesions (H, W) uint8, a read-only view: 0 none, k the k-th of `lesion_types`; None where unknown."""
        if not self._records[i]["has_mask"]:
            return None
        mask: NDArray[np.uint8] = self._masks[self._records[i]["slot"]]
        return mask

    def lesion_types(self, i: int) -> list[str]:
        """Types of the lesions of an image, "" where unknown; those of a number without pixels were not drawn."""
        return [str(kind) for kind in self._records[i]["lesion_types"]]

    def geometry(self, i: int) -> BreastGeometry:
        """The way from the original pixels to the prepared ones and back."""
        return BreastGeometry.from_dict(self._records[i]["geometry"])

    def spacing(self, i: int) -> tuple[float, float] | None:
        """Size of an original pixel (row, column) in mm, None where unknown."""
        spacing = self._records[i]["spacing"]
        return None if spacing is None else (spacing[0], spacing[1])

    def fingerprint(self, i: int) -> str:
        """A hash of the prepared pixels: the same for the same mammogram under another name."""
        return str(self._records[i]["fingerprint"])

    @cached_property
    def _images(self) -> NDArray[np.uint16]:
        images: NDArray[np.uint16] = np.load(self.folder / IMAGES, mmap_mode="r")
        return images

    @cached_property
    def _masks(self) -> NDArray[np.uint8]:
        masks: NDArray[np.uint8] = np.load(self.folder / MASKS, mmap_mode="r")
        return masks

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_images", "_masks")}


def _frame(records: dict[str, dict[str, Any]], column: str) -> pd.DataFrame:
    rows = [(image_id, record[column]) for image_id, record in sorted(records.items()) if record.get(column)]
    return pd.DataFrame(rows, columns=["image_id", column])

"""Small pictures of a few images as they are prepared, with the lesions on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lemlight.data.breast import find_geometry, prepare_pixels
from lemlight.data.images import read_image
from lemlight.data.label_image import label_image
from lemlight.data.lesions import Lesion
from lemlight.data.preparation import PrepareSettings, Task
from lemlight.data.processes import map_in_processes
from lemlight.data.store import PreparedStore
from lemlight.errors import ImageError

HEIGHT = 288  # px of a thumbnail at most
WORKERS = 4  # each decodes one image of full size at a time


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels (h, w) float32 in [0, 1], 0 outside the breast; lesions bool (h, w), None where unknown."""

    pixels: NDArray[np.float32]
    lesions: NDArray[np.bool_] | None


def choose_images(labels: Sequence[int], count: int, seed: int = 0) -> list[int]:
    """Draw at most count positions at random, as many of one label as of the other as far as they go, in order."""
    generator = np.random.default_rng(seed)
    classes = [generator.permutation(np.flatnonzero(np.asarray(labels) == label)) for label in (1, 0)]
    turns = sorted((turn, kind, int(row)) for kind, rows in enumerate(classes) for turn, row in enumerate(rows))
    return sorted(row for _, _, row in turns[:count])


def stored_picture(store: PreparedStore, i: int) -> Picture:
    """Shrink an image of the store; a lesion is seen however small it becomes."""
    pixels, labels = store.image(i), store.mask(i)
    scale = min(1.0, HEIGHT / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = cv2.resize(pixels.astype(np.float32) / np.float32(65535), size, interpolation=cv2.INTER_AREA)
    if labels is None:
        return Picture(np.asarray(small, dtype=np.float32), None)
    covered = cv2.resize((labels > 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return Picture(np.asarray(small, dtype=np.float32), np.asarray(covered > 0))


def read_pictures(
    rows: pd.DataFrame, settings: PrepareSettings, workers: int, progress: bool = True
) -> tuple[dict[str, Picture], dict[str, str]]:
    """Decode the images of a table's rows and make them small; gives pictures and reasons of failures by image_id."""
    tasks = [
        Task(
            slot,
            str(row.image_id),
            Path(str(row.path)),
            cast(tuple[Lesion, ...], row.lesions) if row.lesions_known else None,
        )
        for slot, row in enumerate(rows.itertuples())
    ]
    height = min(HEIGHT, settings.height)
    small = replace(settings, height=height, width=max(1, round(settings.width * height / settings.height)))
    results = map_in_processes(partial(_read, settings=small), tasks, max(1, min(workers, WORKERS, len(tasks))))
    pictures, reasons = {}, {}
    for image_id, result in tqdm(results, "reading thumbnails", len(tasks), disable=not progress, unit="image"):
        if isinstance(result, Picture):
            pictures[image_id] = result
        else:
            reasons[image_id] = result
    return pictures, reasons


def _read(task: Task, settings: PrepareSettings) -> tuple[str, Picture | str]:
    try:
        pixels = read_image(task.path).pixels
        geometry, breast = find_geometry(
            pixels, (settings.height, settings.width), crop=settings.crop, flip=settings.flip
        )
    except ImageError as error:
        return task.image_id, str(error)
    labels, _ = label_image(task.lesions, geometry)
    prepared = prepare_pixels(pixels, geometry, breast).astype(np.float32) / np.float32(65535)
    return task.image_id, Picture(prepared, None if labels is None else labels > 0)

"""Reading a batch of prepared images against copying the same bytes out of a memory map."""

import cv2
import numpy as np
import pandas as pd

from lemlight.data.datamodule import MammogramDataset
from lemlight.data.lesions import Lesion
from lemlight.data.store import IMAGES, MASKS, PrepareSettings, prepare
from tests.bench.measure import paired

HEIGHT, WIDTH = 1152, 896
IMAGES_HELD, BATCH = 64, 16
LIMIT = 1.5


def prepared_store(folder):
    """A real store of 64 images with lesion masks; what is on them does not matter for reading."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    breast = ((y - HEIGHT / 2) / (0.45 * HEIGHT)) ** 2 + (x / (0.9 * WIDTH)) ** 2 < 1
    mask = folder / "mask.png"
    cv2.imwrite(str(mask), np.uint8(255) * (breast & (x > 300) & (abs(y - HEIGHT / 2) < 50)))
    rows = []
    for number in range(IMAGES_HELD):
        noise = np.random.default_rng(number).integers(20000, 60000, breast.shape)
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.where(breast, noise, 0).astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 0])
        rows.append(
            {
                "image_id": str(number),
                "path": str(path),
                "label": number % 2,
                "lesions": (Lesion("mask", path=str(mask)),),
            }
        )
    table = pd.DataFrame(rows).assign(lesions_known=True)
    settings = PrepareSettings(HEIGHT, WIDTH)
    return table, prepare(table, settings, folder / "store", workers=1, progress=False)


def measure(pairs, folder):
    table, store = prepared_store(folder)
    dataset = MammogramDataset(table, range(len(table)), store)
    images, masks = (np.load(store.folder / name, mmap_mode="r") for name in (IMAGES, MASKS))
    batches = [slice(start, start + BATCH) for start in range(0, len(table), BATCH)]
    short = {"limit": LIMIT, "pairs": 4 * pairs, "warm_up": 2}

    def read():
        for batch in batches:
            dataset.__getitems__(list(range(batch.start, batch.stop)))

    def copy():
        for batch in batches:
            np.copy(images[batch]), np.copy(masks[batch])

    yield paired("reading prepared batches", "np.copy of the same bytes, images and masks", read, copy, **short)

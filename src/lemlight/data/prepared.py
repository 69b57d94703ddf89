"""Preparing: every image of a table is decoded, oriented, cropped, resized and stored, once."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from tqdm import tqdm

from lemlight.data.arrays import allocate, disk_error
from lemlight.data.lesions import Lesion
from lemlight.data.preparation import PrepareSettings, Task, prepare_image
from lemlight.data.processes import locked, map_in_processes
from lemlight.data.store import CONFIG, IMAGES, LEFT_OUT, MASKS, RECORDS, PreparedStore, read_records
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError
from lemlight.files import write_json, written_aside

FORMAT = 2  # raise it with every change that alters a prepared pixel: the store's name depends on it


def prepare(
    table: pd.DataFrame, settings: PrepareSettings, root: Path, workers: int, progress: bool = True
) -> PreparedStore:
    """Prepare what the store of this table and these settings lacks, and open it.

    Another table or other settings make another store under `root`. Killed at any moment it goes on where it was;
    a second process waits for the first. An image that cannot be used is listed in `left_out` with its reason, and
    tried again at the next call: a decoder may have been installed since.

    Args:
        table: the image table.
        settings: the geometry.
        root: the folder of all stores.
        workers: processes that decode.
        progress: whether a bar is drawn.

    Raises:
        LemlightError: missing files (all of them), no space on the disk, no image that can be used.
    """
    stamp = _stamp(table, settings)
    folder = root / f"{settings.height}x{settings.width}-{stamp[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", f"preparing {folder}"):
            _fill(table, settings, folder, stamp, workers, progress)
    except OSError as error:
        raise disk_error(folder, error, "writing") from error
    store = PreparedStore(folder)
    if not len(store):
        raise LemlightError(
            f"none of the {len(table)} images can be used; the first reasons (all are in {folder / LEFT_OUT}): "
            + first_ten(store.left_out["reason"])
        )
    return store


def _stamp(table: pd.DataFrame, settings: PrepareSettings) -> str:
    """A hash of all that decides the store: settings, and name, size and time of every file."""
    missing: list[str] = []
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(settings)], sort_keys=True).encode())
    for row in table.sort_values("image_id").itertuples():
        lesions = cast(tuple[Lesion, ...], row.lesions)
        files = [str(row.path), *(lesion.path for lesion in lesions if lesion.path)]
        drawn = [lesion.to_dict() for lesion in lesions] if row.lesions_known else None
        digest.update(json.dumps([str(row.image_id), drawn], sort_keys=True).encode())
        for file in files:
            try:
                status = Path(file).stat()
            except OSError:
                missing.append(file)
                continue
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    if missing:
        raise LemlightError(
            f"{len(missing)} files of the image table are missing: {first_ten(missing)}; "
            "complete the download or correct dataset.root"
        )
    return digest.hexdigest()


def _fill(
    table: pd.DataFrame, settings: PrepareSettings, folder: Path, stamp: str, workers: int, progress: bool
) -> None:
    rows = table.sort_values("image_id")
    shape = (len(rows), settings.height, settings.width)
    allocate(folder / IMAGES, shape, np.uint16)
    if rows["lesions_known"].any():
        allocate(folder / MASKS, shape, np.uint8)
    if not (folder / CONFIG).is_file():
        write_json({"settings": asdict(settings), "format": FORMAT, "stamp": stamp}, folder / CONFIG)
    done = {image_id for image_id, record in read_records(folder).items() if "slot" in record}
    tasks = [
        Task(
            slot,
            str(row.image_id),
            Path(str(row.path)),
            cast(tuple[Lesion, ...], row.lesions) if row.lesions_known else None,
        )
        for slot, row in enumerate(rows.itertuples())
        if row.image_id not in done
    ]
    if tasks:
        work = partial(prepare_image, folder=folder, settings=settings)
        results = map_in_processes(work, tasks, min(workers, len(tasks)))
        bar = tqdm(results, "preparing images", len(rows), disable=not progress, unit="image", initial=len(done))
        _record(bar, folder / RECORDS)
    left_out = PreparedStore(folder).left_out
    with written_aside(folder / LEFT_OUT) as aside:
        left_out.to_csv(aside, index=False)


def _record(results: Iterable[dict[str, Any]], path: Path) -> None:
    """Append a line for each image, after its pixels are on the disk; a half line of a kill gets its end first."""
    with path.open("a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")
        for record in results:
            file.write(json.dumps(record) + "\n")
            file.flush()

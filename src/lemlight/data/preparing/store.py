"""The prepared store: the images of a data set, decoded, cropped and resized once, in a folder that is safe to share.

A preparation that is killed goes on where it was, and a second one waits for the first.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from lemlight.arguments import checked
from lemlight.data.preparing.breast import prepare_image
from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.preparing.lesions import Lesion, label_image
from lemlight.data.reading.io import read_image
from lemlight.data.reading.isolated import ProcessLost, map_isolated
from lemlight.data.reading.raster import Image
from lemlight.data.table import first_ten
from lemlight.errors import ImageError, LemlightError, as_image_error
from lemlight.files import allocate, locked, write_csv, write_json, write_slot
from lemlight.terminal import Progress

FORMAT = 6  # raise it with every change that alters a prepared pixel: the store's name depends on it
IMAGES, MASKS, RECORDS, CONFIG, LEFT_OUT = "images.npy", "masks.npy", "done.jsonl", "config.json", "left_out.csv"
LEAST_SIDE, MOST_SIDE = 32, 10_000  # px: what the networks leave of the least is one cell; no mammogram is larger


@checked
@dataclass(frozen=True)
class PrepareSettings:
    """The geometry of prepared images: size in px, cropped to the breast or not, chest wall on the left or as it is."""

    height: Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
    width: Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
    crop: bool = True
    flip: bool = True


class MappedArrays:
    """Arrays of a folder, mapped into memory anew in every process that reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: dict[str, NDArray[Any]] = {}

    def _array(self, file: str) -> NDArray[Any]:
        if file not in self._mapped:
            self._mapped[file] = np.load(self.folder / file, mmap_mode="r")
        return self._mapped[file]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_mapped": {}}


class PreparedStore(MappedArrays):
    """The images of one data set in one geometry, in a folder that `prepare` filled.

    `images.npy` is one array of uint16 `(n, H, W)`, air exactly 0; `masks.npy` of uint8, where any mask is known;
    `done.jsonl`, and one of each part, holds a line per image.

    Attributes:
        folder: where it is.
        settings: of the preparation, plain values.
        image_ids: of the images that it holds, in the order of their positions.
        left_out: image_id and reason of those that could not be used.
        notes: image_id and what was odd about it, a row for each, of images that are used all the same.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            self.settings: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError) as error:
            raise LemlightError(f"{folder} is no prepared store ({error}): prepare the data set again") from error
        records = _read_records(folder)
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

    @property
    def capacity(self) -> int:
        """How many images the files have room for, those that were left out included."""
        return len(self._array(IMAGES))

    def slot(self, i: int) -> int:
        """Where an image stands in the files: the same whatever else is left out, or found again later."""
        return int(self._records[i]["slot"])

    def image(self, i: int) -> NDArray[np.uint16]:
        """Pixels (H, W): 0 is air, 65535 is 1.0; a read-only view of the file."""
        pixels: NDArray[np.uint16] = self._array(IMAGES)[self.slot(i)]
        return pixels

    def mask(self, i: int) -> NDArray[np.uint8] | None:
        """Lesions (H, W) uint8, a read-only view: 0 none, k the k-th of `lesion_types`; None where unknown."""
        if not self._records[i]["has_mask"]:
            return None
        mask: NDArray[np.uint8] = self._array(MASKS)[self.slot(i)]
        return mask

    def lesion_types(self, i: int) -> list[str]:
        """Types of the lesions of an image, "" where unknown; those of a number without pixels were not drawn."""
        return [str(kind) for kind in self._records[i]["lesion_types"]]

    def pixel_mm2(self, i: int) -> float | None:
        """Area of a pixel of the prepared image on the original, in square mm; None where the spacing is not known."""
        spacing, scale = self._records[i]["spacing"], self._records[i]["geometry"]["scale"]
        return spacing[0] * spacing[1] / (scale[0] * scale[1]) if spacing else None

    def sides(self, i: int) -> tuple[str, str]:
        """Laterality by the header, and side of the image where the chest wall was found; each L, R or "" (unknown)."""
        flips, geometry = self.settings["flip"], self._records[i]["geometry"]
        return self._records[i]["laterality"], "LR"[geometry["flipped"]] if flips and not geometry["turns"] else ""

    def fingerprint(self, i: int) -> str:
        """A hash of the prepared pixels: the same for the same mammogram under another name."""
        return str(self._records[i]["fingerprint"])


def read_lines(path: Path) -> Iterator[Any]:
    """Give the values of a file of JSON lines; one cut off by a kill counts for nothing."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """What is known of every image that was worked on, by image_id."""
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*{RECORDS}")):  # of the whole and of parts
        for record in read_lines(path):
            if "slot" in record or "slot" not in records.get(record["image_id"], {}):  # done once is done
                records[record["image_id"]] = record
    return records


def _frame(records: dict[str, dict[str, Any]], column: str) -> pd.DataFrame:
    found = [(image_id, record[column]) for image_id, record in sorted(records.items()) if record.get(column)]
    rows = [(image_id, text) for image_id, said in found for text in ([said] if isinstance(said, str) else said)]
    return pd.DataFrame(rows, columns=["image_id", column])


def prepare(table: pd.DataFrame, settings: PrepareSettings, root: Path, workers: int) -> PreparedStore:
    """Prepare what the store of this table and these settings lacks, and open it.

    Another table or other settings make another store under `root`. Killed at any moment it goes on where it was;
    a second process waits for the first. An image that cannot be used is listed in `left_out` with its reason, and
    tried again at the next call: a decoder may have been installed since.

    Args:
        table: the image table.
        settings: the geometry.
        root: the folder of all stores.
        workers: processes that decode.

    Raises:
        LemlightError: missing files (all of them), no space on the disk, no image that can be used.
    """
    store = fill_store(table, settings, root, workers)
    if not len(store):
        raise LemlightError(
            f"none of the {len(table)} images can be used; the first reasons (all are in {store.folder / LEFT_OUT}): "
            + first_ten(store.left_out["reason"])
        )
    return store


def fill_store(
    table: pd.DataFrame,
    settings: PrepareSettings,
    root: Path,
    workers: int,
    part: tuple[int, int] | None = None,
) -> PreparedStore:
    """Do as `prepare` does, but take a store without any image, too; with `part` (k, n), the k-th of n parts alone.

    Parts are prepared by any number of processes at once, on any machines that see the folder: each writes slots of its
    own into the same arrays, and what it did into a list of its own. The whole waits for the parts that are at work.
    """
    stamp = _stamp(table, settings)
    folder = root / f"{settings.height}x{settings.width}-{stamp[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", f"preparing {folder}"):
            _make_room(table, settings, folder, stamp)
            if part is None:
                with ExitStack() as parts:
                    for lock in sorted(folder.glob(".lock-*")):
                        parts.enter_context(locked(lock, f"preparing part {lock.name[6:]} of {folder}"))
                    _fill(table, settings, folder, workers)
        if part is not None:
            with locked(folder / f".lock-{part[0]}-of-{part[1]}", f"preparing part {part[0]} of {folder}"):
                _fill(table, settings, folder, workers, part)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        needed = len(table) * settings.height * settings.width * (3 if table["lesions_known"].any() else 2)
        raise LemlightError(
            f"cannot write the prepared store in {folder}: {'the disk is full' if full else error.strerror or error} "
            f"(it needs {needed / 1e9:.1f} GB in all, {free / 1e9:.1f} GB free); free some space or set store=DIR on "
            "another disk, then start again: what is done stays done"
        ) from error
    return PreparedStore(folder)


def _stamp(table: pd.DataFrame, settings: PrepareSettings) -> str:
    """A hash of all that decides the store: settings, and name, size and time of every file."""
    missing: list[str] = []
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(settings)], sort_keys=True).encode())
    for row in table.sort_values("image_id").itertuples():
        lesions = cast(tuple[Lesion, ...], row.lesions)
        files = [str(row.path), *(lesion.path for lesion in lesions if lesion.path)]
        drawn = [replace(lesion, id="").to_dict() for lesion in lesions] if row.lesions_known else None
        digest.update(json.dumps([str(row.image_id), drawn], sort_keys=True).encode())
        for file in files:
            try:
                status = Path(file).stat()
            except OSError:
                missing.append(file)
                continue
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    if missing:
        raise LemlightError(
            f"{len(missing)} files of the image table are missing: {first_ten(missing)}; "
            "complete the download or correct dataset.root"
        )
    return digest.hexdigest()


@dataclass(frozen=True)
class _Task:
    """An image, its lesions (None: nothing is known of them), and its slot in the store."""

    slot: int
    image_id: str
    path: Path
    lesions: tuple[Lesion, ...] | None


def _make_room(table: pd.DataFrame, settings: PrepareSettings, folder: Path, stamp: str) -> None:
    shape = (len(table), settings.height, settings.width)
    allocate(folder / IMAGES, shape, np.uint16)
    if table["lesions_known"].any():
        allocate(folder / MASKS, shape, np.uint8)
    if not (folder / CONFIG).is_file():
        write_json({"settings": asdict(settings), "format": FORMAT, "stamp": stamp}, folder / CONFIG)


def _fill(
    table: pd.DataFrame,
    settings: PrepareSettings,
    folder: Path,
    workers: int,
    part: tuple[int, int] = (1, 1),
) -> None:
    rows, (number, parts) = table.sort_values("image_id"), part
    own = range(len(rows) * (number - 1) // parts, len(rows) * number // parts)
    records = _read_records(folder)
    done = {image_id for image_id, record in records.items() if "slot" in record}
    tasks = [
        _Task(
            slot,
            str(row.image_id),
            Path(str(row.path)),
            cast(tuple[Lesion, ...], row.lesions) if row.lesions_known else None,
        )
        for slot, row in enumerate(rows.itertuples())
        if slot in own and row.image_id not in done
    ]
    if tasks:
        tasks.sort(key=lambda task: bool(records.get(task.image_id, {}).get("lost")))  # what ended its process is last
        work = partial(_prepare_image, folder=folder, settings=settings)
        results = map_isolated(work, tasks, min(workers, len(tasks)), lambda task: task.path)
        before = len(own) - len(tasks)
        bar = Progress("preparing images", len(own), done=before).over(results)
        _record(zip(tasks, bar, strict=True), folder / (RECORDS if parts == 1 else f"{number}-of-{parts}-{RECORDS}"))
    left_out = PreparedStore(folder).left_out
    write_csv(left_out, folder / LEFT_OUT)


def read_prepared(
    path: Path, settings: PrepareSettings, longest: int | None = None
) -> tuple[Image, BreastGeometry, NDArray[np.uint16]]:
    """Read one image and prepare it: (H, W), air 0; its notes say what is odd. ImageError where it cannot be used.

    With `longest` the pixels of the image itself are made smaller, to so many px: they travel between processes.
    """
    image = read_image(path)
    with as_image_error(path, "cannot be prepared ({}): it is damaged, or no mammogram; leave it out"):
        shape = settings.height, settings.width
        geometry, pixels, notes = prepare_image(image, shape, settings.crop, settings.flip)
    full, factor = image.pixels, min(1.0, (longest or np.inf) / max(image.pixels.shape))
    size = [max(1, round(side * factor)) for side in full.shape[::-1]]
    small = full if factor == 1 else np.asarray(cv2.resize(full, size, interpolation=cv2.INTER_AREA), np.float32)
    return replace(image, pixels=small, notes=(*image.notes, *notes)), geometry, pixels


def _prepare_image(task: _Task, folder: Path, settings: PrepareSettings) -> dict[str, Any]:
    """Prepare one image and give its record; ImageError for one that cannot be used."""
    image, geometry, pixels = read_prepared(task.path, settings)
    with as_image_error(task.path, "its lesions cannot be drawn ({}); correct or remove them"):
        labels, notes = label_image(task.lesions, geometry, pixels > 0)
    write_slot(folder / IMAGES, task.slot, pixels)
    if labels is not None:
        write_slot(folder / MASKS, task.slot, labels)
    return {
        "image_id": task.image_id,
        "slot": task.slot,
        "geometry": geometry.to_dict(),
        "spacing": image.spacing_mm,
        "has_mask": labels is not None,
        "lesion_types": [lesion.type for lesion in task.lesions or ()] if labels is not None else [],
        "laterality": image.laterality,
        "note": [*image.notes, *notes],
        "fingerprint": hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest(),
    }


def _record(results: Iterable[tuple[_Task, dict[str, Any] | ImageError]], path: Path) -> None:
    """Append a line for each image, after its pixels are on the disk; a half line of a kill gets its end first."""
    with path.open("a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")
        for task, record in results:
            if isinstance(record, ImageError):
                record = {"image_id": task.image_id, "reason": str(record), "lost": isinstance(record, ProcessLost)}
            file.write(json.dumps(record) + "\n")
            file.flush()

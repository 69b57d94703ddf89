"""Small pictures of a few images as they are prepared, with the lesions on them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lemlight.data.breast import find_geometry, prepare_pixels
from lemlight.data.io import FileHeader, read_image
from lemlight.data.lesions import Lesion, label_image
from lemlight.data.splits import LeakReport, leak_report
from lemlight.data.store import PreparedStore, PrepareSettings, map_in_processes
from lemlight.data.store import _Task as Task
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


Counts = dict[str, int]  # by falling number
NAME_EDGE = r"(?<![\w.-]){}(?![\w-]|\.\w)"  # a dot may end a sentence
TWO_SIDES = re.compile(r"\(?\d+(?:, | x )\d+\)?")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class LesionCounts:
    """Images by what is known of their lesions, and the lesions by type ("unknown" where no type is given).

    rejected: images whose annotated lesions could not be drawn, so that nothing is known of them; 0 before preparing.
    notes: what was odd, by how many images it concerns.
    """

    with_lesions: int
    without_lesions: int
    unknown: int
    rejected: int
    types: Counts
    notes: Counts


@dataclass(frozen=True)
class Inventory:
    """A data set in numbers.

    images: rows of the image table; left_out: of these, by reason; duplicates: of these, images whose pixels another
    one has too (None before preparing); duplicates_in_splits: pictures that stand in more than one split.
    formats, greys (bits and colours) and sizes (`H x W` px as in the files): of all images whose header says it.
    leaks: counts per split, and who stands in more than one, of the images that are used.
    """

    images: int
    used: int
    left_out: Counts
    duplicates: int | None
    duplicates_in_splits: int | None
    formats: Counts
    greys: Counts
    sizes: Counts
    lesions: LesionCounts
    leaks: LeakReport

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers as plain values for JSON, without the patients that the leak report names."""
        leaks = self.leaks
        return asdict(self) | {
            "leaks": {
                "scheme": leaks.scheme,
                "splits": [asdict(split) for split in leaks.splits],
                "patients": len(leaks.leaking_patients),
                "breasts": len(leaks.leaking_breasts),
                "files": len(leaks.leaking_files),
                "warnings": list(leaks.warnings),
            }
        }


def take_inventory(
    table: pd.DataFrame,
    headers: Sequence[FileHeader],
    left_out: pd.DataFrame,
    store: PreparedStore | None = None,
    scheme: str = "",
) -> Inventory:
    """Count a data set.

    Args:
        table: the image table, dealt to splits.
        headers: of its files, in its order.
        left_out: image_id and reason of the images that cannot be used.
        store: the prepared images; None where only the headers were looked at.
        scheme: of the split, for the leak report.
    """
    used = table[~table["image_id"].isin(left_out["image_id"])]
    groups = same_pixels(used, store) if store else None
    splits = dict(zip(used["image_id"], used["split"], strict=True))
    apart = [len({splits[image_id] for image_id in group}) > 1 for group in groups or ()]
    return Inventory(
        images=len(table),
        used=len(used),
        left_out=_plain_counts(left_out["image_id"], left_out["reason"], table),
        duplicates=None if groups is None else sum(map(len, groups)),
        duplicates_in_splits=None if groups is None else sum(apart),
        formats=_counts(header.format for header in headers),
        greys=_counts(header.grey for header in headers if header.grey),
        sizes=_counts(f"{header.shape[0]} x {header.shape[1]}" for header in headers if header.shape),
        lesions=_drawn(used, store) if store else _annotated(used),
        leaks=leak_report(used, scheme),
    )


def same_pixels(used: pd.DataFrame, store: PreparedStore) -> list[tuple[str, ...]]:
    """Find the image_ids of each picture that the store holds more than once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for image_id in used["image_id"]:
        groups[store.fingerprint(store.index_of(image_id))].append(image_id)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _annotated(used: pd.DataFrame) -> LesionCounts:
    """Count the lesions as the data set gives them."""
    known = used.loc[used["lesions_known"], "lesions"]
    types = [lesion.type for lesions in known for lesion in lesions]
    several = int(sum(bool(lesions) for lesions in known))
    return LesionCounts(several, len(known) - several, len(used) - len(known), 0, _types(types), {})


def _drawn(used: pd.DataFrame, store: PreparedStore) -> LesionCounts:
    """Count the lesions that the prepared images have."""
    several = without = unknown = rejected = 0
    types: list[str] = []
    for row in used.itertuples():
        i = store.index_of(str(row.image_id))
        if store.mask(i) is None:
            rejected += bool(row.lesions_known)
            unknown += not row.lesions_known
        else:
            here = store.lesion_types(i)
            types += here
            several += bool(here)
            without += not here
    notes = store.notes[store.notes["image_id"].isin(used["image_id"])]
    notes_by_kind = _plain_counts(notes["image_id"], notes["note"], used)
    return LesionCounts(several, without, unknown, rejected, _types(types), notes_by_kind)


def _types(types: Iterable[str]) -> Counts:
    return _counts(kind or "unknown" for kind in types)


def _counts(items: Iterable[str]) -> Counts:
    return dict(sorted(Counter(items).items(), key=lambda item: (-item[1], item[0])))


def _plain_counts(image_ids: Iterable[str], texts: Iterable[str], table: pd.DataFrame) -> Counts:
    """Count texts about images by what they say, names and sizes taken out."""
    rows = {str(row.image_id): row for row in table.itertuples()}
    plain = []
    for image_id, text in zip(image_ids, texts, strict=True):
        row = rows[image_id]
        lesions = cast(tuple[Lesion, ...], row.lesions)
        plain.append(without_names(text, [str(row.path), *(lesion.path for lesion in lesions if lesion.path)]))
    return _counts(plain)


def without_names(text: str, paths: Sequence[str]) -> str:
    """Take paths and their file names out of a text about an image, and the sizes that differ each time.

    >>> without_names("/data/jane.dcm: mask jane.png rescaled from (3, 4) to (6, 8)", ["/data/jane.dcm", "/m/jane.png"])
    'mask FILE rescaled from H x W to H x W'
    """
    text = text.removeprefix(f"{paths[0]}: ")
    for name in [*paths, *(path.rsplit("/", 1)[-1] for path in paths)]:  # whole paths first: they hold the names
        text = re.sub(NAME_EDGE.format(re.escape(name)), "FILE", text)
    return ADDRESS.sub("", TWO_SIDES.sub("H x W", text))

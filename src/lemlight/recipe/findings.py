"""What looking at the files of an image table brings: by their headers alone, or by preparing every image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd

from lemlight.data.inventory import Picture, choose_images, read_pictures, same_pixels, stored_picture
from lemlight.data.io import FileHeader
from lemlight.data.lesions import Lesion
from lemlight.data.store import PreparedStore, PrepareSettings, prepare
from lemlight.data.table import first_ten
from lemlight.plots.sheets import Thumbnail


@dataclass(frozen=True)
class Findings:
    """What was found.

    left_out: image_id and reason; notes: image_id and what is odd about images that are used all the same; store: None
    where nothing was prepared; thumbnails: of some of the images that are used.
    """

    left_out: pd.DataFrame
    notes: pd.DataFrame
    store: PreparedStore | None
    thumbnails: Sequence[Thumbnail]


def check_images(
    table: pd.DataFrame, headers: Sequence[FileHeader], settings: PrepareSettings, workers: int, thumbnails: int
) -> Findings:
    """Look at the headers only, and decode no images but those that become thumbnails."""
    reasons = {
        image_id: f"{path}: {header.problem}"
        for image_id, path, header in zip(table["image_id"], table["path"], headers, strict=True)
        if header.problem
    }
    chosen = _choose(table[~table["image_id"].isin(list(reasons))], thumbnails)
    pictures, damaged = read_pictures(chosen, settings, workers)
    kept = chosen[chosen["image_id"].isin(list(pictures))]
    types = [[lesion.type for lesion in cast(tuple[Lesion, ...], lesions)] for lesions in kept["lesions"]]
    shown = _thumbnails(kept, [pictures[image_id] for image_id in kept["image_id"]], types)
    return Findings(_frame(reasons | damaged, "reason"), _frame({}, "note"), None, shown)


def prepare_images(
    table: pd.DataFrame, settings: PrepareSettings, root: Path, workers: int, thumbnails: int
) -> Findings:
    """Prepare what the store below `root` lacks; raises LemlightError as `prepare` does."""
    store = prepare(table, settings, root, workers)
    used = table[~table["image_id"].isin(store.left_out["image_id"])]
    chosen = _choose(used, thumbnails)
    places = [store.index_of(image_id) for image_id in chosen["image_id"]]
    pictures = [stored_picture(store, place) for place in places]
    shown = _thumbnails(chosen, pictures, [store.lesion_types(place) for place in places])
    twins = {
        image_id: f"the same pixels as {first_ten(other for other in group if other != image_id)}"
        for group in same_pixels(used, store)
        for image_id in group
    }
    notes = store.notes[store.notes["image_id"].isin(used["image_id"])]
    return Findings(store.left_out, pd.concat([notes, _frame(twins, "note")], ignore_index=True), store, shown)


def _choose(used: pd.DataFrame, count: int) -> pd.DataFrame:
    return used.iloc[choose_images(used["label"].tolist(), count)]


def _thumbnails(rows: pd.DataFrame, pictures: Sequence[Picture], types: Sequence[Sequence[str]]) -> list[Thumbnail]:
    return [
        Thumbnail(picture.pixels, picture.lesions, label, split, tuple(kinds))
        for picture, label, split, kinds in zip(pictures, rows["label"], rows["split"], types, strict=True)
    ]


def _frame(texts: dict[str, str], column: str) -> pd.DataFrame:
    return pd.DataFrame(sorted(texts.items()), columns=["image_id", column])

"""A data set in numbers: what is there, what is left out and why, which lesions are known, and what stands twice."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, cast

import pandas as pd

from lemlight.data.preparing.lesions import Lesion
from lemlight.data.preparing.store import PreparedStore
from lemlight.data.reading.headers import Header
from lemlight.data.splits import leak_report

NAME_EDGE = r"(?<![\w.-]){}(?![\w-]|\.\w)"  # a dot may end a sentence
TWO_SIDES = re.compile(r"(?<!\w)\(?\d+(?:, | x )\d+\)?(?!\w)")  # not the ends of two names
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def take_inventory(
    table: pd.DataFrame,
    headers: Sequence[Header],
    left_out: pd.DataFrame,
    store: PreparedStore | None = None,
    scheme: str = "",
    notes: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Count a data set: plain values for JSON that name no patient, no file and no folder.

    Args:
        table: the image table, assigned to splits.
        headers: of its files, in its order.
        left_out: image_id and reason of the images that cannot be used.
        store: the prepared images; None where only the headers were looked at.
        scheme: of the split, for the leak report.
        notes: image_id and what is odd about images, where there is no store that knows it.

    Returns:
        `images` of the table and those `used`; `left_out` by reason; `duplicates`, images whose pixels another one has
        too, and `duplicates_in_splits`, pictures that stand in more than one split (both None without a store);
        `formats`, `greys` (bits and colours) and `sizes` (`H x W` px) of all files whose header says it; `lesions`;
        `leaks`, counts per split and how many patients, breasts and files stand in more than one.
    """
    used = table[~table["image_id"].isin(left_out["image_id"])]
    leaks = leak_report(used, scheme)
    groups = same_pixels(used, store) if store else None
    split_of = dict(zip(used["image_id"], used["split"], strict=True))
    apart = [len({split_of[image_id] for image_id in group}) > 1 for group in groups or ()]
    return {
        "images": len(table),
        "used": len(used),
        "left_out": _count(plain_texts(left_out[["image_id", "reason"]], table)),
        "duplicates": None if groups is None else sum(map(len, groups)),
        "duplicates_in_splits": None if groups is None else sum(apart),
        "formats": _count(header.format for header in headers),
        "greys": _count(header.grey for header in headers if header.grey),
        "sizes": _count(f"{header.shape[0]} x {header.shape[1]}" for header in headers if any(header.shape)),
        "lesions": _count_lesions(used, store, store.notes if store else notes),
        "leaks": {
            "scheme": scheme,
            "splits": [asdict(split) for split in leaks.splits],
            "patients": len(leaks.leaking_patients),
            "breasts": len(leaks.leaking_breasts),
            "files": len(leaks.leaking_files),
            "warnings": list(leaks.warnings),
        },
    }


def same_pixels(used: pd.DataFrame, store: PreparedStore) -> list[tuple[str, ...]]:
    """Find the image_ids of each picture that the store holds more than once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for image_id in used["image_id"]:
        groups[store.fingerprint(store.index_of(image_id))].append(image_id)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def other_sides(used: pd.DataFrame, store: PreparedStore) -> dict[str, str]:
    """What is odd about images whose chest wall lies on the other side than in most of the same laterality.

    The laterality of the table, else of the header; films may hang the other way round, all of them.
    """
    found = {}
    for row in used.itertuples():
        header, wall = store.sides(store.index_of(str(row.image_id)))
        if wall and (side := str(row.laterality) or header):
            found[str(row.image_id)] = side, wall
    usual = 2 * sum(side == wall for side, wall in found.values()) >= len(found)
    return {
        image_id: f"the chest wall was found on the other side than in most images of the laterality {side}"
        for image_id, (side, wall) in found.items()
        if (side == wall) != usual
    }


def _count_lesions(used: pd.DataFrame, store: PreparedStore | None, notes: pd.DataFrame | None) -> dict[str, Any]:
    """Images by what is known of their lesions, lesions by type ("unknown" without one), and what was odd about them.

    As drawn in the store, or else as annotated. An image is `rejected` where an annotated lesion could not be drawn.
    """
    types: list[list[str] | None] = []
    for row in used.itertuples():
        if store is None:
            lesions = cast(tuple[Lesion, ...], row.lesions)
            types.append([lesion.type for lesion in lesions] if row.lesions_known else None)
        else:
            i = store.index_of(str(row.image_id))
            types.append(None if store.mask(i) is None else store.lesion_types(i))
    known = [one for one in types if one is not None]
    several = sum(map(bool, known))
    unknown = int((~used["lesions_known"]).sum())
    notes = None if notes is None else notes[notes["image_id"].isin(used["image_id"])]
    return {
        "with_lesions": several,
        "without_lesions": len(known) - several,
        "unknown": unknown,
        "rejected": len(used) - len(known) - unknown,
        "types": _count(kind or "unknown" for one in known for kind in one),
        "notes": {} if notes is None else _count(plain_texts(notes[["image_id", "note"]], used)),
    }


def _count(items: Iterable[str]) -> dict[str, int]:
    """Count what is the same, the most frequent first."""
    return dict(sorted(Counter(items).items(), key=lambda item: (-item[1], item[0])))


def plain_texts(frame: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Give what a frame (image_id, text) says of images of the table, names and sizes taken out."""
    rows = {str(row.image_id): row for row in table.itertuples()}
    plain = []
    for image_id, text in frame.itertuples(index=False):
        lesions = cast(tuple[Lesion, ...], rows[image_id].lesions)
        paths = [str(rows[image_id].path), *(lesion.path for lesion in lesions if lesion.path)]
        plain.append(without_names(text, paths))
    return plain


def without_names(text: str, paths: Sequence[str]) -> str:
    """Take paths and their file names out of a text about an image, and the sizes that differ each time.

    >>> without_names("/data/jane.dcm: mask jane.png rescaled from (3, 4) to (6, 8)", ["/data/jane.dcm", "/m/jane.png"])
    'mask FILE rescaled from H x W to H x W'
    """
    text = text.removeprefix(f"{paths[0]}: ")
    for name in [*paths, *(path.rsplit("/", 1)[-1] for path in paths)]:  # whole paths first: they hold the names
        text = re.sub(NAME_EDGE.format(re.escape(name)), "FILE", text)
    return ADDRESS.sub("", TWO_SIDES.sub("H x W", text))

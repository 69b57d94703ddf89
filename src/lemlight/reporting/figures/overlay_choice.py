"""Which images a sheet of overlays shows: of every type of lesion the best found, the middle, the worst."""

from collections.abc import Sequence

import pandas as pd

PLACES = ("best", "median", "worst")
SHOWN = 9  # overlays in all
TYPES = 3  # of lesions, the most frequent


def choose_overlays(images: pd.DataFrame) -> dict[str, str]:
    """Choose up to nine image_ids and give each its title, as `mass, worst: DSC 0.12`.

    Args:
        images: a row per image: image_id, dsc (NaN where it shows no lesion, left out), type: of its lesions, one word.
    """
    measured = images.dropna(subset="dsc")
    frequent = measured["type"].value_counts().index[:TYPES]
    each = SHOWN // max(1, len(frequent)) // len(PLACES)
    titles: dict[str, str] = {}
    for kind in frequent:
        ordered = measured[measured["type"] == kind].sort_values("dsc", ascending=False, kind="stable")
        name = f"{kind}, " if kind else ""
        ids, dsc = ordered["image_id"].tolist(), ordered["dsc"].tolist()
        titles |= {
            str(ids[row]): f"{name}{place}: DSC {dsc[row]:.2f}" for row, place in _places(len(ids), each).items()
        }
    return titles


def type_of(types: Sequence[str]) -> str:
    """Name the lesions of one image by one word: their type, "several types", or "" where it is not known."""
    found = set(types)
    return "several types" if len(found) > 1 else next(iter(found), "")


def _places(count: int, each: int) -> dict[int, str]:
    """Name `each` rows of the first, the middle and the last of `count` sorted ones; of few rows each one once."""
    each = max(1, min(each, count // len(PLACES)))
    named: dict[int, str] = {}
    for place, start in zip(PLACES, (0, (count - each) // 2, count - each), strict=True):
        for row in range(start, start + each):
            named.setdefault(row, place)
    return named

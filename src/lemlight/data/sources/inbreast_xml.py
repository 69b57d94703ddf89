"""INbreast's annotations: property lists of OsiriX, one for each image with findings.

`Images[0].ROIs[]`, each with `Name`, `NumberOfPoints` and `Point_px`, strings "(x, y)" in px of the full image. Three
points and more are an outline, fewer are single pixels. The names hold misspellings and OsiriX's own default names.
"""

import plistlib
import re
from pathlib import Path
from typing import Any

from lemlight.data.lesions import Lesion
from lemlight.errors import ImageError

TYPES = {
    "mass": "mass",
    "spiculated region": "mass",
    "espiculated region": "mass",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "calcification",
    "distortion": "distortion",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",
    "": "",
    "unnamed": "",
    "point": "",  # "Point 1", "Point 3"
}
MUSCLE = "pectoral muscle"
LARGEST = 64 * 2**20  # bytes; a property list is read as a whole
BEYOND = 0.01  # of the image's side: so far may an outline be drawn over the edge by hand
NUMBER = r"\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*"
Region = tuple[str, tuple[tuple[float, float], ...]]  # name in lower case, points (x, y) in px

POINT = re.compile(rf"\({NUMBER},{NUMBER}(?:,{NUMBER})?\)")


def read_annotations(path: Path) -> list[Region]:
    """Read the name in lower case and the points (x, y) in px of every region but the pectoral muscle.

    Raises ImageError where the file is no property list, or not one of a single annotated image.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("larger than any annotation")
        with path.open("rb") as file:
            images = plistlib.load(file, fmt=plistlib.FMT_XML)["Images"]
        if len(images) != 1:
            raise ValueError(f"{len(images)} images")
        regions = [(_name(region), _points(region)) for region in images[0]["ROIs"]]
    except MemoryError:
        raise
    except Exception as error:  # plistlib raises whatever broken XML makes Python raise
        raise ImageError(f"{path.name} is no property list of an INbreast image ({type(error).__name__})") from error
    return [(name, points) for name, points in regions if not name.startswith(MUSCLE)]


def lesions_in(regions: list[Region], shape: tuple[int, int]) -> tuple[Lesion, ...]:
    """Turn regions into lesions of an image of `shape` (H, W) px.

    A vertex up to 1 % of the side beyond the edge is moved onto it. Raises ImageError where a region lies farther
    outside, or has no point: the lesions of that image are not known, a part of them would pass for all.
    """
    return tuple(_lesion(name, points, shape) for name, points in regions)


def _lesion(name: str, points: tuple[tuple[float, float], ...], shape: tuple[int, int]) -> Lesion:
    height, width = shape
    if not points:
        raise ImageError("a region without points")
    for x, y in points:
        beyond = max(-x / width, (x - width + 1) / width, -y / height, (y - height + 1) / height)
        if beyond > BEYOND:
            raise ImageError("a region outside the image")
    inside = tuple((min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)) for x, y in points)
    kind = TYPES.get(re.sub(r"^point \d+$", "point", name), "other")
    return Lesion("polygon" if len(inside) > 2 else "points", type=kind, points=inside)


def _name(region: dict[str, Any]) -> str:
    return " ".join(str(region.get("Name") or "").lower().split())


def _points(region: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    points = []
    for text in region.get("Point_px") or ():
        match = POINT.fullmatch(text.strip())
        if match is None:
            raise ValueError("a point that is no pair of numbers")
        points.append((float(match[1]), float(match[2])))
    return tuple(points)

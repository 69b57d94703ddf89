"""VinDr-Mammo's boxes: the rows of finding_annotations.csv as the lesions of every image."""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lemlight.data.lesions import Lesion
from lemlight.errors import ImageError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
NOTHING = "No Finding"
TYPES = {
    "Mass": "mass",
    "Suspicious Calcification": "calcification",
    "Architectural Distortion": "distortion",
    "Asymmetry": "asymmetry",
    "Focal Asymmetry": "asymmetry",
    "Global Asymmetry": "asymmetry",
    "Suspicious Lymph Node": "other",
    "Nipple Retraction": "other",
    "Skin Retraction": "other",
    "Skin Thickening": "other",
}
ORDER = ("mass", "calcification", "distortion", "asymmetry", "other")  # a box of several categories has the first


@dataclass(frozen=True)
class Finding:
    """A row of the table: its categories, and the text of its box (xmin, ymin, xmax, ymax), "" where it has none."""

    categories: tuple[str, ...]
    box: tuple[str, str, str, str]


def read_categories(text: str) -> tuple[str, ...] | None:
    """Read a list of category names from its text, `['Mass', 'Skin Retraction']`; None where it is none of them."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if {*names} <= {*TYPES, NOTHING} else None


def lesions_of(findings: Sequence[Finding], shape: tuple[int, int]) -> tuple[Lesion, ...]:
    """Make lesions of the findings of one image of `shape` (H, W) px.

    "No Finding" by itself is no lesion; a box that is given twice counts once. Raises ImageError where the lesions are
    not known: no row at all, a finding without a box, a box without extent or wholly outside the image, a finding
    beside "No Finding". A box that reaches beyond the image is cut at the edge.
    """
    if not findings:
        raise ImageError("no row of findings")
    if any(NOTHING in finding.categories for finding in findings):
        if any(finding.categories != (NOTHING,) or any(finding.box) for finding in findings):
            raise ImageError(f"a finding beside {NOTHING!r}")
        return ()
    return tuple(dict.fromkeys(_lesion(finding, shape) for finding in findings))


def reaches_beyond(finding: Finding, shape: tuple[int, int]) -> bool:
    """Whether a finding has a box that `lesions_of` cuts at the edge of the image (H, W)."""
    if not any(finding.box):
        return False
    left, top, right, bottom = _corners(finding)
    return left < 0 or top < 0 or right > shape[1] or bottom > shape[0]


def _corners(finding: Finding) -> tuple[float, float, float, float]:
    if not all(finding.box):
        raise ImageError("a finding without a box")
    try:
        left, top, right, bottom = (float(corner) for corner in finding.box)
    except ValueError as error:
        raise ImageError("a box whose corners are no numbers") from error
    if not (0 < right - left < math.inf and 0 < bottom - top < math.inf):  # refuses NaN as well
        raise ImageError("a box without extent")
    return left, top, right, bottom


def _lesion(finding: Finding, shape: tuple[int, int]) -> Lesion:
    left, top, right, bottom = _corners(finding)
    height, width = shape
    if not (right > 0 and left < width and bottom > 0 and top < height):
        raise ImageError("a box outside the image")
    corners = tuple(
        (min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)) for x, y in ((left, top), (right, bottom))
    )
    return Lesion("box", min((TYPES[name] for name in finding.categories), key=ORDER.index), points=corners)

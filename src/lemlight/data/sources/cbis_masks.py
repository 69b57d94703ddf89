"""Which file of a case is the mammogram or the mask: decided by shape and content, never by name."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lemlight.data.dicom import read_stored_values
from lemlight.data.lesions import ASPECT_TOLERANCE
from lemlight.data.raster import read_raster
from lemlight.data.sources.cbis_files import CaseFile
from lemlight.data.sources.listing import IMAGES, ending
from lemlight.errors import ImageError

SMALLEST_MASK = 0.5  # share of the mammogram's height and width; below it is a crop
MASK_BITS = 8  # of the published masks; mammograms have 16
BLACK_OR_WHITE = 0.98  # share of the pixels of a mask that are one of two values; JPEG blurs its edges
NEAR = 0.1  # of the range of values: what counts as one of the two


def choose_mammogram(files: Sequence[CaseFile]) -> CaseFile | None:
    """Choose the mammogram among the files of a mammogram's cases: the one with the most pixels that is no mask."""
    if not files:
        return None
    largest = max(file.header.shape[0] * file.header.shape[1] for file in files)
    same = [file for file in files if file.header.shape[0] * file.header.shape[1] == largest]
    deepest = max(file.header.bits for file in same)
    same = [file for file in same if file.header.bits == deepest]
    return same[0] if len(same) == 1 else next((file for file in same if not is_two_valued(file.path)), same[0])


def choose_mask(files: Sequence[CaseFile], mammogram: CaseFile) -> tuple[CaseFile | None, str]:
    """Choose the mask of an abnormality, which tables, names and descriptions mix up with its crop.

    It is the file of the mammogram's shape; else the largest one of its aspect (within 2 %) and at least half its
    size, which can be rescaled. A file counts as such if it has two values, which is looked up in the pixels where
    the shape does not decide alone: several files fit, the size differs, or it has not 8 bits.

    Returns:
        The file, and how it was found: "" for the mammogram's shape, "rescaled" for another size. Without one, why:
        "aspect" (a mask's size, another aspect), "crop" (no file is large enough, or two-valued).
    """
    same = [file for file in files if file.header.shape == mammogram.header.shape]
    if len(same) == 1 and same[0].header.bits == MASK_BITS:
        return same[0], ""
    for file in same:
        if is_two_valued(file.path):
            return file, ""
    others = [file for file in files if file.header.shape != mammogram.header.shape and _is_large(file, mammogram)]
    others.sort(key=lambda file: file.header.shape[0] * file.header.shape[1], reverse=True)
    masks = [file for file in others if is_two_valued(file.path)]
    fitting = next((file for file in masks if _has_aspect(file, mammogram)), None)
    if fitting:
        return fitting, "rescaled"
    return None, "aspect" if masks else "crop"


def is_two_valued(path: str) -> bool:
    """Whether nearly all pixels have one of two values; False for a file that cannot be decoded."""
    try:
        values = read_stored_values(Path(path)) if ending(path) in IMAGES else read_raster(Path(path)).pixels
    except ImageError:
        return False
    low, high = float(values.min()), float(values.max())
    near = NEAR * (high - low)
    return low < high and float(np.mean((values <= low + near) | (values >= high - near))) >= BLACK_OR_WHITE


def is_called_a_crop(file: CaseFile) -> bool:
    """Whether its description, or that of its folder, says so."""
    return "crop" in file.said.lower()


def is_named_as_in_the_table(file: CaseFile, files: Sequence[CaseFile], table_name: str) -> bool:
    """Whether the file stands at the place among those of its folder that the table's name has: 000001.dcm is second.

    Tools give the files new names, but keep their order; True where the folder does not hold two files.
    """
    folder = Path(file.path).parent
    beside = sorted(other.path for other in files if Path(other.path).parent == folder)
    place = Path(table_name).stem
    return len(beside) != 2 or not place.isdecimal() or beside.index(file.path) == int(place)


def _is_large(file: CaseFile, mammogram: CaseFile) -> bool:
    shapes = zip(file.header.shape, mammogram.header.shape, strict=True)
    return all(side >= SMALLEST_MASK * full for side, full in shapes)


def _has_aspect(file: CaseFile, mammogram: CaseFile) -> bool:
    (rows, columns), (height, width) = file.header.shape, mammogram.header.shape
    return abs(rows * width / (columns * height) - 1) <= ASPECT_TOLERANCE

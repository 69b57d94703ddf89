"""One decoded mammogram, whatever file it came from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Image:
    """A mammogram as a viewer shows it: air dark, dense tissue bright.

    `pixels` (H, W) float32 in [0, 1]; `spacing_mm` (row, column) or None where the file does not say; `laterality`
    "L", "R" or ""; `view` upper-case ("CC", "MLO", ...) or "".
    """

    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None = None
    laterality: str = ""
    view: str = ""


def to_grey(colour: NDArray[Any]) -> NDArray[np.float64]:
    """Turn (H, W, C) into the luma (H, W) of its first three channels; with one or two channels, into the first."""
    if colour.shape[2] < 3:
        return colour[..., 0].astype(np.float64)
    grey: NDArray[np.float64] = colour[..., :3].astype(np.float64) @ np.array(LUMA)
    return grey

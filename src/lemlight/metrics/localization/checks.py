"""What is asked of one image before it is measured."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemlight.errors import LemlightError


def check_maps(lesions: ArrayLike, strength: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return lesions (H, W) as uint8 labels and strength (H, W) as float32 in [0, 1].

    Raises:
        LemlightError: everything wrong at once: other shapes, labels that are no uint8, strengths outside [0, 1].
    """
    labels, strengths = np.asarray(lesions), np.asarray(strength)
    problems: list[str] = []
    if labels.ndim != 2 or labels.size == 0 or labels.shape != strengths.shape:
        problems.append(f"lesions and strength must both have shape (H, W), got {labels.shape} and {strengths.shape}")
    if labels.dtype.kind not in "bui":
        problems.append(f"lesions must be labels 0, 1, 2 ... of an integer type, got {labels.dtype}")
    elif labels.size and (labels.min() < 0 or labels.max() > 255):
        problems.append("lesions must be labels from 0 to 255")
    if strengths.dtype.kind not in "bfui":
        problems.append(f"strength must be numbers, got {strengths.dtype}")
    elif not np.all((strengths >= 0) & (strengths <= 1)):  # NaN fails both
        problems.append("strength must lie in [0, 1] without NaN: divide the location map by its highest value")
    if problems:
        raise LemlightError("cannot measure a location map: " + "; ".join(problems))
    return labels.astype(np.uint8, copy=False), strengths.astype(np.float32, copy=False)


def check_call(types: Sequence[str], highest_label: int, confidence: float, tolerance_px: float) -> None:
    """Raise LemlightError unless every lesion has a type, the confidence is a probability, the tolerance a length."""
    problems: list[str] = []
    if highest_label > len(types):
        problems.append(
            f"lesion {highest_label} is drawn, but there are {len(types)} types: one per lesion, '' unknown"
        )
    if not 0 <= confidence <= 1:
        problems.append(f"confidence must be a probability in [0, 1], got {confidence}")
    if not 0 <= tolerance_px < np.inf:
        problems.append(f"tolerance_px must be a number of pixels of at least 0, got {tolerance_px}")
    if problems:
        raise LemlightError("cannot measure a location map: " + "; ".join(problems))


def check_cutoff(cutoff: float) -> float:
    """Return the cutoff as a plain float.

    Raises:
        LemlightError: it does not lie in [0, 1].
    """
    if not 0 <= cutoff <= 1:
        raise LemlightError(f"the cutoff of a location map must lie in [0, 1], got {cutoff}")
    return float(cutoff)

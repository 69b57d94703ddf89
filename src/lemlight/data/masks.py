"""Lesion masks as annotation tools save them: class numbers, palettes, colours, opacity, grey values."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lemlight.data.dicom import read_stored_values
from lemlight.data.io import is_dicom
from lemlight.data.raster import read_labels
from lemlight.errors import ImageError

CLASSES = 32  # so many values at most are numbers or colours of classes; more are grey edges
NEARLY_ALL = 0.9  # of the image: no lesion covers that, an inverted mask does


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a lesion mask (H, W) from any format of `read_image`; True is lesion.

    What is not 0 (black, transparent) is lesion: a few values, or numbers without a gap, are classes. With more of
    them, or after lossy compression, the edges are grey, and lesion is from half of the greatest value on. A DICOM mask
    is taken as stored: a window or MONOCHROME1 would turn labels into brightness. Raises ImageError for a file
    that cannot be read, an empty mask, and one that covers nearly everything.
    """
    values, lossy = (read_stored_values(path), False) if is_dicom(path) else read_labels(path)
    values = values.max(axis=2) if values.ndim == 3 else values
    present = np.unique(values[values > 0])
    numbered = present.size and present[-1] == present.size
    classes = present.size <= CLASSES or (numbered and values.dtype.kind in "ui" and present.size < 255)
    mask: NDArray[np.bool_] = (
        values > 0 if classes and not lossy else values >= max(0.5 * present[-1:].max(initial=0), 1e-9)
    )
    if not mask.any():
        raise ImageError(f"{path}: a mask without a lesion; write none where there is none")
    cover, corners = mask.mean(), mask[:: len(mask) - 1 or 1, :: mask.shape[1] - 1 or 1]
    if cover > NEARLY_ALL or (cover > 0.5 and corners.all()):
        raise ImageError(f"{path}: a mask that covers {cover:.0%}: inverted? Lesions are not 0; write none for none")
    return mask

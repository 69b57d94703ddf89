"""Any image file -> pixels in [0, 1]; the content of the file says what it is, not its suffix."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lemlight.data.dicom import read_dicom, read_stored_values
from lemlight.data.image import Image
from lemlight.data.raster import is_raster, read_raster
from lemlight.errors import ImageError

__all__ = ["Image", "read_image", "read_mask"]

HEADER = 132  # bytes: the preamble of a DICOM file and its "DICM"


def read_image(path: Path) -> Image:
    """Read a mammogram from DICOM, PNG, JPEG, TIFF or PGM.

    Raises ImageError naming the file where it is none of these, damaged, or not one 2-D image.
    """
    return read_dicom(path) if _is_dicom(path) else read_raster(path)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a lesion mask (H, W) from any format of `read_image`; True is lesion.

    A file of only zeros and one other value is a mask where it is not zero, whatever the value (1, 255, ...). In any
    other (grey edges of a JPEG or of a resized mask) a pixel is lesion from half of the range of its type upwards. A
    DICOM mask is taken as stored: a window or MONOCHROME1 would turn labels into brightness.
    """
    values = read_stored_values(path) if _is_dicom(path) else read_raster(path).pixels
    present = values[values > 0]
    if values.min() == 0 and (present.size == 0 or present.min() == present.max()):
        return values > 0
    return values >= 0.5


def _is_dicom(path: Path) -> bool:
    """Tell DICOM from the raster formats; raise ImageError for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(HEADER)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if start[128:] == b"DICM":
        return True
    if is_raster(start):
        return False
    raise ImageError(f"{path}: not an image of a known format (DICOM with its preamble, PNG, JPEG, TIFF, PGM or PPM)")

"""DICOM: what a header says, what is wrong with it, and the stored values turned into brightness."""

import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import get_expected_length, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lemlight.data.raster import Image, to_grey
from lemlight.errors import ImageError, as_image_error

VIEW_MEANINGS = {  # CID 4014; vendors hyphenate it at will, so only the letters count
    "craniocaudal": "CC",
    "mediolateral": "ML",
    "mediolateraloblique": "MLO",
    "lateromedial": "LM",
    "lateromedialoblique": "LMO",
    "craniocaudalexaggeratedlaterally": "XCCL",
    "craniocaudalexaggeratedmedially": "XCCM",
}


def spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    """Size of a pixel (row, column) in mm, at the detector where the file says; None where unknown or not above 0."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            row, column = (float(value) for value in dataset[keyword].value)
        except (KeyError, TypeError, ValueError):
            continue
        if 0 < row < math.inf and 0 < column < math.inf:
            return row, column
    return None


def laterality(dataset: Dataset) -> str:
    """Side of the breast, "L" or "R"; "" where the file does not say, or says both."""
    for keyword in ("ImageLaterality", "Laterality"):
        side = _text(dataset, keyword)
        if side in ("L", "R"):
            return side
    return ""


def view(dataset: Dataset) -> str:
    """Find the view ("CC", "MLO", ...) in ViewPosition, else the view code, else PatientOrientation; "" if nowhere.

    CBIS-DDSM keeps it in PatientOrientation, where the directions of the image axes should stand.
    """
    position = _text(dataset, "ViewPosition")
    if position:
        return position
    for code in dataset.get("ViewCodeSequence") or ():
        meaning = re.sub("[^a-z]", "", _text(code, "CodeMeaning").lower())
        if meaning in VIEW_MEANINGS:
            return VIEW_MEANINGS[meaning]
    orientation = re.split(r"\\", _text(dataset, "PatientOrientation"))
    return next((part for part in orientation if part in ("CC", "MLO")), "")


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) else value
    return "\\".join(str(part).strip().upper() for part in parts)


MOST_BITS = 16
PIXEL_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored"),
    *("NumberOfFrames", "PhotometricInterpretation"),
)


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """Least and greatest value that BitsStored and PixelRepresentation allow."""
    values = 2 ** int(dataset.BitsStored)
    return (-values // 2, values // 2 - 1) if dataset.get("PixelRepresentation") == 1 else (0, values - 1)


def brightness_table(dataset: Dataset) -> NDArray[np.float32]:
    """Brightness in [0, 1] of every stored value from the least to the greatest of `stored_range`, float32.

    Modality LUT, then the first VOI LUT or window (a LUT goes before a window), then MONOCHROME1 inverted. Without
    either the range is what the modality LUT makes of the whole stored range, so that images stay comparable. The
    table holds at most 65536 entries: the exact chain in float64 costs nothing. Raises ValueError, KeyError, TypeError
    and the like for contradictory tags.
    """
    _drop_empty(dataset)
    low, high = stored_range(dataset)
    values = apply_modality_lut(np.arange(low, high + 1), dataset)
    if dataset.get("VOILUTSequence"):
        brightness = _voi_lut(values, dataset)
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        brightness = _window(values, dataset)
    else:
        brightness = _scale(values, *_modality_range(values, dataset))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        brightness = 1 - brightness
    table = np.clip(brightness, 0, 1).astype(np.float32)
    if not np.isfinite(table).all():
        raise ValueError("the look-up tables give values that are no numbers")
    return table


def _drop_empty(dataset: Dataset) -> None:
    """Remove empty tags, which mean the same as missing ones but make pydicom fail."""
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"):
        if keyword in dataset and dataset[keyword].is_empty:
            del dataset[keyword]


def _voi_lut(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    item = dataset.VOILUTSequence[0]
    entries, first, bits = item.LUTDescriptor
    # pydicom counts entries in the type of their values: a table of 4096 entries of 8 bits would wrap at 256
    item.LUTDescriptor = [entries, first, 16]
    places = np.clip(np.rint(values).astype(np.int64), first, first + (entries or 2**16) - 1)
    return _scale(apply_voi_lut(places, dataset), 0, 2**bits - 1)


def _window(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    """Window into [0, 1]; far outside of any window lie the ends of the range into which pydicom scales.

    A negative rescale slope turns that range round: its ends must not be sorted.
    """
    bottom, top = apply_voi_lut(np.array([-np.inf, np.inf]), dataset)
    return _scale(apply_voi_lut(values, dataset), bottom, top)


def _modality_range(values: NDArray[Any], dataset: Dataset) -> tuple[float, float]:
    if dataset.get("ModalityLUTSequence"):
        return 0, 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    return float(values.min()), float(values.max())


def _scale(values: NDArray[Any], bottom: float, top: float) -> NDArray[np.float64]:
    if top == bottom:
        raise ValueError("the look-up tables turn every value into the same one")
    return (values.astype(np.float64) - bottom) / (top - bottom)


CONVERT = "convert it to Explicit VR Little Endian (for example with gdcmconv --raw) or leave it out"
COPY_AGAIN = "fetch the file again or leave it out"
CUT_SHORT = f"cut short: it is smaller than its pixels; {COPY_AGAIN}"

log = logging.getLogger(__name__)


def read_dicom(path: Path) -> Image:
    """Read a single-frame mammogram: decode, modality LUT, VOI LUT or window, MONOCHROME1 inverted last.

    Stored values outside of the range of BitsStored are clipped to it: a bright pixel that overflows stays bright.
    Colour photographs become grey, without look-up tables. A "FOR PROCESSING" image is read, with a warning. Raises
    ImageError where the file is damaged, cannot be decoded or is no 2-D image.
    """
    with quiet():
        dataset, stored = _read_stored(path)
        if dataset.get("PresentationIntentType") == "FOR PROCESSING":
            log.warning("%s: FOR PROCESSING; raw detector values look unlike the images FOR PRESENTATION", path)
        broken = "its rescale, window or look-up table tags are invalid ({}); correct them or leave the file out"
        with as_image_error(path, broken):
            if stored.ndim == 3:
                grey = to_grey(stored) / (2 ** int(dataset.BitsStored) - 1)
                pixels = np.clip(grey, 0, 1).astype(np.float32)
            else:
                pixels = _looked_up(stored, brightness_table(dataset), stored_range(dataset)[0])
            return Image(pixels, spacing_mm(dataset), laterality(dataset), view(dataset))


def read_stored_values(path: Path) -> NDArray[np.float32]:
    """Read the values as stored (H, W), divided by the greatest possible: no look-up table, no inversion.

    For masks. Raises ImageError as `read_dicom` does.
    """
    with quiet():
        dataset, stored = _read_stored(path)
        grey = to_grey(stored) if stored.ndim == 3 else stored
        return np.clip(grey / stored_range(dataset)[1], 0, 1).astype(np.float32)


def _read_stored(path: Path) -> tuple[Dataset, NDArray[Any]]:
    """Read a file and decode its stored values (H, W), or (H, W, 3) for colour."""
    with as_image_error(path, f"not a DICOM file, or a damaged one ({{}}); {COPY_AGAIN}"):
        dataset = pydicom.dcmread(path)
        problem = header_problem(dataset, has_pixels=bool(dataset.get("PixelData"))) or decoder_problem(dataset)
    if problem:
        raise ImageError(f"{path}: {problem}")
    kind = f"{dataset.file_meta.TransferSyntaxUID.name}, {dataset.BitsStored} bits"
    broken = (
        f"the pixel data cannot be decoded ({kind}): they are damaged or cut short ({COPY_AGAIN}), "
        f"or of a kind that no decoder here reads ({CONVERT})"
    )
    # left alone, the unused bits of unsigned values are cut off, which makes an overflowing pixel black
    options: dict[str, Any] = {} if dataset.get("PixelRepresentation") == 1 else {"correct_unused_bits": False}
    with as_image_error(path, broken):
        return dataset, pixel_array(dataset, **options)


@contextmanager
def quiet(library: str = "pydicom") -> Iterator[None]:
    """Keep the library's messages and pydicom's warnings away: they quote values of a header, maybe a patient's."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_header(file: BinaryIO, tags: Sequence[str] = ()) -> tuple[FileDataset, str]:
    """Read what describes the pixels, and `tags`, and say what keeps the file from being used as far as that tells.

    Without the pixels; "" if nothing is wrong. Raises whatever pydicom raises about broken tags.
    """
    dataset = pydicom.dcmread(file, specific_tags=[*PIXEL_TAGS, *tags], stop_before_pixels=True)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    deflated = syntax == DeflatedExplicitVRLittleEndian
    size = os.fstat(file.fileno()).st_size
    left = size if deflated else size - file.tell()  # the reader stops where the pixels begin
    problem = header_problem(dataset, has_pixels=left > 0) or decoder_problem(dataset)
    plain = not (problem or deflated or dataset.file_meta.TransferSyntaxUID.is_compressed)
    if plain and left < get_expected_length(dataset):
        problem = CUT_SHORT
    return dataset, problem


def header_problem(dataset: Dataset, has_pixels: bool) -> str:
    """What keeps a file from being a mammogram that can be read, as far as its header says; "" if nothing."""
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return f"{dataset.NumberOfFrames} frames (tomosynthesis?), not one 2-D mammogram; leave it out"
    if not has_pixels:
        return f"no pixel data: it is no image, or the file is cut short; {COPY_AGAIN}"
    if not dataset.get("Rows") or not dataset.get("Columns"):
        return "an image without rows or columns; leave it out"
    if not 1 <= dataset.get("BitsStored", 0) <= MOST_BITS:
        return f"{dataset.get('BitsStored', 'no')} bits stored, where 1 to {MOST_BITS} can be read; {CONVERT}"
    colours = dataset.get("PhotometricInterpretation", "missing")
    if colours not in ("MONOCHROME1", "MONOCHROME2", "RGB") and not str(colours).startswith("YBR"):
        return f"photometric interpretation {colours!r}, not one that can be read; convert it to MONOCHROME2"
    return ""


def decoder_problem(dataset: Dataset) -> str:
    """What keeps the pixels from being decoded on this machine, as far as the header says; "" if nothing."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        return f"no transfer syntax in its header, so it cannot be decoded; {CONVERT}"
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    return "" if available else f"no decoder for {syntax.name}; {CONVERT}"


def _looked_up(stored: NDArray[Any], table: NDArray[np.float32], low: int) -> NDArray[np.float32]:
    """Look every stored value up; in blocks of rows that stay in the cache, which is 3 times faster than at once."""
    pixels = np.empty(stored.shape, dtype=np.float32)
    for row in range(0, len(stored), 64):
        block = stored[row : row + 64]
        places = block.astype(np.int32) - low if low else block
        np.take(table, places, out=pixels[row : row + 64], mode="clip")
    return pixels

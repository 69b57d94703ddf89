"""Stored values of a DICOM image -> brightness, as one table over all values that can be stored (PS3.3 C.11)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

MOST_BITS = 16


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

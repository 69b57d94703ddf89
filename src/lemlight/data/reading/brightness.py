"""DICOM's stored values -> brightness: the bits that are pixels, look-up tables and windows, padding as air."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

BRIGHTNESS_TAGS = (
    *("PixelRepresentation", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
LEAST_CONTRAST = 0.01  # of the full range: a window or table that leaves less of the image shows nothing


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """Least and greatest value that BitsStored and PixelRepresentation allow."""
    values = 2 ** int(dataset.BitsStored)
    return (-values // 2, values // 2 - 1) if dataset.get("PixelRepresentation") == 1 else (0, values - 1)


def pixel_values(raw: NDArray[Any], dataset: Dataset, notes: list[str]) -> NDArray[Any]:
    """Cut the pixel values (H, W) out of the raw cells: the BitsStored bits up to HighBit, as PS3.5 8.1.1 says.

    Bits beyond are no pixel data but, for example, an old-style overlay. Only where they continue what lies beside
    them have bright values overflowed; these are clipped to the range. Either is noted.
    """
    low, high = stored_range(dataset)
    shift = _shift(raw, dataset)
    whole = raw >> shift if shift else raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if whole.size == 0 or (low <= whole.min() and whole.max() <= high):
        return whole
    bits = int(dataset.BitsStored)
    cells = whole.view(f"u{whole.itemsize}")
    for group in range(0x6000, 0x6020, 2):  # overlays that say which bit is theirs
        position = dataset.get((group, 0x0102))
        bit = int(position.value or 0) - shift if position is not None else 0
        if bits <= bit < 8 * whole.itemsize:
            cells = cells & ~cells.dtype.type(1 << bit)
    values = _cut(cells, bits, signed=low < 0)
    left = cells.view(whole.dtype).astype(np.int64)
    if _continues(left, values):
        notes.append(f"values beyond {bits} bits stored: taken for bright pixels that overflow, and clipped")
        return np.asarray(np.clip(left, low, high))
    notes.append(f"bits beyond the {bits} that are stored (an overlay?): cut off")
    return values


def _cut(cells: NDArray[Any], bits: int, signed: bool) -> NDArray[np.int64]:
    """The lowest bits of the cells as numbers."""
    values: NDArray[np.int64] = cells.astype(np.int64) & (2**bits - 1)
    return values - ((values >> (bits - 1)) << bits) if signed else values


def _shift(raw: NDArray[Any], dataset: Dataset) -> int:
    """By how many bits the pixel lies above the lowest; an encoder may have shifted it down already."""
    bits, high_bit = int(dataset.BitsStored), dataset.get("HighBit")
    if not isinstance(high_bit, int) or not bits <= high_bit < 8 * raw.itemsize:
        return 0
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    return 0 if compressed and raw.max() < 2**bits else high_bit + 1 - bits


def _continues(whole: NDArray[np.int64], values: NDArray[np.int64]) -> bool:
    """Whether most cells with other bits fit to the neighbours without them as they are, not as masked."""
    fits = pairs = 0
    beyond = whole != values
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        edge = beyond[one] != beyond[other]
        apart = [np.abs(image[one][edge] - image[other][edge]) for image in (whole, values)]
        fits += int((apart[0] < apart[1]).sum())
        pairs += int(edge.sum())
    return 2 * fits > pairs


def padding(raw: NDArray[Any], dataset: Dataset, notes: list[str]) -> NDArray[np.bool_] | None:
    """Where PixelPaddingValue, up to PixelPaddingRangeLimit, stands in the place of air (H, W); None where nowhere.

    A value that is every pixel's is none of padding.
    """
    ends = padding_ends(dataset, notes)
    half = 2 ** (8 * raw.itemsize - 1) if raw.dtype.kind == "i" else 0  # a writer may have mixed up US and SS
    ends = sorted((end + half) % 2 ** (8 * raw.itemsize) - half for end in ends)
    padded = np.zeros(raw.shape, dtype=bool)
    low = stored_range(dataset)[0]
    written = [raw, pixel_values(raw, dataset, [])] if ends else []  # some write it with all bits of a cell
    if ends and low:  # some write signed values without their sign above the bits that are stored
        written.append(_cut(raw, int(dataset.BitsStored), signed=True))
    for pixels in written:
        padded |= (pixels >= ends[0]) & (pixels <= ends[-1])
    return padded if padded.any() and not padded.all() else None


def padding_ends(dataset: Dataset, notes: list[str]) -> list[int]:
    """PixelPaddingValue and, where it is there, PixelPaddingRangeLimit; empty without the first. A broken one is noted.

    An empty tag means the same as a missing one.
    """
    ends = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            if name in dataset and not dataset[name].is_empty:
                ends.append(int(dataset[name].value))
                continue
        except Exception:  # whatever a broken value makes pydicom raise
            notes.append(f"a {name} that is invalid: not used")
        if not ends:
            return []
    return ends


Shown = tuple[NDArray[np.float64], int]  # brightness, and the bits of the numbers that became it


def brightness_table(dataset: Dataset, low: int, high: int, notes: list[str]) -> tuple[NDArray[np.float32], int]:
    """Brightness in [0, 1] of every stored value from the least to the greatest of `stored_range`, float32; its bits.

    Modality LUT, then the first VOI LUT or window (a LUT goes before a window) that can be used and shows something of
    the values from `low` to `high` that the image holds, then MONOCHROME1 inverted. Without any the range is what the
    modality LUT makes of the whole stored range, so that images stay comparable. What cannot be used is noted. The
    table holds at most 65536 entries: the exact chain in float64 costs nothing.
    """
    _drop_empty(dataset)
    least, greatest = stored_range(dataset)
    values, ends = _modality(np.arange(least, greatest + 1), dataset, notes)
    brightness, bits = _scale(values, *ends), int(dataset.BitsStored)
    held = values[low - least : high - least + 1]  # by the image
    ways = [
        *(("VOI LUT", partial(_voi_lut, item=item, held=held)) for item in dataset.get("VOILUTSequence") or ()),
        *(("window", partial(_window, index=index)) for index in range(_windows(dataset, notes))),
    ]
    for what, show in ways:
        try:
            shown, depth = show(values, dataset)
            seen = np.clip(shown[low - least : high - least + 1], 0, 1)
            greys = np.count_nonzero((seen > 0) & (seen < 1))
            if (
                not np.isfinite(shown).all()
                or (low < high and np.ptp(seen) < LEAST_CONTRAST)
                or greys < min(1, high - low - 1)
            ):
                raise ValueError("nothing is seen")
        except Exception:  # whatever a broken tag makes pydicom and Python raise
            notes.append(f"a {what} that is invalid or shows nothing of the image: not used")
            continue
        brightness, bits = shown, depth
        break
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        brightness = 1 - brightness
    return np.clip(brightness, 0, 1).astype(np.float32), bits


def _drop_empty(dataset: Dataset) -> None:
    """Remove empty tags, which mean the same as missing ones but make pydicom fail."""
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"):
        if keyword in dataset and dataset[keyword].is_empty:
            del dataset[keyword]


def _modality(stored: NDArray[Any], dataset: Dataset, notes: list[str]) -> tuple[NDArray[Any], tuple[float, float]]:
    """Values after the modality LUT or rescale, and the ends of their range; as stored where neither can be used."""
    try:
        if dataset.get("ModalityLUTSequence"):
            values, bits = _looked_up(stored, dataset.ModalityLUTSequence[0], dataset)
            if np.ptp(values) == 0:
                raise ValueError("the same value for all")
            return values, (0, 2**bits - 1)
        values = apply_modality_lut(stored, dataset)
        if not np.isfinite(values).all() or values[0] == values[-1]:
            raise ValueError("the same value for all")
    except Exception:
        notes.append("a rescale or modality LUT that is invalid: not used")
        for keyword in ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"):
            dataset.pop(keyword, None)
        values = stored
    return values, (float(values.min()), float(values.max()))


def _voi_lut(values: NDArray[Any], dataset: Dataset, item: Dataset, held: NDArray[Any]) -> Shown:
    found, bits = _looked_up(values, item, dataset, held)
    return _scale(found, 0, 2**bits - 1), bits


def _looked_up(
    values: NDArray[Any], item: Dataset, dataset: Dataset, held: NDArray[Any] | None = None
) -> tuple[NDArray[Any], int]:
    """Look values up in the table of a LUT sequence; with the bits of its entries.

    A table may be longer than its descriptor says, hold more bits, or be written with the wrong sign; shorter only
    where the image's values, `held`, do not need the rest: else ValueError.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries, data = entries % 2**16 or 2**16, item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        table = np.frombuffer(data, "u1" if bits <= 8 and len(data) < 2 * entries else f"{order}u2")
    else:
        table = np.atleast_1d(np.asarray(data, dtype=np.int64)) % 2**16
    table = table[:entries]
    if first >= 2**15 and values.min() < 0:
        first -= 2**16
    if not 1 <= bits <= 16 or table.max() >= 2**bits:
        bits = max(1, int(table.max()).bit_length())
    places = np.rint(values).astype(np.int64) - first
    if held is not None and len(table) <= min(held.max() - first, entries - 1):
        raise ValueError("the table is cut short")
    return table[np.clip(places, 0, len(table) - 1)], bits


def _windows(dataset: Dataset, notes: list[str]) -> int:
    """How many windows there are; a function that is none of the standard's is noted."""
    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return 0
    if str(dataset.get("VOILUTFunction", "LINEAR")).upper() not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append("a window function that is invalid: LINEAR taken")
        del dataset.VOILUTFunction
    try:
        return int(min(dataset["WindowCenter"].VM, dataset["WindowWidth"].VM))
    except Exception:  # not a number
        return 1


def _window(values: NDArray[Any], dataset: Dataset, index: int) -> Shown:
    """Window into [0, 1]; far outside of any window lie the ends of the range into which pydicom scales.

    A negative rescale slope turns that range round: its ends must not be sorted.
    """
    bottom, top = apply_windowing(np.array([-np.inf, np.inf]), dataset, index)
    return _scale(apply_windowing(values, dataset, index), bottom, top), int(dataset.BitsStored)


def _scale(values: NDArray[Any], bottom: float, top: float) -> NDArray[np.float64]:
    return (values.astype(np.float64) - bottom) / (top - bottom)

"""DICOM files: what is wrong with them as far as the header says, and their pixels as brightness."""

import logging
import os
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
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lemlight.data.preparing.brightness import brightness_table, padding, padding_ends, pixel_values, stored_range
from lemlight.data.reading.code_stream import code_stream_problem, decoded, inflated_problem
from lemlight.data.reading.dicom_header import (
    KIND_TAGS,
    MENDED,
    doubts,
    laterality,
    mend_pixel_tags,
    not_a_mammogram,
    quarter_turns,
    spacing_mm,
    view,
)
from lemlight.data.reading.raster import Image, colour_notes, to_grey
from lemlight.errors import ImageError, as_image_error
from lemlight.files import open_file
from lemlight.limits import held

MOST_BITS = 16
COLOURS = (
    *("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
    *("YBR_PARTIAL_420", "YBR_PARTIAL_422"),
)
PIXEL_TAGS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"),
    *MENDED,
    *KIND_TAGS,
)


CONVERT = "convert it to Explicit VR Little Endian (for example with gdcmconv --raw) or leave it out"
COPY_AGAIN = "fetch the file again or leave it out"
CUT_SHORT = f"cut short: it is smaller than its pixels; {COPY_AGAIN}"


def read_dicom(path: Path) -> Image:
    """Read a single-frame mammogram: decode, modality LUT, VOI LUT or window, MONOCHROME1 inverted last.

    Bits that are no pixel data do not count, padding is air (0). Colour photographs become grey, without look-up
    tables. `notes` say what is odd about the file or could not be used. Raises ImageError where the file is damaged,
    cannot be decoded or is no 2-D mammogram.
    """
    with quiet():
        dataset, stored, notes = _read_stored(path)
        with as_image_error(path, "its image tags are invalid ({}); correct them or leave the file out"):
            notes, bits = [*notes, *doubts(dataset)], int(dataset.BitsStored)
            if stored.ndim == 3:
                pixels = np.clip(to_grey(stored) / (2**bits - 1), 0, 1).astype(np.float32)
                notes += colour_notes(stored)
            else:
                pixels, bits = _brightness(stored, dataset, notes)
            where = spacing_mm(dataset), laterality(dataset), view(dataset)
            return Image(pixels, *where, bits=bits, turns=quarter_turns(dataset), notes=tuple(dict.fromkeys(notes)))


def read_stored_values(path: Path) -> NDArray[Any]:
    """Read the values as stored, (H, W) or in colour (H, W, 3): no look-up table, no inversion.

    For masks. Raises ImageError as `read_dicom` does.
    """
    with quiet():
        dataset, stored, _ = _read_stored(path, mask=True)
        return stored if stored.ndim == 3 else pixel_values(stored, dataset, [])


def _read_stored(path: Path, mask: bool = False) -> tuple[Dataset, NDArray[Any], list[str]]:
    """Read a file and decode its cells (H, W) with all their bits, or (H, W, 3) for colour; with notes on its tags."""
    with as_image_error(path, f"not a DICOM file, or a damaged one ({{}}); {COPY_AGAIN}"):
        with open_file(path) as file:
            if problem := inflated_problem(file):
                raise ImageError(f"{path}: {problem}")
            dataset = pydicom.dcmread(file)
        notes = mend_pixel_tags(dataset)
        problem = "" if mask else not_a_mammogram(dataset)
        problem = problem or header_problem(dataset, has_pixels=bool(dataset.get("PixelData")))
        problem = problem or decoder_problem(dataset) or code_stream_problem(dataset)
    if problem:
        raise ImageError(f"{path}: {problem}")
    kind = f"{syntax_name(dataset)}, {dataset.BitsStored} bits"
    broken = (
        f"the pixel data cannot be decoded ({kind}): they are damaged or cut short ({COPY_AGAIN}), "
        f"or of a kind that no decoder here reads ({CONVERT})"
    )
    with as_image_error(path, broken):
        return dataset, decoded(dataset), notes


def _brightness(stored: NDArray[Any], dataset: Dataset, notes: list[str]) -> tuple[NDArray[np.float32], int]:
    """Turn decoded cells (H, W) into brightness in [0, 1], and give the bits of the numbers that became it."""
    padded = padding(stored, dataset, notes)
    stored = stored if padded is None else np.where(padded, stored[~padded].min(), stored)
    values = pixel_values(stored, dataset, notes)
    table, bits = brightness_table(dataset, int(values.min()), int(values.max()), notes)
    pixels = _looked_up(values, table, stored_range(dataset)[0])
    if padded is not None:
        pixels[padded] = 0
    return pixels, bits


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

    Without the pixels, tags as they are; "" if nothing is wrong. Raises whatever pydicom raises about broken tags.
    """
    start = file.tell()
    if problem := inflated_problem(file):
        raise ImageError(problem)
    file.seek(start)
    dataset = pydicom.dcmread(file, specific_tags=[*PIXEL_TAGS, *tags], stop_before_pixels=True)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    deflated = syntax == DeflatedExplicitVRLittleEndian
    size = os.fstat(file.fileno()).st_size
    left = size if deflated else size - file.tell()  # the reader stops where the pixels begin
    mended = Dataset()  # which shares no tags with the other
    mended.update(dataset)
    mended.file_meta = dataset.file_meta
    mend_pixel_tags(mended)
    problem = not_a_mammogram(mended) or header_problem(mended, has_pixels=left > 0) or decoder_problem(mended)
    plain = not (problem or deflated or dataset.file_meta.TransferSyntaxUID.is_compressed)
    if plain and left < get_expected_length(mended):
        problem = CUT_SHORT
    return dataset, problem


def header_notes(dataset: Dataset) -> tuple[str, ...]:
    """What `read_dicom` notes of a file that its header alone tells: its kind, tables and windows that are invalid."""
    notes = [*mend_pixel_tags(dataset), *doubts(dataset)]
    if dataset.get("SamplesPerPixel", 1) == 1:
        padding_ends(dataset, notes)
        brightness_table(dataset, *stored_range(dataset), notes)
    return tuple(dict.fromkeys(notes))


def header_problem(dataset: Dataset, has_pixels: bool) -> str:
    """What keeps a file from being a mammogram that can be read, as far as its header says; "" if nothing."""
    if dataset.get("NumberOfFrames", 1) > 1:
        return f"{dataset.NumberOfFrames} frames (tomosynthesis?), not one 2-D mammogram; leave it out"
    if not has_pixels:
        return f"no pixel data: it is no image, or the file is cut short; {COPY_AGAIN}"
    if not dataset.get("Rows") or not dataset.get("Columns"):
        return "an image without rows or columns; leave it out"
    if not 1 <= dataset.get("BitsStored", 0) <= MOST_BITS:
        return f"{dataset.get('BitsStored', 'no')} bits stored, where 1 to {MOST_BITS} can be read; {CONVERT}"
    colours, samples = str(dataset.get("PhotometricInterpretation")), int(dataset.get("SamplesPerPixel") or 1)
    if colours not in COLOURS:  # not quoted: a damaged tag may hold anything
        return "a photometric interpretation that cannot be read; convert it to MONOCHROME2"
    if samples != (1 if colours.startswith("MONOCHROME") else 3):
        return f"{samples} samples of a pixel, which do not fit to its colours ({colours}); {COPY_AGAIN}"
    if not dataset.BitsStored <= int(dataset.get("BitsAllocated") or 0) <= 32:
        return f"bits allocated that do not hold the {dataset.BitsStored} bits stored; {COPY_AGAIN}"
    return held().problem(int(dataset.Rows), int(dataset.Columns), samples * dataset.BitsAllocated / 8)


def decoder_problem(dataset: Dataset) -> str:
    """What keeps the pixels from being decoded on this machine, as far as the header says; "" if nothing."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        return f"no transfer syntax in its header, so it cannot be decoded; {CONVERT}"
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    return "" if available else f"no decoder for {syntax_name(dataset)}; {CONVERT}"


def syntax_name(dataset: Dataset) -> str:
    """The name of the transfer syntax, where it is one of the standard: a damaged one may hold anything."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    known = syntax and UID(syntax).type == "Transfer Syntax"
    return str(UID(syntax).name) if known else "an unknown transfer syntax" if syntax else "no transfer syntax"


def _looked_up(stored: NDArray[Any], table: NDArray[np.float32], low: int) -> NDArray[np.float32]:
    """Look every stored value up; in blocks of rows that stay in the cache, which is 3 times faster than at once."""
    pixels = np.empty(stored.shape, dtype=np.float32)
    for row in range(0, len(stored), 64):
        block = stored[row : row + 64]
        places = block.astype(np.int32) - low if low else block
        np.take(table, places, out=pixels[row : row + 64], mode="clip")
    return pixels

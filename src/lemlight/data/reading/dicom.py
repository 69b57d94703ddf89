"""DICOM files: what is wrong with them as far as the header says, and their pixels as brightness."""

import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import get_expected_length, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from lemlight.data.reading.brightness import brightness_table, padding, padding_ends, pixel_values, stored_range
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
from lemlight.limits import GB, LEAVE_OUT, held

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
        problem = problem or decoder_problem(dataset) or _code_stream_problem(dataset)
    if problem:
        raise ImageError(f"{path}: {problem}")
    kind = f"{syntax_name(dataset)}, {dataset.BitsStored} bits"
    broken = (
        f"the pixel data cannot be decoded ({kind}): they are damaged or cut short ({COPY_AGAIN}), "
        f"or of a kind that no decoder here reads ({CONVERT})"
    )
    with as_image_error(path, broken):
        return dataset, _decoded(dataset), notes


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


# Compressed pixels: what they say of themselves against the header, before a decoder is asked, and decoding. Decoders
# written in C believe the header: where it says something other than the code stream, GDCM ends the process.
STEP = 2**20  # bytes that are inflated at once
SIZ = b"\xff\x4f\xff\x51"  # the start of JPEG 2000 and the segment with its size
NO_SIZE = (0xC4, 0xC8, 0xCC)  # markers among the frame headers that are none
END = b"\xff\xd9"
LAST = 4  # bytes
MORE = bytes(np.random.default_rng(0).integers(0, 255, 256, dtype=np.uint8))  # without a marker


def inflated_problem(file: BinaryIO) -> str:
    """Say whether a deflated file is larger than the limits, by inflating it in steps that are not kept; "" if not."""
    start = file.tell()
    read_preamble(file, False)
    deflated = _read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    inflating, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    data = file.read() if deflated else b""
    file.seek(start)
    while data and not inflating.eof:  # behind the end a rest stays unconsumed for ever
        size += len(inflating.decompress(data, STEP))
        if size > held().decoded * GB:
            return f"it is larger than limits.decoded={held().decoded:g} (GB) when it is inflated; {LEAVE_OUT}"
        data = inflating.unconsumed_tail
    return ""


def _code_stream_problem(dataset: Dataset) -> str:
    """Say where the code stream has another size, other samples or more bits than the header says; "" if nowhere."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in JPEG2000TransferSyntaxes:
        read = _jpeg_2000
    elif syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        read = _jpeg
    else:
        return ""
    found = read(get_frame(dataset.PixelData, 0, number_of_frames=1))
    if found is None:
        return f"the pixel data cannot be decoded: their code stream has no size; {COPY_AGAIN}"
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if found[:3] != (dataset.Rows, dataset.Columns, samples) or found[3] > dataset.BitsAllocated:
        (height, width, components, bits), said = found, (dataset.Rows, dataset.Columns, samples)
        return (
            f"its code stream says {height} x {width} px, {components} samples, {bits} bits, its header "
            f"{said[0]} x {said[1]} px, {said[2]} samples, {dataset.BitsAllocated} bits; {COPY_AGAIN}"
        )
    return ""


def _jpeg(stream: bytes) -> tuple[int, int, int, int] | None:
    """Height, width, samples and bits by the frame header of JPEG and JPEG-LS; None without one."""
    place = 2
    while stream[:2] == b"\xff\xd8" and place + 10 <= len(stream) and stream[place] == 0xFF:
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker == 0xFF:  # fill
            place += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in NO_SIZE) or marker == 0xF7:
            bits, height, width, samples = struct.unpack(">BHHB", stream[place + 4 : place + 10])
            return height, width, samples, bits
        place += 2 + length
    return None


def _jpeg_2000(stream: bytes) -> tuple[int, int, int, int] | None:
    """The same by the SIZ segment of JPEG 2000."""
    place = stream.find(SIZ, 0, 4096)
    if place < 0 or place + 43 > len(stream):
        return None
    right, bottom, left, top = struct.unpack(">4I", stream[place + 8 : place + 24])
    samples, bits = struct.unpack(">HB", stream[place + 40 : place + 43])
    return bottom - top, right - left, samples, (bits & 0x7F) + 1


def _decoded(dataset: Dataset) -> NDArray[Any]:
    """Decode the cells (H, W) with all their bits, or (H, W, 3); raises whatever a decoder raises.

    JPEG 2000 by OpenJPEG, grey JPEG Lossless by libjpeg-turbo, the rest by the first of pydicom's decoders: they give
    the values that GDCM gives, are faster, and do not end the process. What decodes short is refused.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in (JPEGLossless, JPEGLosslessSV1) and dataset.get("SamplesPerPixel", 1) == 1:
        values = _lossless_jpeg(get_frame(dataset.PixelData, 0, number_of_frames=1))
        if dataset.get("PixelRepresentation") == 0 and 8 * values.itemsize == dataset.BitsAllocated:
            return values
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugin = "pylibjpeg" if syntax in JPEG2000TransferSyntaxes else ""
        pixels: NDArray[Any] = pixel_array(dataset, correct_unused_bits=False, decoding_plugin=plugin)
    for warning in caught if syntax == RLELossless else ():
        lengths = re.search(r"(\d+) vs\. (\d+) bytes", str(warning.message))
        if lengths and int(lengths[1]) > int(lengths[2]) + 1:  # an odd segment has one byte more
            raise ValueError("a segment is longer than its pixels")
    return pixels


def _lossless_jpeg(stream: bytes) -> NDArray[Any]:
    """Decode grey JPEG Lossless; ValueError where bytes are missing, with which it decodes all the same.

    Then a value lies beyond its bits; or the stream ends too early, so that other bytes behind it change pixels; or too
    late, so that other bytes in place of its last ones change none.
    """
    values: NDArray[Any] = imagecodecs.jpeg8_decode(stream)
    end, found = stream.rfind(END), _jpeg(stream)
    beyond = found is None or int(values.max()) >> found[3]
    ends = dict.fromkeys((end, len(stream[:end].rstrip(b"\0\xff"))))  # zeros at the end are pixels of air, or fill
    if beyond or not any(_ends_at(stream, end, values) for end in ends):
        raise ValueError("bytes are missing")
    return values


def _ends_at(stream: bytes, end: int, values: NDArray[Any]) -> bool:
    """Whether other bytes from `end` on leave the values as they are, and other ones just before change them."""
    if end < LAST:
        return False
    longer, other = (imagecodecs.jpeg8_decode(stream[:place] + MORE + END) for place in (end, end - LAST))
    return np.array_equal(values, longer) and not np.array_equal(values, other)

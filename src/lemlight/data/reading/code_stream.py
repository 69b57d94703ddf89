"""Compressed pixels of DICOM: what they say of themselves against the header, before a decoder is asked, and decoding.

Decoders written in C believe the header: where it says something other than the code stream, GDCM ends the process.
"""

import re
import struct
import warnings
import zlib
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from lemlight.limits import GB, LEAVE_OUT, held

DAMAGED = "it is damaged: fetch the file again or leave it out"
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


def code_stream_problem(dataset: Dataset) -> str:
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
        return f"the pixel data cannot be decoded: their code stream has no size; {DAMAGED}"
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if found[:3] != (dataset.Rows, dataset.Columns, samples) or found[3] > dataset.BitsAllocated:
        (height, width, components, bits), said = found, (dataset.Rows, dataset.Columns, samples)
        return (
            f"its code stream says {height} x {width} px, {components} samples, {bits} bits, its header "
            f"{said[0]} x {said[1]} px, {said[2]} samples, {dataset.BitsAllocated} bits; {DAMAGED}"
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


def decoded(dataset: Dataset) -> NDArray[Any]:
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

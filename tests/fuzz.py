"""`make fuzz`: mutations of phantom files in every syntax and raster format, read under limits; a bad file is one line.

It fails where the parent dies, a file takes longer or more than the limits, anything but an ImageError comes back, a
message lacks the file's name, or a whole file among the mutations is not read: python -m tests.fuzz --hours 2. Such a
file is kept, in the folder lemlight-fuzz of the system's temporary one.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.reading.headers import read_headers
from lemlight.data.reading.io import read_image
from lemlight.data.reading.isolated import ProcessLost, map_isolated
from lemlight.errors import ImageError
from lemlight.limits import Limits, hold
from tests.data.conftest import _write_dicom

SYNTAXES = (
    *(ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit, JPEGLosslessSV1),
    *(JPEGLSLossless, JPEG2000Lossless),
)
TAGS = {
    **dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"), "number"),
    **dict.fromkeys(("PixelRepresentation", "PlanarConfiguration", "NumberOfFrames", "WindowWidth"), "number"),
    **dict.fromkeys(("PhotometricInterpretation", "ImageType", "PatientOrientation", "VOILUTFunction"), "word"),
}
NUMBERS = (0, 1, 3, 7, 8, 12, 16, 31, 32, 64, 255, 280, 30_000, 65_535)
WORDS = ("", "RGB", "YBR_FULL", "YBR_RCT", "YBR_ICT", "PALETTE COLOR", "MONOCHROME1", "DOE^JANE", "\\" * 40)
LIMITS = Limits(memory=1.5, seconds=20.0)
KEPT = Path(tempfile.gettempdir()) / "lemlight-fuzz"
TOGETHER = 60  # mutations between two whole files


def originals(folder):
    """A phantom mammogram as DICOM in every syntax, and in every raster format."""
    pixels = render(PhantomSettings(patients=1, scale=0.25), 0, "L", "CC").pixels
    words = np.rint(pixels * 4095).astype(np.uint16)
    small = (words >> 4).astype(np.uint8)
    files = []
    for syntax in SYNTAXES:
        values = small if syntax == JPEGBaseline8Bit else words
        tags = {"BitsStored": 8 if values is small else 12, "SOPInstanceUID": "1.2.3"}  # the same bytes each time
        files.append(_write_dicom(folder / f"{syntax.keyword}.dcm", values, syntax, **tags))
    for suffix in ("png", "jpg", "pgm"):
        cv2.imwrite(str(folder / f"a.{suffix}"), small if suffix == "jpg" else words)
        files.append(folder / f"a.{suffix}")
    for kind in ("raw", "packbits", "tiff_lzw", "tiff_deflate", "jpeg"):
        Image.fromarray(small).save(folder / f"{kind}.tif", compression=None if kind == "raw" else kind)
        files.append(folder / f"{kind}.tif")
    return files


def mutated(data, draw):
    """Bytes with one to a few of them changed, lost, doubled or cut off; most often in the header."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        place = draw.randrange(max(1, min(len(data), draw.choice((200, 1500, len(data))))))
        kind = draw.randrange(6)
        if kind < 3:
            data[place : place + draw.choice((1, 2, 4))] = draw.choice(
                (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\x01", draw.randbytes(2))
            )
        elif kind == 3:
            del data[place : place + draw.choice((1, 3, 200))]
        elif kind == 4:
            data[place:place] = data[place : place + draw.choice((1, 16, 500))]
        else:
            del data[max(place, 16) :]
    return bytes(data)


def write_mutation(original, path, draw):
    """Write a file with absurd values in its tags, or with other bytes."""
    if original.suffix == ".dcm" and draw.random() < 0.4:
        dataset = pydicom.dcmread(original)
        for tag in draw.sample(sorted(TAGS), draw.choice((1, 1, 2))):
            value = draw.choice(NUMBERS if TAGS[tag] == "number" else WORDS)
            element = dataset.data_element(tag) if tag in dataset else None
            if element is not None and draw.random() < 0.1:
                del dataset[tag]
            else:
                setattr(dataset, tag, value)
        try:
            dataset.save_as(path, enforce_file_format=True)
            return
        except Exception:  # pydicom writes no such value
            pass
    path.write_bytes(mutated(original.read_bytes(), draw))


def shape_of(path):
    """What a process does with a file."""
    return read_image(path).pixels.shape


def fuzz(seed, count, seconds, workers):
    """Read mutations until `count` of them or `seconds` are over; the outcomes in numbers, and what was wrong."""
    draw, found, wrong, begun = random.Random(seed), Counter(), [], time.monotonic()
    hold(LIMITS)
    with tempfile.TemporaryDirectory() as name, pydicom.config.disable_value_validation():
        folder = Path(name)
        whole = originals(folder)
        expected = {path: shape_of(path) for path in whole}
        while found["mutations"] < count and time.monotonic() - begun < seconds:
            files = []
            for number in range(min(TOGETHER, count - found["mutations"])):
                original = draw.choice(whole)
                files.append(folder / f"m{number}{original.suffix}")
                write_mutation(original, files[-1], draw)
            files.insert(draw.randrange(len(files) + 1), good := draw.choice(whole))
            headers = read_headers(list(map(str, files)))
            for path, header, result in zip(files, headers, map_isolated(shape_of, files, workers), strict=True):
                if path == good:
                    wrong += [] if result == expected[good] and not header.problem else [f"lost: {path.name}: {result}"]
                    continue
                before = len(wrong)
                kind = (
                    "killers"
                    if isinstance(result, ProcessLost)
                    else "refused"
                    if isinstance(result, ImageError)
                    else "read"
                )
                found.update(["mutations", kind])
                if isinstance(result, ImageError) and str(path) not in str(result):
                    wrong.append(f"no name in: {result}")
                if "limits.seconds" in str(result):
                    wrong.append(f"a hang: {result}")
                if len(wrong) > before:
                    KEPT.mkdir(exist_ok=True)
                    shutil.copy(path, KEPT / f"{seed}-{found['mutations']}{path.suffix}")
    return found, wrong


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; a new one without")
    parser.add_argument("--count", type=int, default=10**9, help="mutations at most")
    parser.add_argument("--hours", type=float, default=0.005, help="at most")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    found, wrong = fuzz(seed, given.count, 3600 * given.hours, given.workers)
    print(f"seed {seed}: {dict(found)}")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    from tests.fuzz import main as imported  # the processes that read import it, too

    imported()

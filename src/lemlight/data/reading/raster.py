"""PNG, JPEG, TIFF and PNM files, read without losing bits; and the image that every format becomes."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray

from lemlight.errors import ImageError, as_image_error
from lemlight.files import open_file
from lemlight.limits import check_size

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Image:
    """A mammogram as a viewer shows it: air dark, dense tissue bright.

    `pixels` (H, W) float32 in [0, 1]; `spacing_mm` (row, column) or None where the file does not say; `laterality`
    "L", "R" or ""; `view` upper-case ("CC", "MLO", ...) or ""; `bits` of the numbers that the pixels were; `turns` by
    90 degrees counterclockwise that bring the chest wall to a side; `notes` say what is odd about the file.
    """

    pixels: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None = None
    laterality: str = ""
    view: str = ""
    bits: int = 16
    turns: int = 0
    notes: tuple[str, ...] = ()


def to_grey(colour: NDArray[Any]) -> NDArray[np.float64]:
    """Turn (H, W, C) into the luma (H, W) of its first three channels; with one or two channels, into the first."""
    if colour.shape[2] < 3:
        return colour[..., 0].astype(np.float64)
    grey: NDArray[np.float64] = colour[..., :3].astype(np.float64) @ np.array(LUMA)
    return grey


def colour_notes(values: NDArray[Any]) -> tuple[str, ...]:
    """Say that values (H, W) or (H, W, C) are more than grey, where a thousandth of the pixels is."""
    if values.ndim < 3 or values.shape[2] < 3:
        return ()
    some = values[::2, ::2, :3].astype(np.float32)
    coloured = some.max(axis=2) - some.min(axis=2) > 0.1 * some.max()
    return (COLOUR,) if coloured.mean() > 0.001 else ()


COLOUR = "in colour (marks drawn in, a colour map?): only its brightness is used"
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNM = (b"P2", b"P3", b"P5", b"P6")
SPACE = rb"(?:\s|#[^\n]*\n)+"
PNM_HEADER = re.compile(rb"P([2356])" + SPACE + rb"(\d+)" + SPACE + rb"(\d+)" + SPACE + rb"(\d+)\s")


def is_raster(start: bytes) -> bool:
    """Tell from its first bytes whether `read_raster` knows the format of a file."""
    return start.startswith((PNG, JPEG, *TIFF, *PNM))


def read_raster(path: Path) -> Image:
    """Read an image file without losing bits: a value is divided by the greatest of its type, or the maxval of a PGM.

    A floating-point TIFF must be in [0, 1] already. Colour becomes grey; a TIFF where 0 is white is inverted; an
    orientation tag turns the image, what is transparent is black. Raises ImageError where the file is damaged, cut
    short, holds several images, or is of a kind that would lose its values.
    """
    raster = _read(path)
    pixels = raster.pixels if raster.alpha is None else raster.pixels * raster.alpha
    pixels = np.ascontiguousarray(_turned(pixels, raster.orientation), dtype=np.float32)
    return Image(pixels, bits=raster.bits, notes=(*orientation_notes(raster.orientation), *colour_notes(raster.values)))


def read_labels(path: Path) -> tuple[NDArray[Any], bool]:
    """Read the values of a mask (H, W), 0 background, as written; and whether the compression was lossy.

    In colour a pixel has the value of its brightest channel; where nothing is brighter than black, its place in the
    palette, or 1 where it is not transparent. An orientation tag turns it as `read_raster` does. Raises ImageError as
    that does, and where several places of a palette are black, of which one may be a lesion.
    """
    raster = _read(path)
    values, opaque = raster.values, np.ones(raster.values.shape[:2], dtype=bool)
    if raster.alpha is not None:
        opaque = raster.alpha > 0
    if values.ndim == 3:
        values = values[..., 0] if values.shape[2] < 3 else values[..., :3].max(axis=2)
    bright = values[opaque].any()
    if bright and raster.palette is not None and np.unique(raster.palette[opaque & (values == 0)]).size > 1:
        raise ImageError(f"{path}: a mask whose palette has several blacks, maybe a lesion: save it with class numbers")
    if not bright and raster.palette is not None and raster.palette[opaque].any():
        values = raster.palette
    elif not bright and raster.alpha is not None:
        values = np.ones_like(values)
    values = np.where(opaque, values, 0)
    return np.ascontiguousarray(_turned(values, raster.orientation)), raster.lossy


@dataclass(frozen=True)
class _Raster:
    """What a file holds and how it is to be shown.

    `pixels` (H, W): grey in [0, 1]; `bits` that they had; `values` (H, W) or (H, W, C): as written; `palette` (H, W):
    their places in a palette; `alpha` (H, W) in [0, 1], where some px are not opaque; `orientation`: 1 to 8 as in EXIF.
    """

    pixels: NDArray[np.floating]
    bits: int
    values: NDArray[Any]
    palette: NDArray[Any] | None = None
    alpha: NDArray[np.float32] | None = None
    orientation: int = 1
    lossy: bool = False


TOO_MANY = "it says that it has more pixels than Pillow opens; it is damaged or no mammogram: leave it out"


class _Damaged(ValueError):
    """What is wrong with a file, in our words."""


def _read(path: Path) -> _Raster:
    with as_image_error(path, "cannot be read ({})"), open_file(path) as file:
        data = file.read()
    if not is_raster(data):
        raise ImageError(f"{path}: neither PNG, JPEG, TIFF, PGM nor PPM")
    read = _read_tiff if data.startswith(TIFF) else _read_pnm if data.startswith(PNM) else _read_pil
    try:
        raster = read(data)
    except MemoryError:
        raise
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {TOO_MANY}") from error
    except Exception as error:  # each library has its own, and their texts may hold what stands in the file
        why = str(error) if type(error) is _Damaged else type(error).__name__
        raise ImageError(f"{path}: damaged or cut short ({why}); fetch the file again or leave it out") from error
    if raster.values.size == 0:
        raise ImageError(f"{path}: an image without pixels; leave it out")
    return raster


ORIENTATION = 274  # the tag of EXIF and TIFF
QUARTERS = (5, 6, 7, 8)  # its values that exchange height and width
TURNED = "turned as its orientation tag says: masks without such a tag are taken to be drawn on it as it is shown"


def _turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an array (H, W) as the orientation tag of EXIF says; a value that is none means as it is."""
    if orientation not in range(2, 9):
        return array
    mirrored = array[:, ::-1] if orientation in (2, 4, 5, 7) else array
    return np.rot90(mirrored, {2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation])


def orientation_notes(orientation: object) -> tuple[str, ...]:
    """Say that an image is turned, as marks may have been drawn on it as it is stored, without a tag."""
    return (TURNED,) if orientation in range(2, 9) else ()


def _read_pil(data: bytes) -> _Raster:
    if data.startswith(PNG) and data[24] == 16 and (data[25] != 0 or b"tRNS" in data.partition(b"IDAT")[0]):
        raise ImageError("a PNG of 16 bits with colour or transparency; save it as plain grey")
    if data.startswith(PNG) and b"IEND\xaeB`\x82" not in data:  # Pillow checks the end of a JPEG only
        raise _Damaged("its end is missing")
    with PIL.Image.open(io.BytesIO(data)) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError("several images in one file; save the mammogram by itself")
        check_size(image.height, image.width, 4 if image.mode in ("I", "F") else 2 * len(image.getbands()))
        image.load()  # EXIF may stand behind the pixels
        orientation, lossy = image.getexif().get(ORIENTATION, 1), image.format == "JPEG"
        if image.mode == "1":
            return _Raster(np.asarray(image, dtype=np.float32), 1, np.asarray(image), orientation=orientation)
        if image.mode.startswith("I"):  # 16 bits
            words = np.asarray(image)
            return _Raster(words.astype(np.float32) / np.float32(65535), 16, words, orientation=orientation)
        grey = np.asarray(image if image.mode == "L" else image.convert("L"), dtype=np.float32) / np.float32(255)
        colour = image.convert("RGBA") if image.has_transparency_data else image
        alpha = np.asarray(colour.getchannel("A"), dtype=np.float32) / np.float32(255) if colour is not image else None
        return _Raster(
            pixels=grey,
            bits=8,
            values=np.asarray(image if image.mode == "L" else colour.convert("RGB")),
            palette=np.asarray(image) if image.mode == "P" else None,
            alpha=None if alpha is None or alpha.min() == 1 else alpha,
            orientation=orientation,
            lossy=lossy,
        )


def _read_pnm(data: bytes) -> _Raster:
    """Read PGM and PPM by hand: Pillow rounds other maximal values than 255 and 65535 to 8 or 16 bits."""
    header = PNM_HEADER.match(data)
    if header is None:
        raise _Damaged("no valid header")
    kind, width, height, maximum = (int(group) for group in header.groups())
    if not 0 < maximum < 65536:
        raise _Damaged(f"a maximal value of {maximum}")
    shape = (height, width, 3 if kind in (3, 6) else 1)
    check_size(height, width, 2 * shape[2])
    count = height * width * shape[2]
    if kind in (2, 3):
        text = re.sub(rb"#[^\n]*", b"", data[header.end() :]).split()
        values = np.array(text[:count], dtype=np.int64)
    else:
        kind_of_value = np.dtype("u1" if maximum < 256 else ">u2")
        values = np.frombuffer(data[header.end() :][: count * kind_of_value.itemsize], dtype=kind_of_value)
    values = values.reshape(shape)
    if values.size and (values.max() > maximum or values.min() < 0):
        raise _Damaged(f"values outside of 0 to {maximum}")
    return _Raster(to_grey(values) / maximum, maximum.bit_length(), values[..., 0] if shape[2] == 1 else values)


def _read_tiff(data: bytes) -> _Raster:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if not len(file.pages):
            raise _Damaged("it holds no image")
        if len(file.pages) != 1:
            raise ImageError(f"{len(file.pages)} pages; save the mammogram by itself")
        page = file.pages.first
        check_page(page)
        ends = [offset + size for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or max(ends) > len(data):  # a JPEG strip cut short would be filled up without a word
            raise _Damaged("its end is missing")
        if page.photometric not in (0, 1, 2, 6):
            raise ImageError(f"a TIFF of the photometric kind {page.photometric}; save it as plain grey")
        values = page.asarray()
        if values.ndim == 3 and page.planarconfig == 2:
            values = np.moveaxis(values, 0, -1)
        bits = int(page.bitspersample)
        pixels = _tiff_range(values, bits)
        grey = to_grey(pixels) if pixels.ndim == 3 else pixels
        transparent = pixels.ndim == 3 and any(kind in (1, 2) for kind in page.extrasamples)
        # of a mask that tifffile made of bool 0 is white, too: its lesions are the smaller part
        inverted = page.photometric == 0 and np.mean(values > 0) > 0.5
        return _Raster(
            pixels=1 - grey if page.photometric == 0 else grey,
            bits=bits,
            values=1 - grey if inverted else values,
            alpha=pixels[..., -1].astype(np.float32) if transparent and pixels[..., -1].min() < 1 else None,
            orientation=int(page.tags[ORIENTATION].value) if ORIENTATION in page.tags else 1,
            lossy=page.compression in LOSSY,
        )


def check_page(page: Any) -> None:
    """Raise ImageError where a TIFF is larger than the limits, or a tile of it is, before anything is decoded."""
    height, width = int(page.imagelength), int(page.imagewidth)
    check_size(height, width, page.nbytes / max(height * width, 1))
    if page.is_tiled:
        check_size(int(page.tilelength), int(page.tilewidth), 4 * int(page.samplesperpixel))


LOSSY = (6, 7, 33003, 33005, 34712)  # JPEG and JPEG 2000 in a TIFF


def _tiff_range(values: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """Bring the values of a TIFF into [0, 1] by their type."""
    if values.ndim not in (2, 3):
        raise ImageError(f"a TIFF of {values.ndim} dimensions; save the mammogram by itself")
    if values.dtype.kind in "bu":
        return values.astype(np.float64) / float(2**bits - 1)
    if values.dtype.kind != "f":
        raise ImageError(f"a TIFF of {values.dtype} values; save it as unsigned integers")
    pixels = values.astype(np.float64)
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # refuses NaN as well
        raise ImageError("a floating-point TIFF with values outside of [0, 1]; scale it, or save unsigned integers")
    return pixels

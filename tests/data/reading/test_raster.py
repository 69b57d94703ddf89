"""PNG, PGM, TIFF and JPEG keep their bits; what is damaged or ambiguous is refused."""

import io

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemlight.data.preparing.lesions import Lesion, read_mask
from lemlight.data.reading.headers import read_headers
from lemlight.data.reading.io import read_image
from lemlight.data.reading.raster import TURNED, read_raster
from lemlight.errors import ImageError

SHAPE = (23, 41)
RNG = np.random.default_rng(0)
WORDS = RNG.integers(0, 65536, SHAPE, dtype=np.uint16)
BYTES = RNG.integers(0, 256, SHAPE, dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
GREY = COLOUR @ np.array([0.299, 0.587, 0.114]) / 255


def png(path, pixels, **options):
    PIL.Image.fromarray(pixels).save(path, format="PNG", **options)
    return path


def pgm(path, pixels, maximum, kind=b"P5"):
    head = kind + b"\n# drawn by hand\n%d %d # size\n%d\n" % (pixels.shape[1], pixels.shape[0], maximum)
    if kind in (b"P2", b"P3"):
        body = " ".join(map(str, pixels.ravel())).encode() + b"\n# the end\n"
    else:
        body = pixels.astype("u1" if maximum < 256 else ">u2").tobytes()
    path.write_bytes(head + body)
    return path


def tiff(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


def message(path):
    with pytest.raises(ImageError) as caught:
        read_image(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def same(path, values, maximum):
    image = read_image(path)
    assert image.pixels.dtype == np.float32
    assert (image.spacing_mm, image.laterality, image.view) == (None, "", "")
    np.testing.assert_array_equal(np.rint(image.pixels.astype(float) * maximum), values)


SIXTEEN_BITS = {
    "png": lambda path: png(path, WORDS),
    "pgm": lambda path: pgm(path, WORDS, 65535),
    "pgm text": lambda path: pgm(path, WORDS, 65535, b"P2"),
    "tiff": lambda path: tiff(path, WORDS),
    "tiff big endian": lambda path: tiff(path, WORDS, byteorder=">"),
    "tiff deflated": lambda path: tiff(path, WORDS, compression="zlib", predictor=True),
    "big tiff in strips": lambda path: tiff(path, WORDS, bigtiff=True, rowsperstrip=5),
    "tiff tiles": lambda path: tiff(path, WORDS, tile=(16, 16)),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_sixteen_bits_survive(tmp_path, kind):
    same(SIXTEEN_BITS[kind](tmp_path / "a.bin"), WORDS, 65535)


def test_eight_bits_survive(tmp_path):
    for path in (png(tmp_path / "a", BYTES), pgm(tmp_path / "b", BYTES, 255), tiff(tmp_path / "c", BYTES)):
        same(path, BYTES, 255)
    space = np.array([[10, 32, 35]], dtype=np.uint8)  # a first pixel that looks like white space
    same(pgm(tmp_path / "a.pgm", space, 255), space, 255)


def test_two_values(tmp_path):
    drawn = BYTES > 128
    for path in (png(tmp_path / "a.png", drawn), tiff(tmp_path / "a.tif", drawn, photometric="minisblack")):
        np.testing.assert_array_equal(read_raster(path).pixels, drawn)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maximum=st.integers(1, 65535), height=st.integers(1, 9), width=st.integers(1, 9), text=st.booleans())
def test_pgm_honours_its_maximal_value(tmp_path, maximum, height, width, text):
    values = np.random.default_rng(maximum).integers(0, maximum + 1, (height, width))
    path = pgm(tmp_path / "a.pgm", values, maximum, b"P2" if text else b"P5")
    np.testing.assert_allclose(read_raster(path).pixels, values / maximum, atol=1e-7)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "PPM", "TIFF", "TIFF planes"])
def test_colour_becomes_grey(tmp_path, kind):
    path = tmp_path / "a.bin"
    if kind == "PPM":
        pgm(path, COLOUR, 255, b"P6")
    elif kind.startswith("TIFF"):
        planes = kind == "TIFF planes"
        pixels = np.moveaxis(COLOUR, -1, 0) if planes else COLOUR
        tiff(path, pixels, photometric="rgb", planarconfig="separate" if planes else "contig")
    else:
        alpha = np.full((*SHAPE, len(kind) - 3), 255, dtype=np.uint8)
        png(path, np.concatenate([COLOUR, alpha], axis=2))
    np.testing.assert_allclose(read_raster(path).pixels, GREY, atol=0.6 / 255)


def test_grey_in_colour_with_opacity_or_palette_keeps_its_values(tmp_path):
    same(png(tmp_path / "a.png", np.repeat(BYTES[..., None], 3, axis=2)), BYTES, 255)
    same(png(tmp_path / "a.png", np.stack([BYTES, np.full_like(BYTES, 255)], axis=2)), BYTES, 255)
    PIL.Image.fromarray(BYTES).convert("P").save(tmp_path / "b.png")
    same(tmp_path / "b.png", BYTES, 255)


def test_jpeg_is_close(tmp_path):
    ramp = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
    PIL.Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_raster(tmp_path / "a.jpg").pixels, ramp / 255, atol=4 / 255)


@pytest.mark.parametrize("pixels", [BYTES, WORDS, BYTES > 128], ids=["8 bits", "16 bits", "1 bit"])
def test_tiff_where_zero_is_white_is_inverted(tmp_path, pixels):
    path = tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
    full = 1 if pixels.dtype == bool else np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(read_raster(path).pixels, 1 - pixels / full, atol=1e-6)


def test_floating_point_tiff(tmp_path):
    pixels = RNG.random(SHAPE, dtype=np.float32)
    np.testing.assert_array_equal(read_raster(tiff(tmp_path / "a.tif", pixels)).pixels, pixels)
    for wrong in (pixels * 4095, pixels - 0.5, np.where(pixels > 0.9, np.nan, pixels)):
        assert "outside of [0, 1]" in message(tiff(tmp_path / "b.tif", wrong))


def test_signed_and_many_pages_are_refused(tmp_path):
    assert "int16" in message(tiff(tmp_path / "a.tif", BYTES.astype(np.int16)))
    assert "3 pages" in message(tiff(tmp_path / "b.tif", np.stack([BYTES] * 3), photometric="minisblack"))
    frames = [PIL.Image.fromarray(BYTES), PIL.Image.fromarray(BYTES.T.copy().reshape(SHAPE))]
    frames[0].save(tmp_path / "c.png", save_all=True, append_images=frames[1:])
    assert "several images" in message(tmp_path / "c.png")


def test_colour_of_sixteen_bits_in_a_png_is_refused(tmp_path):
    content = bytearray(png(tmp_path / "a.png", COLOUR).read_bytes())
    content[24] = 16
    (tmp_path / "a.png").write_bytes(content)
    assert "16 bits with colour" in message(tmp_path / "a.png")


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9, 0.98])
@pytest.mark.parametrize(
    "kind", ["png", "jpeg", "progressive jpeg", "pgm", "pgm text", "tiff", "deflated tiff", "jpeg tiff"]
)
def test_a_file_cut_short(tmp_path, kind, fraction):
    path = tmp_path / "a.bin"
    if kind.startswith("pgm"):
        pgm(path, WORDS, 65535, b"P2" if "text" in kind else b"P5")
    elif "tiff" in kind:
        tiff(path, BYTES, compression={"tiff": None, "deflated tiff": "zlib", "jpeg tiff": "jpeg"}[kind])
    else:
        buffer = io.BytesIO()
        PIL.Image.fromarray(BYTES).save(
            buffer, format=kind.split()[-1], **({"progressive": True} if " " in kind else {})
        )
        path.write_bytes(buffer.getvalue())
    read_raster(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    assert "damaged or cut short" in message(path)


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_last_bytes_missing(tmp_path, kind, lost):
    PIL.Image.fromarray(BYTES).save(tmp_path / "a.bin", format=kind)
    content = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(content[:-lost])
    assert "damaged or cut short" in message(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content",
    [b"P5\n3 2\n0\n123456", b"P5\n3 2\n70000\n" + bytes(12), b"P2\n2 1\n9\n3 10\n", b"P2\n2 1\n9\nx y\n", b"P5 words"],
)
def test_broken_pgm(tmp_path, content):
    (tmp_path / "a.pgm").write_bytes(content)
    assert "damaged or cut short" in message(tmp_path / "a.pgm")
    (tmp_path / "b.pgm").write_bytes(b"P5\n0 2\n255\n")
    assert "without pixels" in message(tmp_path / "b.pgm")


def test_unknown_format_and_missing_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    assert "not an image of a known format" in message(tmp_path / "a.png")
    with pytest.raises(ImageError, match="neither PNG"):
        read_raster(tmp_path / "a.png")
    with pytest.raises(ImageError, match="No such file"):
        read_raster(tmp_path / "b.png")


CLEAR = np.zeros(SHAPE, np.uint8)
CLEAR[:9] = 255


@pytest.mark.parametrize("kind", ["grey", "RGB", "a transparent value", "a palette", "TIFF", "TIFF in grey"])
def test_what_is_transparent_is_black(tmp_path, kind):
    path, expected = tmp_path / "a.bin", np.where(CLEAR > 0, GREY, 0)
    if kind == "grey":
        png(path, np.stack([BYTES, CLEAR], axis=2))
        expected = np.where(CLEAR > 0, BYTES / 255, 0)
    elif kind == "RGB":
        png(path, np.concatenate([COLOUR, CLEAR[..., None]], axis=2))
    elif kind == "a transparent value":
        png(path, np.where(CLEAR > 0, BYTES // 2, 200).astype(np.uint8), transparency=200)
        expected = np.where(CLEAR > 0, BYTES // 2 / 255, 0)
    elif kind == "a palette":
        image = PIL.Image.fromarray(np.where(CLEAR > 0, 1, 2).astype(np.uint8), mode="P")
        image.putpalette([0, 0, 0, 51, 51, 51, 255, 255, 255])
        image.save(path, format="PNG", transparency=2)
        expected = (CLEAR > 0) * 0.2
    elif kind == "TIFF":
        tiff(path, np.concatenate([COLOUR, CLEAR[..., None]], axis=2), photometric="rgb", extrasamples=["unassalpha"])
    else:
        tiff(path, np.stack([BYTES, CLEAR], axis=2), photometric="minisblack", extrasamples=["unassalpha"])
        expected = np.where(CLEAR > 0, BYTES / 255, 0)
    np.testing.assert_allclose(read_raster(path).pixels, expected, atol=0.6 / 255)


def test_transparency_of_sixteen_bits_is_refused(tmp_path):
    assert "transparency" in message(png(tmp_path / "a.png", WORDS, transparency=7))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "PNG of 16 bits", "JPEG", "TIFF"])
def test_an_orientation_tag_turns_image_and_mask_alike(tmp_path, kind, orientation):
    exif, path = PIL.Image.Exif(), tmp_path / "a.bin"
    exif[274] = orientation
    drawn = np.zeros((40, 64), np.uint8)
    drawn[8:16, 16:48] = 255
    image = PIL.Image.fromarray(drawn.astype(np.uint16) * 257 if kind.endswith("bits") else drawn)
    if kind == "TIFF":
        tiff(path, drawn, extratags=[(274, "H", 1, orientation, True)])
    else:
        image.save(path, format=kind[:4].strip(), exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    plain = PIL.Image.fromarray(drawn)
    plain.getexif()[274] = orientation
    shown = np.asarray(PIL.ImageOps.exif_transpose(plain))
    np.testing.assert_allclose(read_raster(path).pixels, shown / 255, atol=0.01)
    np.testing.assert_array_equal(read_mask(path), shown > 0)
    (header,) = read_headers([str(path)], notes=True)
    assert header.shape == shown.shape
    # a mask without a tag may have been drawn on the image as it is stored
    assert header.notes == read_raster(path).notes == ((TURNED,) if orientation > 1 else ())


y, x = np.mgrid[:64, :48]
ONE, TWO = np.hypot(y - 30, x - 12) < 8, np.hypot(y - 38, x - 18) < 6
BOTH, NUMBERS = ONE | TWO, np.where(TWO, 2, ONE).astype(np.uint8)


def indexed(*colours, numbers=NUMBERS, clear=None):
    image = PIL.Image.fromarray(numbers, mode="P")
    image.putpalette([*colours, *[0] * (768 - len(colours))])
    image.info |= {} if clear is None else {"transparency": clear}
    return image


def coloured(background=0, first=(255, 0, 0), second=(0, 0, 255), opacity=None):
    pixels = np.full((64, 48, 3), background, np.uint8)
    pixels[ONE], pixels[TWO] = first, second
    return pixels if opacity is None else np.concatenate([pixels, (opacity * np.uint8(255))[..., None]], axis=2)


def blurred(mask, most=255):
    return np.rint(cv2.GaussianBlur(mask.astype(np.float32) * most, (0, 0), 1.5)).astype(np.uint8)


MASKS = {
    "one value": (ONE * np.uint8(7), ONE),
    "class numbers": (NUMBERS, BOTH),
    "class numbers of 16 bits": (NUMBERS.astype(np.uint16) * 300, BOTH),
    "forty numbered lesions": (np.where(y < 20, 1 + x % 40, 0).astype(np.uint8), y < 20),
    "grey values": (np.where(TWO, 50, ONE * 100).astype(np.uint8), BOTH),
    "palette": (indexed(0, 0, 0, 128, 0, 0, 0, 128, 0), BOTH),
    "palette without colours": (indexed(), BOTH),
    "palette whose second place is the background": (indexed(255, 0, 0, numbers=1 - ONE.astype(np.uint8)), ONE),
    "palette of black on a transparent white": (indexed(255, 255, 255, clear=0), BOTH),
    "colours": (coloured(), BOTH),
    "one colour where opaque": (coloured(0, (0, 0, 0), (0, 0, 0), BOTH), BOTH),
    "red everywhere, opaque on the lesion": (
        np.dstack([np.full((64, 48, 3), (255, 0, 0), np.uint8), BOTH * np.uint8(255)]),
        BOTH,
    ),
    "colours on a transparent white": (coloured(255, opacity=BOTH), BOTH),
    "colours that are opaque": (coloured(opacity=np.ones_like(ONE)), BOTH),
    "one bit": (ONE, ONE),
    "grey edges": (blurred(ONE), blurred(ONE) >= 127.5),
    "grey edges of a dark grey": (blurred(ONE, 100), blurred(ONE, 100) >= 50),
}


@pytest.mark.parametrize("kind", MASKS)
def test_what_is_not_zero_in_a_mask_is_lesion_however_a_tool_saved_it(tmp_path, kind):
    written, lesion = MASKS[kind]
    path = tmp_path / "a.png"
    (written if isinstance(written, PIL.Image.Image) else PIL.Image.fromarray(written)).save(path)
    mask = read_mask(path)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, lesion)


def test_a_mask_whose_palette_shows_two_places_black_is_refused(tmp_path):
    indexed(0, 0, 0, 255, 0, 0).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="several blacks, maybe a lesion: save it with class numbers"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("most", [1, 100, 255])
def test_a_mask_that_was_saved_with_losses_keeps_its_outline(tmp_path, most):
    PIL.Image.fromarray(ONE * np.uint8(most)).save(tmp_path / "a.jpg", quality=90)
    assert (read_mask(tmp_path / "a.jpg") ^ ONE).mean() < 0.01


@pytest.mark.parametrize("values", [ONE, ~ONE * np.uint8(255), NUMBERS])
def test_the_lesions_of_a_tiff_where_zero_is_white_are_its_smaller_part(tmp_path, values):
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")  # as tifffile does with bool by itself
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), ONE if values[ONE].max() != 2 else BOTH)


@pytest.mark.parametrize("most", [2, 200])
def test_classes_that_lossy_compression_has_mixed_are_refused(tmp_path, most):
    large = NUMBERS.repeat(4, axis=0).repeat(4, axis=1)
    PIL.Image.fromarray(large * np.uint8(most // 2)).save(tmp_path / "a.jpg", quality=75)
    with pytest.raises(ImageError, match="a mask with grey areas"):
        read_mask(tmp_path / "a.jpg")


def test_a_picture_is_no_mask_and_an_outline_is_noted(tmp_path):
    picture = np.where(x < 30, 90 + 40 * np.sin(y / 9) * np.cos(x / 7), 0).astype(np.uint8)
    outlined = np.dstack([picture] * 3)
    edge = BOTH & ~cv2.erode(BOTH.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    outlined[edge] = (255, 0, 0)
    for pixels in (picture, outlined):
        with pytest.raises(ImageError, match="a mask with grey areas"):
            read_mask(png(tmp_path / "a.png", pixels))
    lesion = Lesion("mask", path=str(png(tmp_path / "edge.png", edge * np.uint8(255))))
    assert lesion.draw(edge.shape)[1] == "mask edge.png is an outline, not filled?"
    assert "outline" in lesion.draw((128, 96))[1]
    assert Lesion("mask", path=str(png(tmp_path / "b.png", BOTH * np.uint8(255)))).draw(BOTH.shape)[1] == ""


def test_a_picture_in_colour_is_noted_and_grey_ones_are_not(tmp_path):
    picture = np.where(x < 30, 90 + 40 * np.sin(y / 9) * np.cos(x / 7), 0).astype(np.uint8)
    marked = np.dstack([picture] * 3)
    marked[10:14, 5:25] = (255, 0, 0)
    colours = cv2.applyColorMap(picture, cv2.COLORMAP_JET)
    for pixels, noted in ((np.dstack([picture] * 3), False), (marked, True), (colours, True), (picture, False)):
        assert bool(read_raster(png(tmp_path / "a.png", pixels)).notes) == noted
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        assert bool(read_raster(tmp_path / "a.tif").notes) == noted


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (np.zeros(SHAPE, np.uint8), "without a lesion"),
        (np.full(SHAPE, 255, np.uint8), "covers 100%"),
        (np.where(ONE, 0, 255).astype(np.uint8), "covers 9[0-9]%.*inverted"),
        (np.where(x < 22, 0, 1).astype(np.uint8)[:, ::-1] | np.uint8(x > 0), "inverted"),
        (np.where(ONE, 2, 1).astype(np.uint8), "covers 100%"),
        (coloured(255), "covers 100%"),
        (np.where((y < 25) & (x < 20), 0, 1).astype(np.uint8), "covers .*inverted"),  # a lesion in the corner
        (np.where(x < 20, 0, 1).astype(np.uint8), "covers .*inverted"),  # and along a side
    ],
)
def test_an_empty_an_inverted_and_a_full_mask_are_refused_with_the_remedy(tmp_path, mask, word):
    with pytest.raises(ImageError, match=f"a.png: a mask .*{word}.*write none"):
        read_mask(png(tmp_path / "a.png", mask))


@pytest.mark.parametrize("kind", ["PGM", "TIFF", "PNG"])
def test_a_few_bytes_that_ask_for_gigabytes_are_refused_by_their_header(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "PGM":
        path.write_bytes(b"P5 40000 40000 255\n")
    elif kind == "PNG":
        cv2.imwrite(f"{path}.png", np.zeros((1, 20_001), np.uint8))
        path = path.with_suffix(".png")
    else:
        tifffile.imwrite(path, np.zeros((1, 8), np.uint8), compression="packbits")
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages.first.tags["ImageWidth"].overwrite(40_000)
    with pytest.raises(ImageError, match=r"more than limits\.side=20000"):
        read_image(path)
    assert "more than limits.side=20000" in read_headers([str(path)])[0].problem

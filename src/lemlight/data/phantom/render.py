"""One mammogram as the brightness that a viewer shows, with its lesion mask."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lemlight.data.phantom.film import on_film, scan
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
    brightness = draw_tissue(rng, anatomy, patient).brightness
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

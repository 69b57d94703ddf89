"""One image on its way from its file to its slot in the prepared store; this is what a worker process does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lemlight.data.arrays import write_slot
from lemlight.data.breast import find_geometry, prepare_pixels
from lemlight.data.images import read_image, read_mask
from lemlight.data.store import IMAGES, MASKS
from lemlight.errors import ImageError

ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class PrepareSettings:
    """The geometry of prepared images: size in px, cropped to the breast or not, chest wall on the left or as it is."""

    height: int
    width: int
    crop: bool = True
    flip: bool = True


@dataclass(frozen=True)
class Task:
    """An image, its lesion masks, and its slot in the store."""

    slot: int
    image_id: str
    path: Path
    mask_paths: tuple[Path, ...]


def prepare_image(task: Task, folder: Path, settings: PrepareSettings) -> dict[str, Any]:
    """Prepare one image and give its record; one that cannot be used gives a record with the reason."""
    try:
        image = read_image(task.path)
        geometry, breast = find_geometry(
            image.pixels, (settings.height, settings.width), crop=settings.crop, flip=settings.flip
        )
    except ImageError as error:
        return {"image_id": task.image_id, "reason": str(error)}
    pixels = prepare_pixels(image.pixels, geometry, breast)
    mask, note = _lesions(task.mask_paths, image.pixels.shape)
    write_slot(folder / IMAGES, task.slot, pixels)
    if mask is not None:
        prepared_mask = geometry.mask_to_prepared(mask)
        write_slot(folder / MASKS, task.slot, prepared_mask)
        if mask.any() and not prepared_mask.any():
            note = "; ".join(filter(None, [note, "the whole lesion lies outside the breast that was cut out"]))
    return {
        "image_id": task.image_id,
        "slot": task.slot,
        "geometry": geometry.to_dict(),
        "spacing": image.spacing_mm,
        "has_mask": mask is not None,
        "note": note,
        "fingerprint": hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest(),
    }


def _lesions(paths: tuple[Path, ...], shape: tuple[int, ...]) -> tuple[NDArray[np.bool_] | None, str]:
    """Unite the masks of an image.

    A mask of another size is rescaled where its aspect is the image's within 2 %; otherwise, and where a mask cannot
    be read, the lesions of the image count as unknown: a part of them would pass for all of them.
    """
    union = np.zeros(shape, dtype=bool)
    notes = []
    for path in paths:
        try:
            mask = read_mask(path)
        except ImageError as error:
            return None, f"mask left out: {error}"
        if mask.shape != shape:
            height, width = shape
            if abs(mask.shape[0] * width / (mask.shape[1] * height) - 1) > ASPECT_TOLERANCE:
                return None, f"mask left out: {path.name} has shape {mask.shape}, its image {shape}"
            notes.append(f"mask {path.name} rescaled from {mask.shape} to {shape}")
            mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
        union |= mask
    return (union if paths else None), "; ".join(notes)

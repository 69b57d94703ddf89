"""One image on its way from its file to its slot in the prepared store; this is what a worker process does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemlight.data.arrays import write_slot
from lemlight.data.breast import find_geometry, prepare_pixels
from lemlight.data.images import read_image
from lemlight.data.label_image import label_image
from lemlight.data.lesions import Lesion
from lemlight.data.store import IMAGES, MASKS
from lemlight.errors import ImageError


@dataclass(frozen=True)
class PrepareSettings:
    """The geometry of prepared images: size in px, cropped to the breast or not, chest wall on the left or as it is."""

    height: int
    width: int
    crop: bool = True
    flip: bool = True


@dataclass(frozen=True)
class Task:
    """An image, its lesions, and its slot in the store."""

    slot: int
    image_id: str
    path: Path
    lesions: tuple[Lesion, ...] | None  # None: nothing is known of them


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
    labels, notes = label_image(task.lesions, geometry)
    write_slot(folder / IMAGES, task.slot, pixels)
    if labels is not None:
        write_slot(folder / MASKS, task.slot, labels)
    return {
        "image_id": task.image_id,
        "slot": task.slot,
        "geometry": geometry.to_dict(),
        "spacing": image.spacing_mm,
        "has_mask": labels is not None,
        "lesion_types": [lesion.type for lesion in task.lesions or ()] if labels is not None else [],
        "note": "; ".join(notes),
        "fingerprint": hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest(),
    }

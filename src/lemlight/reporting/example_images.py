"""The few test images that every run leaves with its maps, side by side for all methods, and as layers of a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from lemlight.files import read_arrays
from lemlight.plots.overlays import HEAT
from lemlight.plots.sheets import SheetItem
from lemlight.plots.style import SKY
from lemlight.reporting.comparison.runs import FOLDER, TrainingRun
from lemlight.reporting.page import base64_of

LONGEST = 400  # px of a picture on the page
LEVELS = 64  # colours of a location map
DASH, GAP = 6, 4  # px across and down, along an outline

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Example:
    """What one method says of one image; nothing in it names a patient.

    `item` holds the image with its lesions and score map, `malignant` the prediction at the run's threshold. `strength`
    is the location map (H, W), 0 to 255, whose regions lie at or above `cutoff` (of 1).
    """

    item: SheetItem
    malignant: bool
    strength: Pixels
    cutoff: float


def read_examples(groups: Mapping[str, Sequence[TrainingRun]]) -> list[dict[str, Example]]:
    """Return the images that the first run of every method left in its folder examples/, each by method.

    Methods that left none are passed over; only images that all others share are returned, in their order.
    """
    lists = {method: _list(runs[0]) for method, runs in groups.items()}
    known = {method: rows for method, rows in lists.items() if len(rows)}
    if not known:
        return []
    rows, *others = known.values()
    shared = [image_id for image_id in rows.index if all(image_id in other.index for other in others)]
    found = []
    for image_id in shared:
        examples = {method: _example(groups[method][0], *rows.loc[image_id]) for method, rows in known.items()}
        found.append({method: example for method, example in examples.items() if example is not None})
    return [examples for examples in found if examples]


def _list(run: TrainingRun) -> pd.DataFrame:
    """The examples that a run lists, by image, with the true label."""
    if run.examples.empty:
        return pd.DataFrame()
    return run.examples.join(run.predictions.set_index("image_id")["label"], how="inner")


def _example(run: TrainingRun, number: float, probability: float, cutoff: float, label: float) -> Example | None:
    """Read one image with its maps; None where a file is missing or damaged, or of another size."""
    start = run.folder / FOLDER / f"{number:.0f}"
    lesions = Path(f"{start}_lesions.png")
    try:
        image, strength = _grey(Path(f"{start}_image.png")), _grey(Path(f"{start}_map.png"))
        arrays = read_arrays(Path(f"{start}_scores.npz"))
        scores = {name: arrays[name] for name in ("score_map", "maxima", "minima")}
        mask = _grey(lesions) > 127 if lesions.is_file() else None
        item = SheetItem(image=image / 255, **scores, mask=mask, label=int(label), probability=float(probability))
        if not item.is_sound() or strength.shape != image.shape:
            return None
    except Exception:  # a damaged file makes zipfile, zlib and numpy raise whatever there is
        return None
    drawn = 0.5 if run.summary["threshold"] is None else run.summary["threshold"]
    return Example(item, bool(probability > drawn), strength, cutoff)


def _grey(path: Path) -> Pixels:
    """Read a grey PNG, made smaller where it is large."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f"{path} is missing or damaged")
    factor = min(1.0, LONGEST / max(pixels.shape))
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def map_layer(strength: Pixels, cutoff: float) -> Pixels:
    """Return a location map (H, W) as RGBA (H, W, 4), see-through at 0, with the borders of its regions in blue."""
    levels = np.round(strength / 255 * (LEVELS - 1)) / (LEVELS - 1)
    layer = HEAT[np.round(levels * 255).astype(np.uint8)]
    return _outlined(layer, strength >= max(1.0, cutoff * 255), to_rgb(SKY))


def lesion_layer(lesions: NDArray[np.bool_]) -> Pixels:
    """Return the outlines of lesions (H, W) in white dashes, see-through elsewhere, as RGBA (H, W, 4)."""
    layer = _outlined(np.zeros((*lesions.shape, 4), np.uint8), lesions, (1.0, 1.0, 1.0))
    layer[np.indices(lesions.shape).sum(axis=0) % (DASH + GAP) >= DASH] = 0
    return layer


def _outlined(layer: Pixels, inside: NDArray[np.bool_], colour: tuple[float, float, float]) -> Pixels:
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(layer, contours, -1, (0, 0, 0, 255), 3)  # a black edge: seen on white tissue, too
    cv2.drawContours(layer, contours, -1, [round(255 * part) for part in (*colour, 1.0)], 1)
    return layer


def png(pixels: Pixels) -> str:
    """Return grey (H, W) or RGBA (H, W, 4) pixels as PNG in base64."""
    written = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1]
    return base64_of(written.tobytes())

"""The few test images that every run leaves with its maps, side by side for all methods, and as layers of a page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from lemlight.plots.overlays import HEAT
from lemlight.plots.sheets import SheetItem
from lemlight.plots.style import SKY
from lemlight.reporting.runs import FOLDER, LIST, TrainingRun

LONGEST = 400  # px of a picture on the page
LEVELS = 64  # colours of a location map
DASH, GAP = 6, 4  # px across and down, along an outline
MOST_BYTES = 2**24  # of score map and extrema, unpacked

Pixels = NDArray[np.uint8]
Scores = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]
"""Score map, maxima, minima (h, w) each."""


@dataclass(frozen=True, eq=False)
class Example:
    """What one method says of one image (H, W); nothing in it names a patient.

    `strength` is the location map, 0 to 255, whose regions lie at or above `cutoff` (of 1). What is missing, damaged or
    of another size is None.
    """

    label: int
    probability: float
    malignant: bool
    """The prediction at the run's threshold."""
    cutoff: float
    image: Pixels
    strength: Pixels | None
    lesions: NDArray[np.bool_] | None
    scores: Scores | None

    def sheet_item(self) -> SheetItem | None:
        """Give the image with its score map, None where that cannot be drawn."""
        if self.scores is None or self.scores[0].size == 0:
            return None
        item = SheetItem(self.image / 255, *self.scores, self.lesions, self.label, self.probability)
        return None if item.problems() else item


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
    """What examples.csv lists, by image, with the true label; empty where it cannot be used."""
    try:
        rows = pd.read_csv(run.folder / FOLDER / LIST, dtype={"image_id": str, "number": str}).set_index("image_id")
        right = rows.index.is_unique and rows["number"].str.fullmatch(r"\d+").all()
        rows = rows[["number", "probability", "cutoff"]].astype({"probability": float, "cutoff": float})
    except (OSError, ValueError, KeyError):
        return pd.DataFrame()
    labels = run.predictions.set_index("image_id")["label"]
    return rows.assign(label=labels).dropna() if right else pd.DataFrame()


def _example(run: TrainingRun, number: str, probability: float, cutoff: float, label: float) -> Example | None:
    folder = run.folder / FOLDER
    image, strength, lesions = (_grey(folder / f"{number}_{kind}.png") for kind in ("image", "map", "lesions"))
    if image is None:
        return None
    return Example(
        label=int(label),
        probability=float(probability),
        malignant=bool(probability > run.summary["threshold"]),
        cutoff=float(cutoff),
        image=image,
        strength=None if strength is None or strength.shape != image.shape else strength,
        lesions=None if lesions is None or lesions.shape != image.shape else lesions > 127,
        scores=_scores(folder / f"{number}_scores.npz"),
    )


def _grey(path: Path) -> Pixels | None:
    """Read a grey PNG, made smaller where it is large; None where there is none, or a damaged one."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    if pixels is None:
        return None
    factor = min(1.0, LONGEST / max(pixels.shape))
    height, width = (max(1, round(side * factor)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _scores(path: Path) -> Scores | None:
    try:
        with ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > MOST_BYTES:
                return None
        with np.load(path, allow_pickle=False) as arrays:
            score_map = np.asarray(arrays["score_map"], dtype=np.float32)
            return score_map, np.asarray(arrays["maxima"], dtype=bool), np.asarray(arrays["minima"], dtype=bool)
    except Exception:  # a damaged file makes zipfile, zlib and numpy raise whatever there is
        return None


def map_layer(strength: Pixels, cutoff: float) -> Pixels:
    """Return a location map (H, W) as RGBA (H, W, 4), see-through at 0, with the borders of its regions in blue."""
    levels = np.round(strength / 255 * (LEVELS - 1)) / (LEVELS - 1)
    layer = np.round(np.asarray(HEAT(levels)) * 255).astype(np.uint8)
    return _outlined(layer, strength >= max(1.0, cutoff * 255), to_rgb(SKY))


def lesion_layer(lesions: NDArray[np.bool_]) -> Pixels:
    """Return the outlines of lesions (H, W) in white dashes, see-through elsewhere, as RGBA (H, W, 4)."""
    layer = _outlined(np.zeros((*lesions.shape, 4), np.uint8), lesions, (1.0, 1.0, 1.0))
    layer[np.indices(lesions.shape).sum(axis=0) % (DASH + GAP) >= DASH] = 0
    return layer


def png(pixels: Pixels) -> str:
    """Return grey (H, W) or RGBA (H, W, 4) pixels as PNG in base64."""
    written = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1]
    return base64.b64encode(written.tobytes()).decode("ascii")


def _outlined(layer: Pixels, inside: NDArray[np.bool_], colour: tuple[float, float, float]) -> Pixels:
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(layer, contours, -1, (0, 0, 0, 255), 3)  # a black edge: seen on white tissue, too
    cv2.drawContours(layer, contours, -1, [round(255 * part) for part in (*colour, 1.0)], 1)
    return layer

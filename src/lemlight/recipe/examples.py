"""Location and score maps of a few test images, for a page that shows the same mammogram under several methods."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.files import written_aside
from lemlight.models.lem import local_extrema
from lemlight.recipe.localization import Localizing, locate
from lemlight.recipe.region_settings import RegionSettings
from lemlight.reporting.comparison.examples import FOLDER, LIST

MALIGNANT, BENIGN = 4, 2
SEED = 0  # of the draw: the same test images give the same examples in every training


def write_examples(place: Localizing, settings: RegionSettings, split: str, folder: Path) -> None:
    """Write examples/ into the run folder: image, location map and lesions of a few images of a split, as grey PNG.

    Beside them the score map with its extrema, as npz. Which images does not depend on the network. The files are
    named by number; examples.csv says which images they are, with probability, call and cut-off.
    """
    table = place.prepared.table
    rows = draw_examples(table[table["split"] == split])
    store, lines = place.prepared.store, []
    for number, (image_id, probability, strength, score_map) in enumerate(
        locate(place, place.config.method, rows["image_id"].tolist(), settings), start=1
    ):
        position = store.index_of(image_id)
        lesions = store.mask(position)
        _write(np.asarray(store.image(position) >> 8), folder / FOLDER / f"{number}_image.png")
        _write(np.round(strength * 255), folder / FOLDER / f"{number}_map.png")
        maxima, minima = (kind[0].numpy() for kind in local_extrema(score_map[None], place.classifier.pooling.ties))
        with written_aside(folder / FOLDER / f"{number}_scores.npz") as aside, aside.open("wb") as file:
            np.savez_compressed(file, score_map=score_map.numpy(), maxima=maxima, minima=minima)
        if lesions is not None:
            _write((lesions > 0) * 255, folder / FOLDER / f"{number}_lesions.png")
        lines.append((number, image_id, probability, probability > place.threshold, settings.cutoff))
    columns = ["number", "image_id", "probability", "called_malignant", "cutoff"]
    if lines:
        with written_aside(folder / FOLDER / LIST) as aside:
            pd.DataFrame(lines, columns=columns).to_csv(aside, index=False)


def draw_examples(rows: pd.DataFrame) -> pd.DataFrame:
    """Draw up to four malignant and two benign images of an image table, of as many patients as possible."""
    shuffled = rows.sort_values("image_id").sample(frac=1, random_state=SEED)
    order = shuffled.groupby("patient_id").cumcount().sort_values(kind="stable").index
    apart = shuffled.loc[order]
    return pd.concat([apart[apart["label"] == 1][:MALIGNANT], apart[apart["label"] == 0][:BENIGN]])


def _write(pixels: NDArray[np.generic], path: Path) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())

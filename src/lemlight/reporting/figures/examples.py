"""Which images stand for all on a sheet."""

import numpy as np
import pandas as pd

from lemlight.errors import LemlightError
from lemlight.metrics.checks import check_scored
from lemlight.metrics.classification import predicted_malignant


def choose_examples(predictions: pd.DataFrame, count: int, seed: int, threshold: float = 0.5) -> list[str]:
    """Return at most count image_ids drawn evenly from malignant and benign images, predicted right and wrong.

    They come in that order: malignant right, malignant wrong, benign right, benign wrong; within each at random from
    the seed. Where a kind has too few images the others fill up.
    """
    if count < 1:
        raise LemlightError(f"a sheet needs at least one image, got {count}")
    truth, probability = check_scored(predictions["label"], predictions["probability"])
    right = predicted_malignant(probability, threshold) == truth
    generator = np.random.default_rng(seed)
    kinds = [
        generator.permutation(np.flatnonzero(kind))
        for kind in (truth & right, truth & ~right, ~truth & right, ~truth & ~right)
    ]
    # The first of every kind come before the second of any: the first `count` of this order are an even draw.
    even = sorted((turn, kind, row) for kind, rows in enumerate(kinds) for turn, row in enumerate(rows))
    chosen = sorted(even[:count], key=lambda pick: (pick[1], pick[0]))
    return [str(predictions["image_id"].iloc[int(row)]) for _, _, row in chosen]

"""The figures, pictures and predictions of a tested network for TensorBoard and W&B."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imread
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from lemlight.training.flat_figures import flat_figures, values_only

SENT_COLUMNS = ("label", "probability", "n_maxima", "n_minima")


def log_results(
    loggers: Sequence[Logger],
    summary: Mapping[str, Any],
    pictures: Mapping[str, Path],
    predictions: pd.DataFrame,
) -> None:
    """Send the figures of a summary (metrics.json), the pictures (PNG by name) and, to W&B, a table of predictions.

    No image and no patient is named: in place of its name an image has its row in predictions.csv, from 1.
    """
    split = summary["split"]
    figures = flat_figures(summary)
    for logger in loggers:
        logger.log_metrics(values_only(figures))
        for name, path in pictures.items():
            pixels = np.round(255 * imread(path)[..., :3]).astype(np.uint8)
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/{name}", [pixels])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{split}/{name}", pixels, dataformats="HWC")
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(figures)
            _log_table(logger, f"{split}/predictions", unnamed(predictions))


def unnamed(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return what may be sent of predictions: `image` (row in predictions.csv, from 1) and SENT_COLUMNS."""
    table = predictions[list(SENT_COLUMNS)].reset_index(drop=True)
    table.insert(0, "image", np.arange(1, len(table) + 1))
    return table


def _log_table(logger: WandbLogger, key: str, table: pd.DataFrame) -> None:
    """Log a table as a file of the run, as pictures are.

    A table that is not bound to its run beforehand is also made an artifact, whose copy lies in the user's home and
    whose path there stands in the run file.
    """
    from wandb import Table

    rows = Table(dataframe=table)
    run = logger.experiment
    rows.bind_to_run(run, key, run.step)  # type: ignore[no-untyped-call]
    run.log({key: rows})

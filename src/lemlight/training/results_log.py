"""The figures of a tested network for TensorBoard and W&B."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger


def log_results(loggers: Sequence[Logger], summary: Mapping[str, Any], pictures: Mapping[str, Path]) -> None:
    """Send the figures of a summary (metrics.json) and the pictures (PNG by name); no image or patient is named."""
    split = summary["split"]
    figures = {name: part["value"] for name, part in summary.items() if isinstance(part, Mapping) and "value" in part}
    known = {f"{split}/{name}": value for name, value in figures.items() if value is not None}
    for logger in loggers:
        logger.log_metrics(known)
        for name, path in pictures.items():
            pixels = np.round(255 * imread(path)[..., :3]).astype(np.uint8)
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/{name}", [pixels])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{split}/{name}", pixels, dataformats="HWC")

"""Predictions as a table, and score maps for pictures."""

import pandas as pd
import torch
from pytorch_lightning import Trainer
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from lemlight.training.module import MammogramModule

COLUMNS = ("index", "probability", "n_maxima", "n_minima")


def predict(trainer: Trainer, module: MammogramModule, dataloader: DataLoader) -> pd.DataFrame:  # type: ignore[type-arg]
    """Predict every image of `dataloader` once, on the trainer's running devices, with the weights that `module` has.

    Columns: index (the image's row in the image table), probability (malignant, [0, 1]), n_maxima and n_minima (local
    extrema of the score map by the default rule of `local_extrema`, whatever the pooling); sorted by index. Raises
    LemlightError where a logit is not finite.
    """
    if trainer.world_size > 1 and not distributed.is_initialized():
        trainer = _one_device(trainer)  # no process is there to share the work with: ddp_spawn has ended its own
    trainer.predict(module, dataloader, return_predictions=False)
    return pd.DataFrame({name: column.numpy() for name, column in zip(COLUMNS, module.predictions, strict=True)})


@torch.no_grad()
def score_maps(module: MammogramModule, images: Tensor) -> Tensor:
    """Give the score maps (N, h, w), float32 logits on the CPU, of images (N, 1, H, W) in [0, 1]."""
    modes = [(part, part.training) for part in module.modules()]  # frozen parts may differ from the rest
    module.eval()
    try:
        maps: Tensor = module(images.to(module.device)).score_map
        return maps.float().cpu()
    finally:
        for part, was_training in modes:
            part.training = was_training


def _one_device(trainer: Trainer) -> Trainer:
    return Trainer(
        accelerator=trainer.accelerator,
        devices=1,
        precision=trainer.precision,
        limit_predict_batches=trainer.limit_predict_batches,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=trainer.progress_bar_callback is not None,
        default_root_dir=trainer.default_root_dir,
    )

"""The ramp of lambda, the weight of the pooling's loss against GAP's (Zhu et al. 2025, Eq. 8)."""

import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lemlight.errors import LemlightError
from lemlight.training.module import MammogramModule

SHAPES = ("linear", "cosine", "step")


def ramp_value(
    shape: str, share: float, *, start_value: float, end_value: float, start_at: float, end_at: float
) -> float:
    """Give lambda at `share` in [0, 1] of the training: `start_value` up to `start_at`, `end_value` from `end_at` on.

    In between a straight line (the paper: "gradually increases to 1"), half a cosine, or, for step, still the start.
    """
    position = min(1.0, max(0.0, (share - start_at) / (end_at - start_at)))
    if shape == "cosine":
        position = (1 - math.cos(math.pi * position)) / 2
    elif shape == "step":
        position = math.floor(position)
    return (1 - position) * start_value + position * end_value


class LambdaRamp(Callback):
    """Set `module.lam` before every batch from the optimizer steps done so far, and log it as `lambda`.

    Nothing is remembered from batch to batch, so a resumed training goes on with the very same values.
    Raises LemlightError, listing all that is wrong: an unknown shape, values outside [0, 1], a ramp that ends before
    it starts.
    """

    def __init__(self, shape: str, start_value: float, end_value: float, start_at: float, end_at: float) -> None:
        given = {"start_value": start_value, "end_value": end_value, "start_at": start_at, "end_at": end_at}
        wrong = [f"{name}={value} must lie in [0, 1]" for name, value in given.items() if not 0 <= value <= 1]
        if shape not in SHAPES:
            wrong.append(f"shape={shape} is unknown: choose one of {', '.join(SHAPES)}")
        if not start_at < end_at:
            wrong.append(f"the ramp must start before it ends: set start_at={start_at} below end_at={end_at}")
        if wrong:
            raise LemlightError("callbacks.lambda_ramp: " + "; ".join(wrong))
        self.shape = shape
        self.given = given

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set lambda; the last optimizer step of the training stands at share 1."""
        assert isinstance(pl_module, MammogramModule)
        last_step = max(int(trainer.estimated_stepping_batches) - 1, 1)
        share = min(trainer.global_step / last_step, 1.0)
        pl_module.lam = ramp_value(self.shape, share, **self.given)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the value that the epoch ended with."""
        assert isinstance(pl_module, MammogramModule)
        pl_module.log("lambda", pl_module.lam, sync_dist=True)

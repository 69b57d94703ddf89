"""Stop a training whose loss is no longer a number, without waiting for the GPU at every step."""

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lemlight.errors import LemlightError

EVERY = 50  # batches between two looks where a look costs a synchronisation


class LossWatch:
    """Remember the first step with a NaN or infinite loss, on the loss's own device.

    On one CPU every step is looked at. On a GPU or with several processes, where a look waits for all that is queued,
    every 50th batch is, and the end of every epoch before anything is validated or saved. The step named in the error
    is the first bad one all the same.
    """

    def __init__(self) -> None:
        self.first_bad: Tensor | None = None

    def note(self, loss: Tensor, trainer: Trainer, batch: int) -> None:
        """Take in the loss of one step and look where that is due; raises LemlightError as `check` does."""
        step = torch.full((), trainer.global_step, device=loss.device)
        bad = torch.where(loss.detach().isfinite(), -1, step)
        self.first_bad = bad if self.first_bad is None else torch.where(self.first_bad < 0, bad, self.first_bad)
        if (loss.device.type == "cpu" and trainer.world_size == 1) or (batch + 1) % EVERY == 0:
            self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Raise LemlightError on all processes together if any of them has met a loss that is not finite."""
        if self.first_bad is None:
            return
        step = int(self.first_bad)
        if trainer.world_size > 1:
            step = int(trainer.strategy.reduce(self.first_bad.float(), reduce_op="max"))
        if step >= 0:
            raise LemlightError(
                f"the training loss became NaN or infinite in epoch {trainer.current_epoch}, step {step}: lower "
                "optimizer.lr_backbone and optimizer.lr_head, set trainer.precision=32-true, or clip the gradient with "
                "trainer.gradient_clip=1.0; the checkpoints of the epochs before are untouched"
            )

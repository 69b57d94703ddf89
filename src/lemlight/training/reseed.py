"""The global random state at the start of every epoch."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class ReseedEveryEpoch(Callback):
    """Seed Python, NumPy and torch from (seed, epoch, process) before the first batch of every epoch.

    Dropout and stochastic depth then draw the same numbers in a training that was resumed at the start of an epoch as
    in one that ran through. It happens at the first batch, not at the epoch's start: between the two Lightning makes
    the loader's iterator, which draws from the same state, but not in the first epoch after resuming.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed if this is the first batch."""
        if batch_idx == 0:
            entropy = [self.seed, trainer.current_epoch, trainer.global_rank]
            words = np.random.SeedSequence(entropy).generate_state(3)
            random.seed(int(words[0]))
            np.random.seed(int(words[1]))
            torch.manual_seed(int(words[2]))

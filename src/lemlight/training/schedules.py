"""The learning rate over the training, as one pure function of the epoch."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lemlight.errors import LemlightError

SCHEDULES = ("step", "cosine", "constant")
WARMUP_START = 0.01  # a rate of exactly 0 would waste the first step


def schedule_factor(options: Mapping[str, Any], epoch: float, epochs: int) -> float:
    """Give the factor on the learning rates at `epoch`, a fractional epoch in [0, epochs].

    step: times `factor` after every `every_epochs` epochs, counted from the start of the training.
    cosine: half a cosine from 1 at the end of the warm-up to `final_share` at the end of the training.
    constant: 1. All of them rise linearly over the first `warmup_epochs` epochs.
    """
    warmup = float(options["warmup_epochs"])
    rise = WARMUP_START + (1 - WARMUP_START) * epoch / warmup if epoch < warmup else 1.0
    if options["name"] == "step":
        decays = math.floor(epoch / options["every_epochs"])
        return rise * math.pow(options["factor"], decays)
    if options["name"] == "cosine":
        share = min(1.0, max(0.0, epoch - warmup) / max(epochs - warmup, 1e-9))
        final = float(options["final_share"])
        return rise * (final + (1 - final) * (1 + math.cos(math.pi * share)) / 2)
    if options["name"] == "constant":
        return rise
    raise LemlightError(f"scheduler.name={options['name']} is unknown: choose one of {', '.join(SCHEDULES)}")


def build_schedule(optimizer: Optimizer, options: Mapping[str, Any], *, total_steps: int, epochs: int) -> LambdaLR:
    """Build the scheduler that is stepped after every optimizer step; `total_steps` counts those, not batches.

    Stepped per step, not per epoch, its state is complete when a checkpoint is written at the end of an epoch.
    """
    steps_per_epoch = total_steps / epochs
    return LambdaLR(optimizer, lambda step: schedule_factor(options, step / steps_per_epoch, epochs))

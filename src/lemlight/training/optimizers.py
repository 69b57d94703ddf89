"""Adam, AdamW and SGD with one learning rate for the backbone and one for the head."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lemlight.errors import LemlightError

OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def parameter_groups(
    classifier: nn.Module, *, lr_backbone: float, lr_head: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Split the trainable parameters by rate (backbone or head) and by decay; groups without parameters are left out.

    The head is everything outside `classifier.backbone`: the scorer and what the pooling learns. Biases, scales and
    offsets of a normalisation (parameters of fewer than two dimensions) are not decayed: pulling them to zero does
    not make a network simpler [open].
    """
    inside = {id(parameter) for parameter in classifier.get_submodule("backbone").parameters()}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in classifier.parameters():
        if parameter.requires_grad:
            part = "backbone" if id(parameter) in inside else "head"
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    rates = {"backbone": lr_backbone, "head": lr_head}
    return [
        {"params": members, "lr": rates[part], "weight_decay": weight_decay if decays else 0.0, "part": part}
        for (part, decays), members in groups.items()
    ]


def build_optimizer(classifier: nn.Module, options: Mapping[str, Any]) -> Optimizer:
    """Build the optimizer named in `options`: name, lr_backbone, lr_head, weight_decay and what it takes besides.

    Besides: `betas` for adam and adamw, `momentum` and `nesterov` for sgd. Adam's decay is part of the gradient
    (an L2 penalty), AdamW's is not. Raises LemlightError for an unknown name and when nothing is left to train.
    """
    rest = dict(options)
    name = rest.pop("name")
    if name not in OPTIMIZERS:
        raise LemlightError(f"optimizer.name={name} is unknown: choose one of {', '.join(OPTIMIZERS)}")
    shared = {key: rest.pop(key) for key in ("lr_backbone", "lr_head", "weight_decay")}
    groups = parameter_groups(classifier, **shared)
    if not groups:
        raise LemlightError("the classifier has no parameter to train: every one of them is frozen")
    if "betas" in rest:
        rest["betas"] = tuple(rest["betas"])
    return OPTIMIZERS[name](groups, **rest)


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

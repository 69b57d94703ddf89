"""Optimizers of torch with one learning rate for the backbone and one for the head, and the rate over the training."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lemlight.arguments import Count, Fraction, NotNegative, Positive, Probability, checked
from lemlight.building import build
from lemlight.errors import LemlightError

WARMUP_START = 0.01  # a rate of exactly 0 would waste the first step


def parameter_groups(
    classifier: nn.Module,
    *,
    lr_backbone: NotNegative,
    lr_head: Positive,
    weight_decay: NotNegative,
    layer_decay: Fraction = 1.0,
) -> list[dict[str, Any]]:
    """Split the trainable parameters by rate (backbone or head) and by decay; groups without parameters are left out.

    The head is everything outside `classifier.backbone`: the scorer and what the pooling learns. Biases, scales and
    offsets of a normalisation (parameters of fewer than two dimensions) are not decayed: pulling them to zero does
    not make a network simpler [open].

    Of the backbone the last block has `lr_backbone` [reading], each block before it `layer_decay` times the rate of the
    next one (Clark et al., ICLR 2020, appendix A; Bao et al., ICLR 2022, section 3), see `depths`.
    """
    blocks = depths(classifier.get_submodule("backbone"))
    last = max(blocks.values(), default=0)
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for parameter in classifier.parameters():
        if parameter.requires_grad:
            depth = blocks.get(id(parameter))
            part, rate = (
                ("head", lr_head) if depth is None else ("backbone", lr_backbone * layer_decay ** (last - depth))
            )
            groups.setdefault((part, rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": weight_decay if decays else 0.0, "part": part}
        for (part, rate, decays), members in groups.items()
    ]


def depths(backbone: nn.Module) -> dict[int, int]:
    """The number of the block, from 0 at the image on, of every parameter of a backbone, by its id.

    Networks of timm say themselves what their blocks are. Of others these are the children in order of definition,
    sequences of modules unfolded; a normalisation belongs to what stands before it.
    """
    network: Any
    for network in backbone.modules():
        if hasattr(network, "group_matcher"):
            from timm.models import group_parameters

            layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
            order = sorted({layers[name] for name, _ in network.named_parameters()})
            return {id(parameter): order.index(layers[name]) for name, parameter in network.named_parameters()}
    while len(learning := [child for child in backbone.children() if any(True for _ in child.parameters())]) == 1:
        backbone = learning[0]
    blocks = [list(backbone.parameters(recurse=False))]
    for module in _unfolded(backbone.children()):
        parameters = list(module.parameters())
        if any(parameter.ndim > 1 for parameter in parameters) and blocks[-1]:
            blocks.append(parameters)
        else:
            blocks[-1] += parameters
    return {id(parameter): depth for depth, block in enumerate(blocks) for parameter in block}


def _unfolded(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if type(module) in (nn.Sequential, nn.ModuleList):
            yield from _unfolded(module.children())
        else:
            yield module


def build_optimizer(classifier: nn.Module, part: Mapping[str, Any]) -> Optimizer:
    """Build any optimizer of torch from its `_target_`, its own arguments, and those of `parameter_groups`.

    Raises:
        LemlightError: nothing is left to train, or the optimizer does not take its arguments.
    """
    rest = dict(part)
    rates = {name: rest.pop(name) for name in ("lr_backbone", "lr_head", "layer_decay") if name in rest}
    groups = parameter_groups(classifier, **rates, weight_decay=rest.get("weight_decay", 0.0))
    if not groups:
        raise LemlightError("the classifier has no parameter to train: every one of them is frozen")
    optimizer: Optimizer = build(rest, "optimizer", groups)
    return optimizer


def build_scheduler(optimizer: Optimizer, part: Mapping[str, Any], total_steps: int, epochs: int) -> dict[str, Any]:
    """Build a schedule from its `_target_` as Lightning takes it.

    Any scheduler of torch will do. `interval` is what it is stepped after: step (of the optimizer) or epoch. Arguments
    `total_steps` and `epochs` of its constructor are given those of the training.
    """
    rest = dict(part)
    interval = rest.pop("interval", "epoch")
    scheduler = build(rest, "scheduler", optimizer, total_steps=total_steps, epochs=epochs)
    return {"scheduler": scheduler, "interval": interval}


@checked
def constant(optimizer: Optimizer, total_steps: int, epochs: int, warmup_epochs: NotNegative = 0) -> LambdaLR:
    """The same rate throughout, after a linear rise over the first `warmup_epochs` epochs."""
    return _by_epoch(optimizer, total_steps, epochs, warmup_epochs, lambda epoch: 1.0)


@checked
def step(
    optimizer: Optimizer,
    total_steps: int,
    epochs: int,
    every_epochs: Count,
    factor: Fraction,
    warmup_epochs: NotNegative = 0,
) -> LambdaLR:
    """Times `factor` after every `every_epochs` epochs, counted from the start; a linear rise at the start."""
    return _by_epoch(
        optimizer, total_steps, epochs, warmup_epochs, lambda epoch: math.pow(factor, math.floor(epoch / every_epochs))
    )


@checked
def cosine(
    optimizer: Optimizer, total_steps: int, epochs: int, final_fraction: Probability, warmup_epochs: NotNegative = 0
) -> LambdaLR:
    """Half a cosine from 1 at the end of the warm-up to `final_fraction` of the first rate at the last step."""

    def fall(epoch: float) -> float:
        fraction = min(1.0, max(0.0, epoch - warmup_epochs) / max(epochs - warmup_epochs, 1e-9))
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * fraction)) / 2

    return _by_epoch(optimizer, total_steps, epochs, warmup_epochs, fall)


def _by_epoch(
    optimizer: Optimizer, total_steps: int, epochs: int, warmup: float, factor: Callable[[float], float]
) -> LambdaLR:
    """Rates as a function of the fractional epoch, stepped after every optimizer step; `total_steps` counts those.

    Stepped per step, not per epoch, its state is complete when a checkpoint is written at the end of an epoch.
    """
    if warmup >= epochs > 1:
        raise LemlightError(f"scheduler.warmup_epochs={warmup} must stay below trainer.max_epochs={epochs}")
    steps_per_epoch = total_steps / epochs

    def rate(step: int) -> float:
        epoch = step / steps_per_epoch
        rise = WARMUP_START + (1 - WARMUP_START) * epoch / warmup if epoch < warmup else 1.0
        return rise * factor(epoch)

    return LambdaLR(optimizer, rate)

"""Less memory for a training: the blocks of a backbone keep their inputs alone and are computed again on the way back.

Chen et al., "Training deep nets with sublinear memory cost", 2016. torchvision's `memory_efficient` and timm's
`set_grad_checkpointing` do it as well; both move BatchNorm's running statistics twice a step, which is another network
in the end, and each is for networks of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lemlight.errors import LemlightError

LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_gradients(backbone: nn.Module) -> None:
    """Let the blocks of a backbone keep nothing but what they are given, in training; its weights keep their names.

    Gradients and running statistics are those of the backbone as it was; a step takes about another forward pass.

    Raises:
        LemlightError: the backbone does not consist of blocks.
    """
    found = list(blocks(backbone))
    if len(found) < 2:
        raise LemlightError(
            "backbone.gradient_checkpointing=true: this backbone has no blocks, modules of several layers, that could "
            "be computed again one by one; set it to false"
        )
    for block in found:
        block.forward = partial(_computed_twice, block.forward)  # a copy of the network copies this, too


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks: modules of several layers in the network, in its lists of modules, or in the one network it wraps.

    A block of ResNet or ConvNeXt, a layer of DenseNet, a stage of some of timm's networks.
    """
    composed = [child for child in network.children() if _is_composed(child)]
    if len(composed) == 1 and not isinstance(network, LISTS):
        yield from blocks(composed[0])
        return
    for child in composed:
        if isinstance(child, LISTS) and any(map(_is_composed, child.children())):
            yield from blocks(child)
        else:
            yield child


def _is_composed(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _computed_twice(forward: Any, *args: Any) -> Any:
    """Run `forward`, the method of a block, and again on the way back."""
    block: nn.Module = forward.__self__
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args)

    def run(*given: Any) -> Any:
        return forward(*_own_lists(given))

    return checkpoint(run, *_own_lists(args), use_reentrant=False, context_fn=lambda: (nullcontext(), _aside(block)))


def _own_lists(args: tuple[Any, ...]) -> list[Any]:
    """Lists of tensors are changed by some networks, within a block (HRNet) or behind it (DenseNet)."""
    return [list(one) if isinstance(one, list) else one for one in args]


@contextmanager
def _aside(block: nn.Module) -> Iterator[None]:
    """Let the second pass move copies of what a forward pass moves, running statistics above all."""
    own = [(module, dict(module.named_buffers(recurse=False))) for module in block.modules()]
    _put(own, lambda buffer: buffer.clone())
    try:
        yield
    finally:
        _put(own, lambda buffer: buffer)


def _put(own: list[tuple[nn.Module, dict[str, Tensor]]], what: Callable[[Tensor], Tensor]) -> None:
    for module, buffers in own:
        for name, buffer in buffers.items():
            setattr(module, name, what(buffer))

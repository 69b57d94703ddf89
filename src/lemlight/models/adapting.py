"""A backbone adapted: its output stride is measured and halved, and its blocks keep less memory in a training.

Memory: Chen et al., "Training deep nets with sublinear memory cost", 2016. torchvision's `memory_efficient` and timm's
`set_grad_checkpointing` do it as well; both move BatchNorm's running statistics twice a step, which is another network
in the end, and each is for networks of its own.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lemlight.errors import LemlightError

# A probe without values costs nothing; it is large so that borders hardly matter for the ratio of two sizes.
PROBE_SIZE = 512
RESAMPLING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def _stride(map_: Tensor) -> int:
    """Stride of a map of the probe image, to the nearest power of two."""
    return int(2 ** round(math.log2(PROBE_SIZE / map_.shape[-1])))


@torch.no_grad()
def on_meta(features: nn.Module, size: tuple[int, int] = (PROBE_SIZE, PROBE_SIZE)) -> Any:
    """Give what a feature extractor makes of a grey image of `size` (H, W) px, without values: shapes alone."""
    tensors = itertools.chain(features.named_parameters(), features.named_buffers())
    shapes = {name: tensor.to("meta") for name, tensor in tensors}
    training = features.training
    features.eval()
    try:
        return torch.func.functional_call(features, shapes, (torch.empty(1, 1, *size, device="meta"),))
    finally:
        features.train(training)


def measure(features: nn.Module) -> tuple[int, int]:
    """Return the number of channels and the output stride of a feature extractor for grey images."""
    out: Tensor = on_meta(features)
    return out.shape[1], _stride(out)


def _resampled(features: nn.Module) -> list[tuple[str, nn.Module, int, int]]:
    """The layers that can reduce, as the image passes them: name, layer, stride of its input and of its output."""
    found: list[tuple[str, nn.Module, int, int]] = []

    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0].shape[-1] > 1:  # squeeze-and-excitation works on one cell and has no stride
            found.append((name, module, _stride(inputs[0]), _stride(output)))

    layers = [(name, module) for name, module in features.named_modules() if isinstance(module, RESAMPLING)]
    hooks = [module.register_forward_hook(partial(record, name)) for name, module in layers]
    measure(features)
    for hook in hooks:
        hook.remove()
    return found


def _keep_size(convolution: nn.Conv2d, dilation: int) -> None:
    """Let a convolution return a map of its input's size, its kernel spread out by `dilation`."""
    convolution.stride = (1, 1)
    convolution.dilation = (dilation, dilation)
    convolution.padding = "same"
    if hasattr(convolution, "static_padding"):  # EfficientNet-Lite pads in a layer of its own
        convolution.static_padding = nn.Identity()


def _undo_pooling(features: nn.Module, name: str, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
    """Let a pooling layer return a map of its input's size; one that cannot is dropped."""
    if pool.kernel_size == 3 and pool.padding == 1:
        pool.stride = 1
    else:
        features.set_submodule(name, nn.Identity())


def halve_stride(features: nn.Module, wanted: int) -> None:
    """Halve the output stride in place: the last reduction keeps its size, what follows is dilated by 2.

    Weights keep their meaning: where the reduction is a convolution, the values of every second row and
    column equal the map at the full stride (torchvision: the even ones; EfficientNet-Lite, which pads its even-sized
    maps at the end: the odd ones). Where it is a pooling layer of kernel 2 (DenseNet, VGG), that is dropped, and values
    agree only roughly, as do those of GoogLeNet, which pools behind it,
    and of networks with squeeze-and-excitation, which averages over the finer map.

    Raises:
        LemlightError: some reduction of the network is not a layer that can be changed.
    """
    for name, module, before, after in _resampled(features):
        reduces = before == wanted and after == 2 * wanted
        if reduces and isinstance(module, nn.Conv2d):
            _keep_size(module, dilation=1)
        elif reduces and isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            _undo_pooling(features, name, module)
        elif before == 2 * wanted and isinstance(module, nn.Conv2d):
            _keep_size(module, dilation=2)
    try:
        reached = measure(features)[1]
    except RuntimeError:  # branches whose sizes no longer fit
        reached = 2 * wanted
    if reached != wanted:
        raise LemlightError("a reduction outside its layers cannot be undone")


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

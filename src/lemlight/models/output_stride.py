"""Output stride: measured on a small image, and halved by dilation where the network allows it."""

import itertools
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

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

"""The rules of importance: which torch function follows which, what a map carries along, how importance is divided."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

ACTIVATION = "_lemlight_activation"  # of a normalised image: the image itself
CONVOLUTION = "_lemlight_convolution"  # of the output of a convolution: how it came about
INSIDE = "_lemlight_inside"  # of a padded map: 1 in the map, 0 in the padding
RULED = "_lemlight_ruled"  # of every map that a rule made: its node in the graph

# which rule which torch function follows, by its name without the mark of its in-place form
# one value in, one value out: importance goes through
ACTIVATIONS = frozenset([
    "relu", "relu6", "hardtanh", "silu", "gelu", "hardswish", "leaky_relu", "elu", "celu", "selu", "mish",
    "softplus", "tanh", "clamp", "detach",
])  # fmt: skip
# `batch_norm` has a rule of its own
NORMALISATIONS = frozenset(["layer_norm", "group_norm", "instance_norm", "local_response_norm"])
# their values weigh others and carry nothing themselves (squeeze-and-excitation)
GATES = frozenset(["sigmoid", "hardsigmoid", "softmax"])
# linear with weights of their own
CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d", "linear"])
# linear with fixed weights of at least 0
AVERAGES = frozenset(["avg_pool2d", "adaptive_avg_pool2d", "mean", "interpolate", "upsample"])
SUMS = frozenset(["add", "__add__", "__radd__"])
# `map - x`, `map * x` and `map / x`; only a product may name the map second
SCALINGS = frozenset(["sub", "__sub__", "div", "__truediv__", "true_divide"])
PRODUCTS = frozenset(["mul", "__mul__", "__rmul__", "multiply"])
PADS = frozenset(["pad", "constant_pad_nd"])
# they move, drop or choose values: torch's own backward moves the importance with them (max pooling: to the winner)
MOVES = frozenset([
    "view", "view_as", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "swapaxes",
    "contiguous", "clone", "to", "float", "chunk", "split", "unbind", "narrow", "select", "squeeze",
    "unsqueeze", "expand", "expand_as", "__getitem__", "index_select", "roll", "cat", "concat", "concatenate",
    "stack", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "feature_dropout", "max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d", "amax",
])  # fmt: skip


def plain_name(name: str) -> str:
    """Return the name of the out-of-place form of a torch function."""
    return name if name.startswith("__") else name.removesuffix("_")


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """Go through the tensors among the arguments of a function, or its results, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(*value)
        elif isinstance(value, dict):
            yield from tensors_in(*value.values())


def replace_tensors(values: Any, replacement: Callable[[Tensor], Any]) -> Any:
    """Return arguments with their tensors replaced, those in lists included."""
    if isinstance(values, Tensor):
        return replacement(values)
    if isinstance(values, list | tuple) and any(True for _ in tensors_in(*values)):
        return [replace_tensors(value, replacement) for value in values]
    if isinstance(values, dict):
        return {key: replace_tensors(value, replacement) for key, value in values.items()}
    return values


def is_map(value: object) -> bool:
    """Whether a value was computed from the image: within a propagation nothing else has a graph behind it."""
    return isinstance(value, Tensor) and (hasattr(value, RULED) or (value.requires_grad and not value.is_leaf))


def mark_ruled(tensor: Tensor) -> None:
    """Note that a rule made this map."""
    setattr(tensor, RULED, tensor.grad_fn)


def is_ruled(tensor: Tensor) -> bool:
    """Whether a rule made this map, and none but rules: a `torch.autograd.Function` puts a node of its own in place."""
    return hasattr(tensor, RULED) and getattr(tensor, RULED) is tensor.grad_fn


def keep_activation(source: Tensor, result: Tensor) -> Tensor:
    """Hand on the image behind a normalised image, where the source is one."""
    if hasattr(source, ACTIVATION):
        setattr(result, ACTIVATION, getattr(source, ACTIVATION))
    return result


@torch.no_grad()
def move_activation(function: Callable[..., Any], args: Any, kwargs: dict[str, Any], results: Any) -> None:
    """Move the image behind a normalised one along with it."""
    maps = [tensor for tensor in tensors_in(args, kwargs) if is_map(tensor)]
    if all(hasattr(tensor, ACTIVATION) for tensor in maps):
        moved = function(*replace_tensors(args, _activation), **replace_tensors(kwargs, _activation))
        for result, activation in zip(tensors_in(results), tensors_in(moved), strict=True):
            setattr(result, ACTIVATION, activation)


def _activation(tensor: Tensor) -> Any:
    return getattr(tensor, ACTIVATION, tensor)


Linear = Callable[[Tensor], Tensor]
# contributions and fractions up to here are none: importance divided by less would overflow float32
SMALLEST = 1e-30


def exact_dtype(device: torch.device) -> torch.dtype:
    """The most exact type of floating numbers of a device: float64, but MPS has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def exact(tensor: Tensor) -> Tensor:
    """The tensor in the most exact type of its device."""
    return tensor.to(exact_dtype(tensor.device))


class Ledger:
    """Importance `(N,)` that arrived at nodes that no positive contribution reaches: it goes no further.

    `repeat`: whether more importance will be handed down the same way. Then what can be used again is kept, a fifth
    more memory, and all but the first time take little more than half as long.
    """

    def __init__(self, images: int, device: torch.device, repeat: bool = False) -> None:
        self.repeat = repeat
        self.lost = torch.zeros(images, dtype=exact_dtype(device), device=device)

    def begin(self) -> None:
        """Start from nothing lost, in a tensor of its own."""
        self.lost = torch.zeros_like(self.lost)

    def note(self, importance: Tensor) -> None:
        """Count importance `(N, ...)` as lost."""
        self.lost += importance.flatten(1).sum(dim=1)


class HandThrough(Function):
    """A one-to-one connection: activation functions, normalisations, products with a gate or a scale."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        """Give the value that the network computed."""
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *importance: Tensor) -> Any:
        """Hand down the importance of the output."""
        return importance[0], None


class Inside(Function):
    """A padded map: what arrives in the padding is lost."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, inside: Tensor, ledger: Ledger) -> Tensor:
        """Give the padded map; `inside` is 0 in what was padded."""
        ctx.save_for_backward(inside)
        ctx.ledger = ledger
        return padded.view_as(padded)

    @staticmethod
    def backward(ctx: Any, *importance: Tensor) -> Any:
        """Hand down the importance inside."""
        (inside,) = ctx.saved_tensors
        handed = importance[0] * inside
        ctx.ledger.note(importance[0] - handed)
        return handed, None, None


@dataclass(frozen=True)
class Weights:
    """The weights of a linear function, without its bias.

    positive: applies the positive weights alone.
    sizes: applies the sizes of all weights; for functions that draw on one channel only, else None.
    """

    positive: Linear
    sizes: Linear | None = None


class Weighted(Function):
    """A linear function: `P_i = sum over j of a_i relu(w_ij) / (sum over k of a_k relu(w_kj)) * P_j` (Eq. 10).

    a is the positive part of the activation. A node that no positive contribution reaches is active by its bias alone:
    its importance is lost, and the ledger counts it [paper: weights below 0 are discarded]. Averages and depthwise
    convolutions draw on a single channel, where that is the rule rather than the exception (of a trained
    EfficientNet-Lite0, 97 % would be lost): there it stays in the window, in proportion to the sizes of the weights
    [reading].
    """

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        activation: Tensor,
        inside: Tensor | None,
        value: Tensor,
        weights: Weights,
        ledger: Ledger,
    ) -> Tensor:
        """Give the value that the network computed; `inside` is 0 in what was padded, None: nothing was."""
        ctx.save_for_backward(activation, inside)
        ctx.weights, ctx.ledger, ctx.contributions = weights, ledger, None
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *importance: Tensor) -> Any:
        """Hand down the importance of the output."""
        activation, inside = ctx.saved_tensors
        contributions = ctx.contributions or Contributions(ctx.weights.positive, positive_part(activation))
        if ctx.ledger.repeat:
            ctx.contributions = contributions
        handed, left = contributions.distribute(importance[0])
        if ctx.weights.sizes is not None and bool(left.any()):
            window = torch.ones_like(activation) if inside is None else torch.ones_like(activation) * inside
            rest, left = Contributions(ctx.weights.sizes, window).distribute(left)
            handed += rest
        ctx.ledger.note(left)
        return handed, None, None, None, None, None


def positive_part(activation: Tensor) -> Tensor:
    """Return the positive part; behind ReLU, which is nearly everywhere, without a copy."""
    return activation if activation.numel() and bool(activation.min() >= 0) else activation.clamp(min=0)


class Contributions:
    """What the inputs of a linear function contribute to its outputs: the same for all importance that arrives."""

    def __init__(self, weights: Linear, excitation: Tensor) -> None:
        with torch.enable_grad():
            self._inputs = excitation.detach().requires_grad_()
            self._outputs = weights(self._inputs)
        # in place and without masks of bool, which take most of the time of a map otherwise
        self._total = torch.threshold_(self._outputs.detach(), SMALLEST, torch.inf)  # what nothing reaches hands on 0

    def distribute(self, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Divide importance `(N, ...)` among the inputs in proportion to what they give; and what is left over."""
        share = importance / self._total
        left = self._total.eq(torch.inf).to(importance.dtype).mul_(importance)
        # the far tails of one extremum would be denormal numbers, with which a convolution takes three times as long
        torch.threshold_(share, SMALLEST, 0.0)
        (handed,) = torch.autograd.grad(self._outputs, self._inputs, share, retain_graph=True)
        return handed.mul_(self._inputs.detach()), left


class Sum(Function):
    """A sum of two maps of one shape: in proportion to their positive parts; where both have none, to their sizes."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor, value: Tensor) -> Tensor:
        """Give the value that the network computed."""
        ctx.save_for_backward(one, other)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *importance: Tensor) -> Any:
        """Hand down the importance of the output."""
        one, other = ctx.saved_tensors
        part = one.clamp(min=0)
        total = torch.threshold_(other.clamp(min=0).add_(part), SMALLEST, torch.inf)
        share = part.div_(total)
        neither = total.eq_(torch.inf)
        if bool((neither * importance[0]).any()):  # seldom: behind the sum comes a ReLU as a rule
            sizes = one.abs() + other.abs()
            by_size = torch.where(sizes > SMALLEST, one.abs() / sizes.clamp(min=SMALLEST), 0.5)
            share = torch.where(neither > 0, by_size, share)
        first = share.mul_(importance[0])
        return first, importance[0] - first, None

"""What is known of the maps inside a network beside their values, kept on the tensors themselves."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

ACTIVATION = "_lemlight_activation"  # of a normalised image: the image itself
CONVOLUTION = "_lemlight_convolution"  # of the output of a convolution: how it came about
INSIDE = "_lemlight_inside"  # of a padded map: 1 in the map, 0 in the padding
RULED = "_lemlight_ruled"  # of every map that a rule made: its node in the graph


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

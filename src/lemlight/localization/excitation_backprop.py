"""Running a network so that its backward pass hands down importance instead of gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lemlight.errors import LemlightError
from lemlight.localization import propagation_rules as rules
from lemlight.localization.baselines import evaluating
from lemlight.localization.propagation_rules import (
    ACTIVATION,
    CONVOLUTION,
    INSIDE,
    HandThrough,
    Inside,
    Ledger,
    Linear,
    Sum,
    Weighted,
    Weights,
    exact,
    is_map,
    is_ruled,
    keep_activation,
    mark_ruled,
    move_activation,
    replace_tensors,
    tensors_in,
)

Function = Callable[..., Any]
CHANNEL = 1


class Propagation(TorchFunctionMode):
    """Give every function that the image passes its rule of importance; the network itself is not touched.

    The rule of Eq. 10 asks for activations of at least 0. Behind ReLU they are; behind SiLU, GELU, Hardswish and in
    linear bottlenecks the positive part counts, since such a function is positive where its input is [reading]. The
    first convolution sees the image in [0, 1], not the normalised one, so that air, 0, takes no importance.

    In-place functions work on a copy, which from then on stands in for the tensor they were given.

    Attributes:
        convolutions: how many were passed.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.convolutions = 0
        self._overwritten = WeakTensorKeyDictionary()  # by what; weak: a network may overwrite tensors of its own

    def run(self, network: nn.Module, image: Tensor) -> Tensor:
        """Compute the features of an image `(N, C, H, W)`, at least 0, that requires gradients.

        Raises:
            LemlightError: the network has no convolution, or a function without a rule.
        """
        setattr(image, ACTIVATION, image.detach())
        mark_ruled(image)
        with self:
            features: Tensor = network(image)
        if not self.convolutions:
            raise LemlightError("importance needs a network of convolutions, and this backbone has none")
        features = self._latest(features)
        _check_ruled(features)
        if not features.requires_grad:
            raise LemlightError("importance finds no way back from the features of this network to the image")
        return features

    def __torch_function__(self, function: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = replace_tensors(args, self._latest), replace_tensors(kwargs or {}, self._latest)
        maps = [tensor for tensor in tensors_in(args, kwargs) if is_map(tensor)]
        if not maps:
            return _without_graph(function, args, kwargs)
        for tensor in maps:
            _check_ruled(tensor)
        if not args:
            args = [kwargs.pop("input")]
        given = args[0]
        with torch.enable_grad():  # parts that the network runs without gradients hand down importance, too
            result = self._ruled(function, args, kwargs)
        for tensor in tensors_in(result):
            if tensor.requires_grad:
                mark_ruled(tensor)
        if _in_place(function, args, kwargs) and result is not given:
            self._overwritten[given] = result
        return result

    def _latest(self, tensor: Tensor) -> Tensor:
        while tensor in self._overwritten:
            tensor = self._overwritten[tensor]
        return tensor

    def _ruled(self, function: Function, args: Any, kwargs: dict[str, Any]) -> Any:
        name = rules.plain_name(function.__name__)
        if name in rules.CONVOLUTIONS:
            return self._convolution(function, args, kwargs)
        if name in rules.AVERAGES and kwargs.get("mode") != "bicubic":  # which has weights below 0
            return self._average(function, args, kwargs)
        if name in rules.SUMS and kwargs.get("alpha", 1) == 1:
            return _sum(_value(function, args, kwargs), *_operands(args, kwargs))
        if name in rules.SCALINGS | rules.PRODUCTS:
            return _scaled(function, name, args, kwargs)
        if name in rules.GATES:
            return _value(function, args, kwargs)
        if name == "batch_norm":
            return self._batch_norm(function, args, kwargs)
        if name in rules.ACTIVATIONS | rules.NORMALISATIONS:
            return hand_through(args[0], _value(function, args, kwargs))
        if name in rules.PADS:
            return self._pad(function, args, kwargs)
        if name in rules.MOVES and function.__name__ != f"{name}_":
            result = function(*args, **kwargs)
            move_activation(function, args, kwargs, result)
            return result
        return _without_rule(function, args, kwargs)

    def _convolution(self, function: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
        source = args[0]
        weight = (args[1] if len(args) > 1 else kwargs["weight"]).detach()
        options = {key: value for key, value in kwargs.items() if key not in ("input", "weight", "bias")}

        def weights_of(signed: Tensor) -> Weights:
            def applying(part: Tensor) -> Linear:
                return lambda activation: function(activation, part, None, *args[3:], **options)

            depthwise = signed.ndim > 2 and signed.shape[1] == 1 and source.shape[CHANNEL] > 1
            return Weights(applying(signed.clamp(min=0)), applying(signed.abs()) if depthwise else None)

        self.convolutions += 1
        result = self._weighted(source, _value(function, args, kwargs), weights_of(weight))
        setattr(result, CONVOLUTION, (source, weight, weights_of))
        return result

    def _batch_norm(self, function: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Behind a convolution it is folded: where its weight is negative the convolution's signs turn round."""
        value = _value(function, args, kwargs)
        scale = kwargs.get("weight", args[3] if len(args) > 3 else None)
        known = getattr(args[0], CONVOLUTION, None)
        if known is None or scale is None or bool((scale > 0).all()):
            return keep_activation(args[0], hand_through(args[0], value))
        source, weight, weights_of = known
        signs = scale.detach().sign().to(weight.dtype)
        return self._weighted(source, value, weights_of(weight * signs.view(-1, *[1] * (weight.ndim - 1))))

    def _average(self, function: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
        def averaged(activation: Tensor) -> Tensor:
            result: Tensor = function(activation, *args[1:], **kwargs)
            return result

        return self._weighted(args[0], _value(function, args, kwargs), Weights(averaged, averaged))

    def _pad(self, function: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
        result = function(*args, **kwargs)
        move_activation(function, args, kwargs, result)
        with torch.no_grad():
            one, nothing = torch.ones_like(args[0][:1, :1]), torch.zeros_like(args[0][:1, :1])
            # the difference: what is padded in need not be 0
            inside = function(one, *args[1:], **kwargs) - function(nothing, *args[1:], **kwargs)
        padded: Tensor = Inside.apply(result, inside, self.ledger)
        setattr(padded, INSIDE, inside)
        return keep_activation(result, padded)

    def _weighted(self, source: Tensor, value: Tensor, weights: Weights) -> Tensor:
        activation = getattr(source, ACTIVATION, source).detach()
        inside = getattr(source, INSIDE, None)
        result: Tensor = Weighted.apply(source, activation, inside, value, weights, self.ledger)
        return result


def hand_through(source: Tensor, value: Tensor) -> Tensor:
    """Give the value, whose importance is that of the source."""
    source = source if source.shape == value.shape else source.expand_as(value)
    through: Tensor = HandThrough.apply(source, value)
    return through


def _sum(value: Tensor, one: Any, other: Any) -> Tensor:
    if is_map(one) and is_map(other):
        result: Tensor = Sum.apply(one.expand_as(value), other.expand_as(value), value)
        return result
    carrier = one if is_map(one) else other
    return keep_activation(carrier, hand_through(carrier, value))


def _scaled(function: Function, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """A shift or a product with a number, a parameter or a gate; the image keeps its own values beside it."""
    one, other = _operands(args, kwargs)
    value = _value(function, args, kwargs)
    carriers = [part for part in (one, other) if is_map(part) and part.shape == value.shape]
    if len(carriers) != 1 or (carriers[0] is not one and name not in rules.PRODUCTS):
        _refuse(f"the function '{name}' of two maps")
    return keep_activation(carriers[0], hand_through(carriers[0], value))


def _operands(args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return args[0], args[1] if len(args) > 1 else kwargs["other"]


def _in_place(function: Function, args: Any, kwargs: dict[str, Any]) -> bool:
    name = function.__name__
    by_position = name in rules.ACTIVATIONS and any(value is True for value in args[1:])
    return rules.plain_name(name) != name or kwargs.get("inplace") is True or by_position


def _value(function: Function, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """What the network computes, without a graph of gradients and with nothing overwritten."""
    if kwargs.get("inplace") is True:
        kwargs = kwargs | {"inplace": False}
    with torch.no_grad():
        first = args[0].clone() if _in_place(function, args, kwargs) else args[0]
        value: Tensor = function(first, *args[1:], **kwargs)
    return value


def _without_graph(function: Function, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a function that the image has no part in: what is made of parameters is a constant."""
    if any(tensor.requires_grad for tensor in tensors_in(args, kwargs)):
        with torch.no_grad():
            return function(*args, **kwargs)
    return function(*args, **kwargs)


def _without_rule(function: Function, args: Any, kwargs: dict[str, Any]) -> Any:
    """Sizes, indices and comparisons carry no importance; any other function does, and would need a rule."""
    name = function.__name__
    if rules.plain_name(name) == name and name != "numpy":
        result = function(*args, **kwargs)
        if not any(tensor.requires_grad or name == "__get__" for tensor in tensors_in(result)):
            return result
    return _refuse(f"the function '{name}'")


def _check_ruled(tensor: Tensor) -> None:
    """A map that no rule made comes from code that torch does not show us: its gradient is no importance."""
    if is_map(tensor) and not is_ruled(tensor):
        _refuse(f"'{tensor.grad_fn.name() if tensor.grad_fn else 'a map'}'")


def _refuse(what: str) -> NoReturn:
    raise LemlightError(
        f"importance has no rule for {what} of this network: use another backbone, or a map that needs no rule, "
        "localization.method=cam or grad_cam (localize: method=)"
    )


class LocationMaps(NamedTuple):
    """Importance of the pixels, and where the rest went: `maps.sum + lost = started`, for each map.

    Attributes:
        maps: `(N, H, W)` float32, at least 0.
        started: `(N,)`, importance that was put in; float64 where the device has it, as `lost`.
        lost: `(N,)`, importance that arrived where no positive contribution reaches.
    """

    maps: Tensor
    started: Tensor
    lost: Tensor


class Passage:
    """One pass of images `(N, 1, H, W)` in [0, 1] through a classifier, to be followed back from any extrema.

    The classifier, with a `backbone` and a `scorer`, is looked at in eval mode and left as it was. BatchNorm counts as
    part of the convolution in front of it; where it comes first it is a one-to-one connection. Of a constant image the
    maps may be lost altogether. With `repeat` it can be followed back several times.

    Attributes:
        features: `(N, C, h, w)`, what the backbone says, without a graph.

    Raises:
        LemlightError: a network without a convolution, or with a function that has no rule.
    """

    def __init__(self, classifier: nn.Module, images: Tensor, repeat: bool = False) -> None:
        self._classifier = classifier
        self._ledger = Ledger(len(images), images.device, repeat)
        with evaluating(classifier, images.device.type):
            self._pixels = images.detach().clone().float().requires_grad_()
            self._features = Propagation(self._ledger).run(classifier.get_submodule("backbone"), self._pixels)
        self.features = self._features.detach()

    def back(self, maxima: Tensor, minima: Tensor) -> LocationMaps:
        """Follow all extrema `(N, h, w)` to the pixels at once, in one backward pass: the rule is linear.

        Maxima follow the positive weights of the scorer, minima the negative ones as positive amounts (Eq. 11). Both
        hold the importance that they start with: bool, or at least 0.
        """
        with evaluating(self._classifier, self._pixels.device.type):
            self._ledger.begin()
            scorer = self._classifier.get_submodule("scorer")
            start = _at_features(self.features, scorer, maxima, minima, self._ledger)
            (maps,) = torch.autograd.grad(self._features, self._pixels, start, retain_graph=self._ledger.repeat)
        started = (exact(maxima) + exact(minima)).flatten(1).sum(dim=1)
        return LocationMaps(maps.sum(dim=1), started, self._ledger.lost)


def _at_features(features: Tensor, scorer: nn.Module, maxima: Tensor, minima: Tensor, ledger: Ledger) -> Tensor:
    """Hand the importance of the extrema `(N, h, w)` to the features `(N, C, h, w)`, each kind by its own weights."""
    weight = scorer.get_parameter("weight").detach().float()  # (1, C, 1, 1)
    start = torch.zeros_like(features)
    for extrema, sign in ((maxima, 1), (minima, -1)):
        contributions = features * (sign * weight).clamp(min=0)
        total = contributions.sum(dim=1)
        importance = extrema.to(features.dtype)
        reached = total > torch.finfo(total.dtype).tiny
        ledger.note(importance * ~reached)
        start += contributions * torch.where(reached, importance / total.where(reached, 1), 0).unsqueeze(1)
    return start

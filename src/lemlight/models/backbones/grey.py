"""One grey channel in place of RGB."""

from torch import Tensor, nn


def stem_convolution(features: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name and the module of the first convolution, the one that sees the image."""
    for name, module in features.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise ValueError("the network has no convolution")


def sum_over_rgb(weight: Tensor) -> Tensor:
    """Sum a stem's weight `(C, 3, k, k)` over its input channels: `(C, 1, k, k)`.

    A convolution is linear, so this is the same function of a grey image as the RGB stem is of that image three times.
    It asks for one normalisation common to the three channels; with one per channel, zero padding would
    make the constant part depend on the distance to the border, which no single-channel convolution can express.
    """
    return weight.sum(dim=1, keepdim=True)


def make_grey(features: nn.Module) -> None:
    """Turn the stem of a network into one for a grey channel, in place."""
    _, stem = stem_convolution(features)
    stem.weight = nn.Parameter(sum_over_rgb(stem.weight.detach()))
    stem.in_channels = 1

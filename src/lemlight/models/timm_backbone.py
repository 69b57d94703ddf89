"""Networks of timm by their name on the hub: CNNs, and transformers whose tokens become a grid."""

import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lemlight.arguments import checked
from lemlight.building import did_you_mean
from lemlight.errors import LemlightError
from lemlight.models.adapting import PROBE_SIZE, measure, on_meta
from lemlight.models.backbones import (
    Backbone,
    OutputStride,
    read_state_dict,
    set_stride,
    state_of_file,
    weight_differences,
)

OBLONG = (608, 416)  # px; 19 x 13 cells, no multiple of the windows of 7 and 8 cells that some networks want
ODD = (601, 407)
# how the families of timm are asked to take images of any size; the first that a network knows
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"strict_img_size": False},
    {},
)
HUB_SECONDS = 10
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HEADS = ("head.fc", "head", "fc", "classifier", "last_linear")


class Grid(nn.Module):
    """A network of timm without its head, whose last map is a grid: grey images `(N, 1, H, W)` -> `(N, C, h, w)`.

    Tokens are laid out row by row; class and register tokens are left out. Where a transformer normalises behind its
    pooling, every token is normalised instead [reading].

    Attributes:
        tokens: whether the network gives tokens, as transformers do.

    Raises:
        LemlightError: what the network gives is no grid, or it takes images of one size only.
    """

    def __init__(self, name: str, network: Any) -> None:
        super().__init__()
        self.network = network
        self.channels, self.prefix = int(network.num_features), int(getattr(network, "num_prefix_tokens", 0))
        self.tokens, self.cell, self.multiple = False, 0, 1
        found = self._try(name, (PROBE_SIZE, PROBE_SIZE))
        self.tokens = found.ndim == 3
        cells = found.shape[1] - self.prefix if self.tokens else found.shape[2] * found.shape[3]
        self.cell = round(PROBE_SIZE / max(cells, 1) ** 0.5)
        if self._try(name, OBLONG).ndim != 4:
            raise LemlightError(self._no_grid(name, found))
        try:
            on_meta(self, ODD)
        except Exception:  # as it likes
            self.multiple = self.cell

    def forward(self, images: Tensor) -> Tensor:
        """Compute the last map; LemlightError for images of a size that the network does not take."""
        height, width = images.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise LemlightError(
                f"this network takes images whose sides are multiples of {self.multiple} px, not {height} x {width}: "
                "set dataset.prepare.height and dataset.prepare.width so, or choose another backbone"
            )
        found: Tensor = self.network.forward_features(images)
        if not isinstance(found, Tensor) or not self.cell:
            return found
        if self.tokens:
            norm: nn.Module = getattr(self.network, "fc_norm", nn.Identity())
            found = norm(found)[:, self.prefix :]
            rows, columns = height // self.cell, width // self.cell
            if rows * columns != found.shape[1]:  # padded to whole cells
                rows, columns = -(-height // self.cell), -(-width // self.cell)
            return found.transpose(1, 2).reshape(len(found), self.channels, rows, columns)
        return found if found.shape[1] == self.channels else found.permute(0, 3, 1, 2)

    def _try(self, name: str, size: tuple[int, int]) -> Tensor:
        try:
            found: Any = on_meta(self, size)
        except Exception as error:  # a network can refuse an image in any way
            raise LemlightError(
                f"backbone.name={name}: timm's network takes no images of {size[0]} x {size[1]} px "
                f"({' '.join(str(error).split())[:200]}): choose one that takes any size, as most CNNs and ViTs do"
            ) from error
        if not isinstance(found, Tensor) or found.ndim not in (3, 4) or self.channels not in found.shape:
            raise LemlightError(self._no_grid(name, found))
        return found

    def _no_grid(self, name: str, found: Any) -> str:
        got = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        return (
            f"backbone.name={name}: the last map of timm's network is no grid (N, C, h, w), but {got}: choose another "
            "network"
        )


@checked
def timm_network(
    name: str,
    weights: Literal["hub", "file", "none"] = "none",
    weights_file: str | None = None,
    output_stride: OutputStride | None = None,
) -> Backbone:
    """Build any network of timm for grey images whose last map is a grid.

    Args:
        name: its name at timm, with a tag (convnext_tiny.fb_in22k) or without: timm's default tag.
        weights: "hub" (those of the tag, downloaded once into the hub's cache), "file" (a state dict of this
            architecture, RGB or grey, with or without its head), "none" (random).
        weights_file: the file for weights="file", of torch or safetensors.
        output_stride: image pixels per cell of the feature map; None: what the network has. Vision transformers have
            the size of their patches: another one resamples the weights of the patches (FlexiViT, Beyer et al., CVPR
            2023, section 3.4), and so do those with patches of neither 16 nor 32, to 16 [open].

    Raises:
        LemlightError: timm is not installed; unknown name, no grid, weights that do not exist or do not fit, a stride
            that the network cannot have.
    """
    check_name(name)
    options, grid = _any_size(name)  # without values: a network that cannot be used is refused before a download
    signed = grid.tokens
    stride = measure(grid)[1]
    if signed and stride != (wanted := output_stride or (stride if stride in (16, 32) else 16)):
        options |= {"patch_size": wanted, "img_size": 14 * wanted}
        _any_size(name, (options,))
    state = _hub_weights(name) if weights == "hub" else state_of_file(name, weights, weights_file)
    features = Grid(name, _headless(name, options, state, weights_file or f"the hub's file for {name}"))
    _drop_unused(features)
    set_stride(name, features, output_stride or measure(features)[1])
    config = features.network.pretrained_cfg
    mean, std = (sum(config[key]) / len(config[key]) for key in ("mean", "std"))
    return Backbone(name, features, (mean, std), signed=signed)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise LemlightError("backbone=timm needs timm: pip install 'lemlight[timm]'") from error
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of every head that is left out
    return timm


def check_name(name: str) -> None:
    """Raise LemlightError, with close names, where timm has no network or no weights of this name."""
    timm = _timm()
    if timm.is_model(name.split(".")[0]) and ("." not in name or timm.models.is_model_pretrained(name)):
        return
    known = [*timm.list_models(), *timm.list_pretrained()]
    raise LemlightError(f"backbone.name={name}: timm has no such network{did_you_mean(name, known, 3)}")


def _any_size(name: str, choices: tuple[dict[str, Any], ...] = ANY_SIZE) -> tuple[dict[str, Any], Grid]:
    """The first of the choices of arguments that the network knows, and what it becomes with them, without values."""
    for options in choices:
        try:
            with torch.device("meta"):
                network = _timm().create_model(name, in_chans=1, num_classes=0, **options)
        except TypeError:  # an argument that this family does not know
            continue
        return dict(options), Grid(name, network)
    raise LemlightError(f"backbone.name={name}: timm cannot build it with {choices[-1]}: choose another output_stride")


def _headless(name: str, options: Mapping[str, Any], state: dict[str, Tensor] | None, source: str) -> nn.Module:
    """Build the network with its weights, of which none is left out, and drop what its last map does not need."""
    timm = _timm()
    network: Any
    if state is None:
        network = timm.create_model(name, in_chans=1, num_classes=0, **options)
    else:
        classes = next((len(state[f"{head}.weight"]) for head in HEADS if f"{head}.weight" in state), 0)
        # timm is strict only where the weights have as many classes as the network
        given = {"state_dict": state, "num_classes": classes, "label_offset": 0}
        try:
            network = timm.create_model(
                name, pretrained=True, in_chans=1, num_classes=classes, pretrained_cfg_overlay=given, **options
            )
        except Exception as error:  # the converters of timm can fail in any way at weights of another network
            own = timm.create_model(name, num_classes=classes).state_dict()
            raise LemlightError(
                f"backbone weights: {source} is of another architecture: {weight_differences(own, state) or error}. "
                "Choose the backbone that the weights were trained with."
            ) from error
        network.pretrained_cfg.pop("state_dict", None)
    network.reset_classifier(0)
    built: nn.Module = network
    return built


@torch.enable_grad()
def _drop_unused(grid: Grid) -> None:
    """Drop the layers that the last map does not need, and freeze what else it does not: DDP waits for every weight."""
    grid.eval()  # a probe is no batch
    weights = {name: weight.detach().to("meta").requires_grad_() for name, weight in grid.named_parameters()}
    image = torch.empty(1, 1, PROBE_SIZE, PROBE_SIZE, device="meta")
    found = torch.func.functional_call(grid, weights | {n: b.to("meta") for n, b in grid.named_buffers()}, (image,))
    gradients = torch.autograd.grad(found.sum(), list(weights.values()), allow_unused=True)
    used = {name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}
    for name, child in list(grid.network.named_children()):
        inside = [f"network.{name}.{key}" for key, _ in child.named_parameters()]
        if inside and not used.intersection(inside):
            setattr(grid.network, name, nn.Identity())
    for name, weight in grid.named_parameters():
        weight.requires_grad_(weight.requires_grad and name in used)
    grid.train()


def _hub_weights(name: str) -> dict[str, Tensor]:
    """The weights of a tag, from the hub's cache on this machine or from the hub.

    Raises:
        LemlightError: the hub has none, or cannot be reached.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    config = _timm().get_pretrained_cfg(name)
    repository = config.hf_hub_id if config else None
    if not repository:
        raise LemlightError(
            f"backbone.name={name}: the hub has no weights of this network: choose weights=none, weights=file, or a "
            "name that timm.list_pretrained() holds"
        )
    files = [config.hf_hub_filename] if config.hf_hub_filename else HUB_FILES
    found = next((path for file in files if isinstance(path := try_to_load_from_cache(repository, file), str)), None)
    try:
        if found is None:
            if not constants.HF_HUB_OFFLINE:  # its own client would try for a minute
                urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS)
            found = hf_hub_download(repository, files[0])
        return read_state_dict(Path(found))
    except OSError as error:
        raise LemlightError(
            f"backbone weights: {repository} could not be had from {constants.ENDPOINT} ({_first_line(error)}). "
            "Without internet choose weights=file with weights_file=FILE (its model.safetensors, fetched elsewhere), "
            "weights=none, or backbone=efficientnet_lite0 with weights=bundled, whose ImageNet weights are installed."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

"""Pretrained weights: from a file, from torchvision, or from an installed package."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from lemlight.errors import LemlightError
from lemlight.models.backbones.grey import stem_convolution, sum_over_rgb

# torchvision's DenseNet files are older than its DenseNet: "denselayer1.norm.1." has become "denselayer1.norm1.".
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")
HEAD_KEYS = ("fc.", "_fc.", "classifier.", "aux1.", "aux2.", "AuxLogits.")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, plain or under the key "state_dict", without running code from the file.

    Raises:
        LemlightError: no such file, not a torch file, more than tensors inside, or no state dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise LemlightError(f"backbone weights: no file {path}; give weights_file an existing state dict.") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise LemlightError(
            f"backbone weights: {path} cannot be read as tensors ({type(error).__name__}). Give a file that "
            "torch.save(network.state_dict(), FILE) wrote; files with other objects are refused, they could run code."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise LemlightError(f"backbone weights: {path} holds no state dict (a mapping from names to tensors).")
    return {str(key): value for key, value in content.items()}


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


def _shorten(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def load_weights(features: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a whole network's state dict into its grey feature extractor; the head is dropped, RGB summed.

    Raises:
        LemlightError: keys or shapes of another architecture; nothing is loaded then.
    """
    stem = stem_convolution(features)[0] + ".weight"
    given = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items() if not key.startswith(HEAD_KEYS)}
    if stem in given and given[stem].ndim == 4 and given[stem].shape[1] == 3:
        given[stem] = sum_over_rgb(given[stem])
    expected = features.state_dict()
    # Files from before torch 0.4 do not count batches; nothing depends on the count.
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    shapes = [
        f"{key} is {tuple(given[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    problems = [("missing", missing), ("unknown", unexpected), ("of another shape", shapes)]
    lines = [f"{len(keys)} {word}: {_shorten(keys)}" for word, keys in problems if keys]
    if lines:
        raise LemlightError(
            f"backbone weights: {source} is of another architecture. " + "; ".join(lines) + ". "
            "Choose the backbone that the weights were trained with."
        )
    features.load_state_dict(given, strict=False)

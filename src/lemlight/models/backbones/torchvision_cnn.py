"""The convolutional part of any torchvision classification CNN, found from the order of its children."""

from collections import OrderedDict
from difflib import get_close_matches

import torchvision
from torch import nn

from lemlight.errors import LemlightError

TRANSFORMERS = ("vit_", "swin_", "maxvit")
# Auxiliary classifiers stand between the stages of GoogLeNet and Inception and take no part in the features.
AUXILIARY = ("aux", "AuxLogits")
HEAD = ("avgpool", "classifier", "fc", "dropout")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification CNNs (transformers left out)."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if not name.startswith(TRANSFORMERS)]


def check_name(name: str, others: list[str]) -> None:
    """Refuse a name that is neither a torchvision CNN nor among `others`.

    Raises:
        LemlightError: the name is a transformer or unknown; the message lists close matches.
    """
    known = torchvision_names() + others
    if name in known:
        return
    if name.startswith(TRANSFORMERS):
        raise LemlightError(
            f"backbone '{name}' is a transformer: its features are tokens, not a convolutional feature map. "
            "Choose a CNN, for instance backbone=resnet50 or backbone=densenet121."
        )
    matches = get_close_matches(name, known, n=5, cutoff=0.4) or ["resnet18", "densenet121", *others]
    raise LemlightError(
        f"backbone '{name}' is unknown. Did you mean {' or '.join(matches)}? "
        "Any CNN of torchvision.models works by its torchvision name."
    )


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
    grey has no channels. GoogLeNet and Inception were trained on values in [-1, 1].
    """
    return (0.5, 0.5) if name in ("googlenet", "inception_v3") else (0.449, 0.226)

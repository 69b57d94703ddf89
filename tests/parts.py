"""Parts as the commands build them: from their files in conf/, with arguments of a test in place of the files'."""

from pathlib import Path

from omegaconf import OmegaConf

from lemlight.building import BESIDE, build
from lemlight.cli import conf_dir
from lemlight.models.losses import CombinedLoss

OF_THEIR_OWN = {"gmic", "multi_scale"}  # one wants images, the other a pyramid: see test_gmic.py
POOLINGS = sorted({file.stem for file in Path(conf_dir(), "pooling").glob("*.yaml")} - OF_THEIR_OWN)


def part_of(group, name, **arguments):
    """The part in conf/GROUP/NAME.yaml as plain values."""
    part = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), group, f"{name}.yaml"))) | arguments
    return {key: value for key, value in part.items() if group != "backbone" or key not in BESIDE["backbone"]}


def build_pooling(name, channels, **arguments):
    return build(part_of("pooling", name, **arguments), "pooling", channels=channels)


def build_backbone(name, weights="none", weights_file=None, output_stride=32):
    """A backbone of torchvision, the one of its own file, or, as "timm resnet10t", one of timm."""
    group, _, network = name.rpartition(" ")
    lite = name == "efficientnet_lite0"
    part = part_of("backbone", name if lite else group or "torchvision") | ({} if lite else {"name": network})
    return build(part | {"weights": weights, "weights_file": weights_file, "output_stride": output_stride}, "backbone")


def combined_loss(scores, label, lam, beta, positive_weight=None):
    return CombinedLoss(beta, positive_weight)(scores, label, lam)

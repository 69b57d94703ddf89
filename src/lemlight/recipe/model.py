"""From a checked configuration to the classifier, the Lightning module, and what a checkpoint says about both."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torchvision

import lemlight
from lemlight.config.commands import TrainConfig
from lemlight.config.model import CombinedLoss
from lemlight.models.backbones import build_backbone
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer, build_pooling
from lemlight.training.module import MammogramModule


def build_classifier(config: TrainConfig, first_weights: bool = True) -> MammogramClassifier:
    """Build backbone, scorer and pooling.

    Args:
        config: the checked configuration.
        first_weights: False leaves the backbone's weights random, for one whose trained weights are loaded next.

    Raises:
        LemlightError: an unknown backbone, or weights that are not to be had.
    """
    choice = config.backbone if first_weights else config.backbone.model_copy(update={"weights": "none"})
    if not first_weights:
        choice = choice.model_copy(update={"weights_file": None})
    backbone = build_backbone(**choice.model_dump())
    pooling = build_pooling(channels=backbone.out_channels, **config.pooling.model_dump())
    return MammogramClassifier(backbone, Scorer(backbone.out_channels, config.scorer_bias), pooling)


def build_module(
    config: TrainConfig,
    classifier: MammogramClassifier,
    preprocessing: dict[str, Any],
    train_labels: Sequence[int] = (),
    trained_on: Sequence[str] = (),
) -> MammogramModule:
    """Build the Lightning module around a classifier.

    `train_labels` decide what a balanced class weight is; `trained_on` are the fingerprints of the training images.
    Both stay empty for a module that is tested and not trained.
    """
    loss = config.loss
    return MammogramModule(
        classifier,
        beta=loss.beta if isinstance(loss, CombinedLoss) else 0.0,
        positive_weight=_positive_weight(loss.positive_weight, train_labels),
        optimizer=config.optimizer.model_dump(),
        schedule=config.scheduler.model_dump(),
        card={
            "config": config.model_dump(),
            "label_names": list(config.label_names),
            "preprocessing": preprocessing,
            "versions": versions(),
            "trained_on": list(trained_on),
            "localization": {},
        },
    )


def ramps(config: TrainConfig) -> bool:
    """Whether lambda ramps: for LEM, and for every pooling on request; else the pooling's own loss counts alone."""
    loss = config.loss
    return isinstance(loss, CombinedLoss) and (config.pooling.name == "lem" or loss.ramp_all_poolings)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "lemlight": lemlight.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "pytorch-lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }


def _positive_weight(wanted: float | str | None, labels: Sequence[int]) -> float | None:
    if wanted == "balanced":
        malignant = sum(labels)
        return (len(labels) - malignant) / malignant if malignant else None
    return float(wanted) if wanted is not None else None

"""What an exported file says of its network, and the check of what one from a stranger says."""

from typing import Annotated, Any, Literal

from pydantic import Field

import lemlight
from lemlight.config.base import Section, Share
from lemlight.config.check import check
from lemlight.config.commands import TrainConfig
from lemlight.config.data import PrepareConfig
from lemlight.localization.evaluation import Chosen, chosen_settings
from lemlight.models.exported import ExportedNetwork
from lemlight.training.checkpoint import Checkpoint

METHOD = "cam"  # the map that the outputs of an exported network hold


class ExportCard(Section):
    """The card of an exported file; `cam` is what the training chose for maps of that method, None for nothing."""

    lemlight: str
    backbone: str
    output_stride: Literal[16, 32]
    pooling: str
    preprocessing: PrepareConfig
    label_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    threshold: Share
    cam: Chosen | None


def card_of(checkpoint: Checkpoint, trained: TrainConfig, preprocessing: PrepareConfig) -> ExportCard:
    """The card of a checkpoint's export: nothing in it names a folder, an image or a machine."""
    return ExportCard(
        lemlight=lemlight.__version__,
        backbone=trained.backbone.name,
        output_stride=trained.backbone.output_stride,
        pooling=trained.pooling.name,
        preprocessing=preprocessing,
        label_names=checkpoint.label_names,
        threshold=trained.threshold,
        cam=chosen_settings(checkpoint).get(METHOD),
    )


def checked_card(network: ExportedNetwork) -> ExportCard:
    """The card of an opened file; LemlightError names every value that is none."""
    values: dict[str, Any] = network.card
    return check(values, ExportCard, where=f"the card in {network.path}")

"""An exported network that reads single images: probability and score map, and no more than follows from these."""

from pathlib import Path

import torch
from torch import Tensor

from lemlight.config.commands import LocalizeConfig
from lemlight.errors import LemlightError
from lemlight.exporting.network import ExportedNetwork
from lemlight.exporting.onnx_file import open_onnx
from lemlight.exporting.torch_file import open_program
from lemlight.localization.explain import Explanation, MapSettings, explain_scores
from lemlight.recipe.export_card import METHOD, checked_card
from lemlight.recipe.reader import Reader
from lemlight.recipe.region_settings import settings_of


def build_exported_reader(config: LocalizeConfig) -> Reader:
    """Open an exported network and the card in it; values of the command line come first.

    Raises:
        LemlightError: a method that needs the network's layers, a device other than the CPU, or a file that cannot be
            used.
    """
    if config.method not in (None, METHOD):
        raise LemlightError(
            f"method={config.method} goes back through the layers of the network, which an exported file does not "
            f"give: use method={METHOD}, or the checkpoint that {config.checkpoint} was exported from"
        )
    if config.accelerator not in ("auto", "cpu"):
        raise LemlightError(f"accelerator={config.accelerator}: exported networks run on the CPU; use accelerator=auto")
    path = Path(config.checkpoint)
    network = open_onnx(path) if path.suffix.lower() == ".onnx" else open_program(path, config.trust)
    card = checked_card(network)
    given = {"keep": config.keep, "smoothing": config.smoothing, "cutoff": config.cutoff}
    chosen = {} if card.cam is None else {METHOD: card.cam}
    regions = settings_of(METHOD, chosen, given, card.output_stride)
    threshold = card.threshold if config.threshold is None else config.threshold
    if config.method is None:
        print(f"location maps by method={METHOD}: importance needs the checkpoint, not an exported network")
    maps = MapSettings(METHOD, config.follow, regions.keep, threshold)

    def explain(images: Tensor) -> Explanation:
        return _explain(network, images, threshold)

    return Reader(explain, torch.device("cpu"), card.preprocessing, maps, regions, card.label_names)


def _explain(network: ExportedNetwork, images: Tensor, threshold: float) -> Explanation:
    probability, score_map = network.predict(images)
    return explain_scores(probability.double(), score_map, (images.shape[2], images.shape[3]), threshold)

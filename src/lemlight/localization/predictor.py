"""A trained network that reads single images: probability, location map, regions in original pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemlight.config.check import check
from lemlight.config.commands import LocalizeConfig, TrainConfig
from lemlight.config.data import PrepareConfig
from lemlight.data.breast import find_geometry, prepare_pixels
from lemlight.data.datamodule import unit_range
from lemlight.data.geometry import BreastGeometry
from lemlight.data.io import read_image
from lemlight.data.raster import Image
from lemlight.errors import LemlightError
from lemlight.localization.attribution import Explanation, MapSettings, explain, explain_scores, extremum_points
from lemlight.localization.evaluation import RegionSettings, chosen_settings, settings_of
from lemlight.localization.regions import Region, find_regions, smoothed
from lemlight.models.exported import ExportedNetwork, open_onnx, open_program
from lemlight.recipe.export_card import METHOD, checked_card
from lemlight.recipe.model import build_classifier
from lemlight.training.checkpoint import load_checkpoint, load_weights


@dataclass(frozen=True)
class Reader:
    """A trained network that is ready to read single images."""

    explain: Callable[[Tensor], Explanation]  # of images (N, 1, H, W) in [0, 1] on the device
    device: torch.device
    prepare: PrepareConfig
    maps: MapSettings
    regions: RegionSettings
    label_names: list[str]


@dataclass(frozen=True)
class Reading:
    """One image as the network saw it: `strength` (H, W) in [0, 1] of the prepared image, regions in original px."""

    image: Image
    geometry: BreastGeometry
    explanation: Explanation
    strength: NDArray[np.float32]
    regions: list[Region]

    @property
    def probability(self) -> float:
        """Of malignancy, in [0, 1]."""
        return float(self.explanation.probability[0])


def build_reader(config: LocalizeConfig) -> Reader:
    """Load the network and what was chosen for it in its training; values of the command line come first."""
    checkpoint = load_checkpoint(Path(config.checkpoint))
    trained = check(checkpoint.config, TrainConfig, where=f"the configuration in {config.checkpoint}")
    prepare = check(checkpoint.preprocessing, PrepareConfig, where=f"the preprocessing in {config.checkpoint}")
    classifier = build_classifier(trained, first_weights=False)
    load_weights(classifier, checkpoint)
    device = device_of(config.accelerator)
    given = {"keep": config.keep, "smoothing": config.smoothing, "cutoff": config.cutoff}
    method = config.method or "importance"
    regions = settings_of(method, chosen_settings(checkpoint), given, classifier.backbone.output_stride)
    threshold = trained.threshold if config.threshold is None else config.threshold
    maps = MapSettings(method, config.follow, regions.keep, threshold)
    explaining = partial(explain, classifier.to(device).eval(), settings=maps)
    return Reader(explaining, device, prepare, maps, regions, checkpoint.label_names)


def device_of(accelerator: str) -> torch.device:
    """The device that a name of the configuration means; LemlightError where it is not there."""
    there = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device("cuda" if there["gpu"] else "cpu")
    if not there[accelerator]:
        raise LemlightError(f"accelerator={accelerator}: there is none here; use accelerator=auto")
    return torch.device({"gpu": "cuda"}.get(accelerator, accelerator))


def prepare_mammogram(path: Path, prepare: PrepareConfig) -> tuple[Image, BreastGeometry, Tensor]:
    """Read one image and prepare it: `(1, 1, H, W)` float32 in [0, 1]; ImageError names what is wrong with the file."""
    image = read_image(path)
    geometry, breast = find_geometry(
        image.pixels, (prepare.height, prepare.width), crop=prepare.crop, flip=prepare.flip
    )
    prepared = torch.from_numpy(prepare_pixels(image.pixels, geometry, breast))
    return image, geometry, unit_range(prepared)[None, None]


def read_mammogram(path: Path, reader: Reader) -> Reading:
    """Read, prepare, predict and localize one image; ImageError names what is wrong with the file."""
    image, geometry, prepared = prepare_mammogram(path, reader.prepare)
    explanation = reader.explain(prepared.to(reader.device))
    strength = smoothed(explanation.maps[0].cpu().numpy(), reader.regions.smoothing)
    probability = float(explanation.probability[0])
    regions = find_regions(
        strength,
        reader.regions.cutoff,
        geometry,
        spacing=image.spacing_mm,
        confidence=max(probability, 1 - probability),
        extrema=extremum_points(explanation.maxima[0] | explanation.minima[0], geometry.prepared_shape),
    )
    return Reading(image, geometry, explanation, strength, regions)


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

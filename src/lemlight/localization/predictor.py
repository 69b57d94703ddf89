"""A trained network that predicts single images: probability, location map, regions in original pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

import lemlight
from lemlight.arguments import Count, Probability
from lemlight.building import Settings, check_settings
from lemlight.data import breast
from lemlight.data.datamodule import unit_range
from lemlight.data.geometry import BreastGeometry
from lemlight.data.isolated import given, map_isolated
from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.raster import Image
from lemlight.data.store import PrepareSettings, read_prepared
from lemlight.errors import ImageError, LemlightError
from lemlight.localization.attribution import Explanation, explain, explain_scores, regions_of
from lemlight.localization.choice import Chosen, RegionSettings, build_methods, chosen_settings, settings_of
from lemlight.localization.regions import Region, cutoff_in, smoothed
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.exported import ExportedNetwork, is_exported, open_onnx
from lemlight.settings import LocalizeSettings
from lemlight.training.checkpoint import Checkpoint, load_checkpoint, load_classifier

EXPORTED_METHOD = "cam"  # the map that the outputs of an exported network hold


Read = tuple[Image, BreastGeometry, NDArray[np.uint16]]  # an image, and how it was prepared: (H, W)


class Preprocessing(Settings):
    """How images are prepared for a network, as its file says: size in px, cropped to the breast, turned or not."""

    height: Annotated[int, Field(ge=32)]
    width: Annotated[int, Field(ge=32)]
    crop: bool
    flip: bool


@dataclass(frozen=True)
class Prediction:
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


@dataclass(frozen=True)
class Predictor:
    """A trained network that is ready to predict single images."""

    explain: Callable[[Tensor], Explanation]  # of images (N, 1, H, W) in [0, 1] on the device
    device: torch.device
    preprocessing: Preprocessing
    method: str
    regions: RegionSettings
    label_names: list[str]

    def __call__(self, path: Path) -> Prediction:
        """Read, prepare, predict and localize one image; ImageError names what is wrong with the file."""
        (read,) = read_images([path], self.preprocessing)
        return self.predict(given(read))

    def predict(self, read: Read) -> Prediction:
        """Predict and localize an image that was read and prepared."""
        image, geometry, pixels = read
        explanation = self.explain(as_batch(pixels).to(self.device))
        strength = smoothed(explanation.maps[0].cpu().numpy(), self.regions.smoothing)
        regions = regions_of(explanation, 0, strength, cutoff_in(strength, self.regions), geometry, image.spacing_mm)
        return Prediction(image, geometry, explanation, strength, regions)


def read_images(paths: Iterable[Path], prepare: Preprocessing) -> Iterator[Read | ImageError]:
    """Read images and prepare them, while the network is at those before; or say why not, in their order."""
    reading = partial(read_prepared, settings=PrepareSettings(**prepare.model_dump()))
    return map_isolated(reading, paths, workers=1)


def phantom_as_prepared(prepare: Preprocessing) -> NDArray[np.uint16]:
    """A synthetic mammogram as prepared, (H, W): a breast before air, which noise is not."""
    image = Image(render(PhantomSettings(patients=1, scale=0.25), 0, "L", "MLO").pixels)
    return breast.prepare_image(image, (prepare.height, prepare.width), prepare.crop, prepare.flip)[1]


def as_batch(pixels: NDArray[np.uint16]) -> Tensor:
    """A prepared image (H, W) as a network takes it: `(1, 1, H, W)` float32 in [0, 1]."""
    return unit_range(torch.from_numpy(pixels))[None, None]


@dataclass(frozen=True)
class Trained:
    """A checkpoint, its network on the CPU in eval mode, and how images are prepared for it."""

    checkpoint: Checkpoint
    classifier: MammogramClassifier
    preprocessing: Preprocessing
    chosen: dict[str, Chosen]


def open_checkpoint(path: Path, trust: Sequence[str]) -> Trained:
    """Load a network with all that a prediction needs; LemlightError where the file cannot be used."""
    checkpoint = load_checkpoint(path)
    preprocessing = check_settings(checkpoint.preprocessing, Preprocessing, where=f"the preprocessing in {path}")
    chosen = chosen_settings(checkpoint.localization, path)
    return Trained(checkpoint, load_classifier(checkpoint, trust), preprocessing, chosen)


def build_predictor(config: LocalizeSettings) -> Predictor:
    """Load a checkpoint, or open an exported network; values of the command line come before those of the file."""
    exported = is_exported(Path(config.checkpoint))
    return _from_onnx(config) if exported else _from_checkpoint(config)


def _from_checkpoint(config: LocalizeSettings) -> Predictor:
    trained = open_checkpoint(Path(config.checkpoint), config.trust)
    device, name = device_of(config.accelerator), config.method or "importance"
    method = build_methods({name: config.localization["methods"][name]})[name]
    regions = settings_of(name, trained.chosen, _given(config), trained.classifier.output_stride, config.cutoff_by)
    threshold = trained.checkpoint.threshold if config.threshold is None else config.threshold
    options: dict[str, Any] = {"follow": config.follow, "keep": regions.keep, "threshold": threshold}
    explaining = partial(explain, trained.classifier.to(device), method=method, **options)
    return Predictor(explaining, device, trained.preprocessing, name, regions, trained.checkpoint.label_names)


def _from_onnx(config: LocalizeSettings) -> Predictor:
    """Open an exported network.

    Raises:
        LemlightError: a method that needs the network's layers, a device other than the CPU, or a file that cannot be
            used.
    """
    if config.method not in (None, EXPORTED_METHOD):
        raise LemlightError(
            f"method={config.method} goes back through the layers of the network, which an exported file does not "
            f"give: use method={EXPORTED_METHOD}, or the checkpoint that {config.checkpoint} was exported from"
        )
    if config.accelerator not in ("auto", "cpu"):
        raise LemlightError(f"accelerator={config.accelerator}: exported networks run on the CPU; use accelerator=auto")
    network = open_onnx(Path(config.checkpoint))
    metadata = check_settings(network.metadata, ExportMetadata, where=f"the metadata in {network.path}")
    chosen = {} if metadata.cam is None else {EXPORTED_METHOD: metadata.cam}
    regions = settings_of(EXPORTED_METHOD, chosen, _given(config), metadata.output_stride, config.cutoff_by)
    threshold = metadata.threshold if config.threshold is None else config.threshold
    if config.method is None:
        print(f"location maps by method={EXPORTED_METHOD}: importance needs the checkpoint, not an exported network")
    explaining = partial(_explain_exported, network, threshold)
    device, prepare = torch.device("cpu"), metadata.preprocessing
    return Predictor(explaining, device, prepare, EXPORTED_METHOD, regions, metadata.label_names)


def _explain_exported(network: ExportedNetwork, threshold: float, images: Tensor) -> Explanation:
    probability, score_map = network.predict(images)
    return explain_scores(probability.double(), score_map, (images.shape[2], images.shape[3]), threshold)


def _given(config: LocalizeSettings) -> dict[str, float | None]:
    return {"keep": config.keep, "smoothing": config.smoothing, "cutoff": config.cutoff}


def device_of(accelerator: str) -> torch.device:
    """The device that a name of the configuration means; LemlightError where it is not there."""
    there = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device("cuda" if there["gpu"] else "cpu")
    if not there[accelerator]:
        raise LemlightError(f"accelerator={accelerator}: there is none here; use accelerator=auto")
    return torch.device({"gpu": "cuda"}.get(accelerator, accelerator))


class ExportMetadata(Settings):
    """What an exported file says of its network; `cam` is what the training chose for maps of that method, if any."""

    lemlight: str
    backbone: str
    output_stride: Count
    pooling: str
    preprocessing: Preprocessing
    label_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    threshold: Probability
    cam: Chosen | None


def export_metadata(trained: Trained) -> ExportMetadata:
    """What the export of a checkpoint says: nothing in it names a folder, an image or a machine."""
    return ExportMetadata(
        lemlight=lemlight.__version__,
        backbone=str(trained.checkpoint.choices.get("backbone")),
        output_stride=trained.classifier.output_stride,
        pooling=str(trained.checkpoint.choices.get("pooling")),
        preprocessing=trained.preprocessing,
        label_names=trained.checkpoint.label_names,
        threshold=trained.checkpoint.threshold,
        cam=trained.chosen.get(EXPORTED_METHOD),
    )

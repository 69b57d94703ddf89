"""How a location map becomes regions: what was chosen on the validation split, and what stands in for a choice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch import Tensor

from lemlight.config.base import Count, NotNegative, PositiveShare, Section, Share
from lemlight.config.check import check
from lemlight.config.commands import Command
from lemlight.config.localization import LocalizationConfig
from lemlight.data.datamodule import unit_range
from lemlight.localization.attribution import Explanation, MapSettings, explain, explain_by_keep
from lemlight.localization.regions import smoothed
from lemlight.metrics.localization import LocalizationMeter
from lemlight.metrics.overlap import CutoffChooser
from lemlight.models.classifier import MammogramClassifier
from lemlight.recipe.data import PreparedData
from lemlight.training.checkpoint import Checkpoint
from lemlight.training.module import MammogramModule

KEEPS = (0.0, 0.5, 0.75, 1.0)
SMOOTHINGS = (0.125, 0.25, 0.5, 1.0)  # of the backbone's output stride


@dataclass(frozen=True)
class RegionSettings:
    """From extrema to regions.

    keep: share of the strongest extremum's strength that an extremum must reach, in [0, 1].
    smoothing: px of the prepared image, standard deviation of the Gaussian.
    cutoff: share of a map's maximum from which a pixel belongs to a region, in (0, 1].
    """

    keep: float
    smoothing: float
    cutoff: float

    def to_dict(self) -> dict[str, float]:
        """As plain values, for the checkpoint."""
        return asdict(self)


class Chosen(Section):
    """What a training chose for a method on a split, as a checkpoint holds it."""

    keep: Share
    smoothing: NotNegative
    cutoff: PositiveShare
    dsc: Share  # mean over the images with a lesion of that split, at these settings
    images: Count
    split: str


def settings_of(
    method: str, chosen: Mapping[str, Chosen], given: Mapping[str, float | None], output_stride: int
) -> RegionSettings:
    """Settings of a method: what is given, else what the training chose for it, else a default.

    The defaults are for a network without validation masks: keep 0.5, a quarter of a cell, a third of the maximum.
    """
    values = {"keep": 0.5, "smoothing": 0.25 * output_stride, "cutoff": 0.33}
    if method in chosen:
        values |= chosen[method].model_dump(include=set(values))
    values |= {name: value for name, value in given.items() if value is not None}
    return RegionSettings(**values)


def candidates(method: str, given: Mapping[str, float | None], output_stride: int) -> list[tuple[float, float]]:
    """The pairs (keep, smoothing) to choose from; a given value leaves no choice, and only importance has extrema."""
    keep, smoothing = given.get("keep"), given.get("smoothing")
    keeps = [keep] if keep is not None else list(KEEPS) if method == "importance" else [0.0]
    smoothings = [smoothing] if smoothing is not None else [share * output_stride for share in SMOOTHINGS]
    return [(k, s) for k in keeps for s in smoothings]


def chosen_settings(checkpoint: Checkpoint) -> dict[str, Chosen]:
    """What the training of a checkpoint chose, by method; LemlightError where the file is damaged."""
    where = f"the localization settings in {checkpoint.path}"
    return {method: check(values, Chosen, where=where) for method, values in checkpoint.localization.items()}


Pair = tuple[float, float]  # keep, smoothing


@dataclass(frozen=True)
class Localizing:
    """A trained network in eval mode on its device, the images, and how they are to be localized in."""

    classifier: MammogramClassifier
    device: torch.device
    prepared: PreparedData
    config: LocalizationConfig
    threshold: float
    output_stride: int
    batch_size: int

    @property
    def given(self) -> dict[str, float | None]:
        """The settings that leave no choice."""
        return {"keep": self.config.keep, "smoothing": self.config.smoothing, "cutoff": self.config.cutoff}


@dataclass(frozen=True)
class Survey:
    """What one pass over a split gave: the figures at the chosen settings, and the mean Dice at all candidates."""

    meter: LocalizationMeter
    choosers: dict[Pair, CutoffChooser]

    def best(self) -> tuple[RegionSettings, float]:
        """The settings of the highest mean Dice, and that mean; LemlightError where the split has no lesion."""
        found = [(pair, *chooser.best()) for pair, chooser in self.choosers.items()]
        (keep, smoothing), cutoff, dice = max(found, key=lambda one: one[2])
        return RegionSettings(keep, smoothing, cutoff), dice


def localizing(
    command: Command, trainer: Trainer, module: MammogramModule, prepared: PreparedData, threshold: float
) -> Localizing:
    """Put the network of a module back on the trainer's device (Lightning leaves it on the CPU), in eval mode."""
    device = trainer.strategy.root_device
    classifier = module.classifier.to(device).eval()
    stride = classifier.backbone.output_stride
    return Localizing(classifier, device, prepared, command.localization, threshold, stride, command.batch_size)


def images_with_known_lesions(prepared: PreparedData, split: str) -> list[str]:
    """The image_ids of a split whose lesions are known (some may be known to have none)."""
    ids = prepared.table.loc[prepared.table["split"] == split, "image_id"]
    return [str(image_id) for image_id in ids if prepared.store.mask(prepared.store.index_of(image_id)) is not None]


def images_with_a_lesion(prepared: PreparedData, split: str) -> list[str]:
    """The image_ids of a split that show a known lesion."""
    store = prepared.store
    known = images_with_known_lesions(prepared, split)
    return [image_id for image_id in known if np.any(store.mask(store.index_of(image_id)))]


def survey(place: Localizing, method: str, image_ids: Sequence[str], chosen: RegionSettings | None = None) -> Survey:
    """Localize in images by one method: try every candidate, and measure at the `chosen` settings."""
    pairs = candidates(method, place.given, place.output_stride)
    at = None if chosen is None else (chosen.keep, chosen.smoothing)
    pairs = list(dict.fromkeys([*pairs, *([at] if at else [])]))
    result = Survey(LocalizationMeter(chosen.cutoff if chosen else 0.5), {pair: CutoffChooser() for pair in pairs})
    maps = MapSettings(method, place.config.follow, threshold=place.threshold)
    for ids, images in _batches(place, image_ids):
        shown = any(np.any(_lesions(place, image_id)) for image_id in ids)
        asked = pairs if shown else [at] if at else []  # without a lesion there is no Dice to compare by
        keeps = list(dict.fromkeys(keep for keep, _ in asked))
        for keep, found in zip(keeps, explain_by_keep(place.classifier, images, maps, keeps), strict=True):
            smoothings = [smoothing for other, smoothing in asked if other == keep]
            for number, image_id in enumerate(ids):
                for smoothing in smoothings:
                    _measure(result, place, image_id, found, number, (keep, smoothing), at)
    return result


class Located(NamedTuple):
    """What is known of one image: probability of malignancy, strength (H, W) in [0, 1], score map (h, w) of logits."""

    image_id: str
    probability: float
    strength: NDArray[np.float32]
    score_map: Tensor


def locate(place: Localizing, method: str, image_ids: Sequence[str], chosen: RegionSettings) -> Iterator[Located]:
    """Localize in images, one at a time."""
    settings = MapSettings(method, place.config.follow, chosen.keep, place.threshold)
    for ids, images in _batches(place, image_ids):
        found = explain(place.classifier, images, settings)
        for number, image_id in enumerate(ids):
            strength = smoothed(found.maps[number].cpu().numpy(), chosen.smoothing)
            yield Located(image_id, float(found.probability[number]), strength, found.score_map[number].cpu())


def _measure(
    result: Survey, place: Localizing, image_id: str, found: Explanation, number: int, pair: Pair, at: Pair | None
) -> None:
    store = place.prepared.store
    lesions = _lesions(place, image_id)
    strength = smoothed(found.maps[number].cpu().numpy(), pair[1])
    result.choosers[pair].add(lesions, strength)
    if pair != at:
        return
    probability = float(found.probability[number])
    rows = place.prepared.table
    result.meter.update(
        image_id=image_id,
        patient_id=str(rows.loc[rows["image_id"] == image_id, "patient_id"].iloc[0]),
        lesions=lesions,
        types=store.lesion_types(store.index_of(image_id)),
        strength=strength,
        confidence=max(probability, 1 - probability),
        tolerance_px=place.config.tolerance * lesions.shape[0],
    )


def _lesions(place: Localizing, image_id: str) -> NDArray[np.uint8]:
    lesions = place.prepared.store.mask(place.prepared.store.index_of(image_id))
    assert lesions is not None  # see images_with_known_lesions
    return lesions


def _batches(place: Localizing, image_ids: Sequence[str]) -> Iterator[tuple[Sequence[str], Tensor]]:
    store = place.prepared.store
    for start in range(0, len(image_ids), place.batch_size):
        ids = image_ids[start : start + place.batch_size]
        pixels = np.stack([store.image(store.index_of(image_id)) for image_id in ids])[:, None]
        yield ids, unit_range(torch.from_numpy(pixels)).to(place.device)

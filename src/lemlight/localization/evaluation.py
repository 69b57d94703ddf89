"""Localizing in the images of a split, by all processes of a training: to choose settings, to measure, to show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from lemlight.data.datamodule import unit_range
from lemlight.data.store import PreparedStore
from lemlight.localization.attribution import Explanation, Importance, MapSettings, explain, explain_by_keep
from lemlight.localization.regions import smoothed
from lemlight.localization.settings import LocalizationSettings, RegionSettings, candidates
from lemlight.metrics.localization import LocalizationMeter, Measured, measure
from lemlight.metrics.overlap import CutoffChooser, dice_curve
from lemlight.models.classifier import MammogramClassifier

Item = TypeVar("Item")
Result = TypeVar("Result")
Pair = tuple[float, float]  # keep, smoothing


@dataclass(frozen=True)
class Localizing:
    """A trained network in eval mode on its device, the images of a table and their store, and how to localize."""

    classifier: MammogramClassifier
    device: torch.device
    table: pd.DataFrame
    store: PreparedStore
    settings: LocalizationSettings
    threshold: float
    batch_size: int

    @property
    def output_stride(self) -> int:
        """Px of the image per cell of the score map."""
        return self.classifier.output_stride

    def lesions(self, image_id: str) -> NDArray[np.uint8] | None:
        """The lesions of an image as labels (H, W); None where they are not known."""
        return self.store.mask(self.store.index_of(image_id))

    def known(self, split: str) -> list[str]:
        """The image_ids of a split whose lesions are known (some may be known to have none)."""
        ids = self.table.loc[self.table["split"] == split, "image_id"]
        return [str(image_id) for image_id in ids if self.lesions(image_id) is not None]

    def with_a_lesion(self, split: str) -> list[str]:
        """The image_ids of a split that show a known lesion."""
        return [image_id for image_id in self.known(split) if np.any(self.lesions(image_id))]

    def batches(self, image_ids: Sequence[str]) -> list[Sequence[str]]:
        """The images in parts that pass the network together."""
        return [image_ids[start : start + self.batch_size] for start in range(0, len(image_ids), self.batch_size)]

    def images(self, image_ids: Sequence[str]) -> Tensor:
        """The prepared images `(N, 1, H, W)` in [0, 1] on the device."""
        pixels = np.stack([self.store.image(self.store.index_of(image_id)) for image_id in image_ids])[:, None]
        return unit_range(torch.from_numpy(pixels)).to(self.device)


def in_turn(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Do the work of all items, the processes of the group taking turns; every process gets all results, in order.

    No process waits for another for longer than one item takes. Without a process group this is `map`.

    Raises:
        Exception: what the work of any process raised, in all of them, so that none waits for ever.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield from map(work, items)
        return
    rank, size = distributed.get_rank(), distributed.get_world_size()
    for start in range(0, len(items), size):
        done: list[Result] = []
        failure: Exception | None = None
        try:
            done = [work(item) for item in items[start + rank : start + size][:1]]
        except Exception as raised:
            failure = raised
        gathered: list[tuple[list[Result], Exception | None]] = [([], None)] * size
        distributed.all_gather_object(gathered, (done, failure))
        for results, error in gathered:
            if error is not None:
                raise error
            yield from results


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


@dataclass
class _Tried:
    """One image: its Dice at all cutoffs by pair of settings, and what was measured at the chosen ones."""

    curves: dict[Pair, NDArray[np.float64]] = field(default_factory=dict)
    measured: Measured | None = None


def survey(place: Localizing, name: str, image_ids: Sequence[str], chosen: RegionSettings | None = None) -> Survey:
    """Localize in images by one method: try every candidate, and measure at the `chosen` settings.

    With several processes each takes its part of the images, and all of them get the same result as one process.
    """
    has_extrema = isinstance(place.settings.methods[name], Importance)
    pairs = candidates(has_extrema, place.settings.given, place.output_stride)
    if chosen is not None:
        pairs = list(dict.fromkeys([*pairs, (chosen.keep, chosen.smoothing)]))
    result = Survey(LocalizationMeter(chosen.cutoff if chosen else 0.5), {pair: CutoffChooser() for pair in pairs})
    for batch in in_turn(lambda ids: _try_batch(place, name, ids, pairs, chosen), place.batches(image_ids)):
        for tried in batch:
            for pair, curve in tried.curves.items():
                result.choosers[pair].add_curve(curve)
            if tried.measured is not None:
                result.meter.add(tried.measured)
    return result


def _try_batch(
    place: Localizing, name: str, ids: Sequence[str], pairs: Sequence[Pair], chosen: RegionSettings | None
) -> list[_Tried]:
    at = None if chosen is None else (chosen.keep, chosen.smoothing)
    shown = any(np.any(place.lesions(image_id)) for image_id in ids)
    asked = list(pairs) if shown else [at] if at else []  # without a lesion there is no Dice to compare by
    tried = [_Tried() for _ in ids]
    if not asked:
        return tried
    settings = MapSettings(place.settings.follow, threshold=place.threshold)
    keeps = list(dict.fromkeys(keep for keep, _ in asked))
    method, suspicion_at = place.settings.methods[name], None if at is None else at[0]
    explained = explain_by_keep(place.classifier, place.images(ids), method, settings, keeps, suspicion_at)
    for pair in asked:
        found = explained[keeps.index(pair[0])]
        for number, image_id in enumerate(ids):
            lesions = place.lesions(image_id)
            assert lesions is not None  # see `known`
            strength = smoothed(found.maps[number].cpu().numpy(), pair[1])
            curve = dice_curve(lesions, strength)
            if curve is not None:
                tried[number].curves[pair] = curve
            if chosen is not None and pair == at:
                tried[number].measured = _measure(place, chosen, image_id, found, number, strength)
    return tried


def _measure(
    place: Localizing,
    chosen: RegionSettings,
    image_id: str,
    found: Explanation,
    number: int,
    strength: NDArray[np.float32],
) -> Measured:
    assert found.suspicion is not None
    row = place.table.loc[place.table["image_id"] == image_id].iloc[0]
    lesions = place.lesions(image_id)
    assert lesions is not None
    return measure(
        cutoff=chosen.cutoff,
        image_id=image_id,
        patient_id=str(row["patient_id"]),
        malignant=bool(row["label"] == 1),
        lesions=lesions,
        types=place.store.lesion_types(place.store.index_of(image_id)),
        strength=strength,
        suspicion=smoothed(found.suspicion[number].cpu().numpy(), chosen.smoothing),
        probability=float(found.probability[number]),
        tolerance_px=place.settings.tolerance * lesions.shape[0],
    )


class Located(NamedTuple):
    """One image: what the network says of all of its batch, its number there, and its strength (H, W) in [0, 1]."""

    image_id: str
    explanation: Explanation
    number: int
    strength: NDArray[np.float32]

    @property
    def probability(self) -> float:
        """Of malignancy, in [0, 1]."""
        return float(self.explanation.probability[self.number])


def locate(place: Localizing, image_ids: Sequence[str], chosen: RegionSettings) -> Iterator[Located]:
    """Localize in images by the method that makes the pictures, one at a time."""
    settings = MapSettings(place.settings.follow, chosen.keep, place.threshold)
    method = place.settings.methods[place.settings.method]
    for ids in place.batches(image_ids):
        found = explain(place.classifier, place.images(ids), method, settings)
        for number, image_id in enumerate(ids):
            strength = smoothed(found.maps[number].cpu().numpy(), chosen.smoothing)
            yield Located(image_id, found, number, strength)

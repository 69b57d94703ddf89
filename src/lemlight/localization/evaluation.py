"""Localizing in the images of a split, by all processes of a training: to choose settings, to measure, to show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from lemlight.data.datamodule import unit_range
from lemlight.data.preparing.store import PreparedStore
from lemlight.localization.attribution import Explanation, Importance, explain, explain_by_keep
from lemlight.localization.choice import (
    CutoffBy,
    LocalizationSettings,
    RegionSettings,
    candidates,
    is_shown,
    settings_of,
)
from lemlight.localization.pooled import Tried, kept_levels
from lemlight.localization.regions import cutoff_in, smoothed
from lemlight.metrics.location_maps import LocalizationMeter, Measured, measure
from lemlight.metrics.overlap import (
    LEVELS,
    best_cutoff,
    dice_curve,
    dice_curve_by_mass,
    level_of,
    near_lesions,
    pointing,
)
from lemlight.models.classifier import MammogramClassifier

Item = TypeVar("Item")
Result = TypeVar("Result")
Pair = tuple[float, float]  # keep, smoothing
Curves = dict[Pair, NDArray[np.float64]]  # the Dice at all cutoffs, see `dice_curve`


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
    """What one pass over a split gave: what was measured at the chosen settings, and the mean Dice of all candidates.

    `dice` is empty where no image has a lesion; `squares` are the mean squares of the Dice's gain over that of the
    defaults, `default` is the mean of the latter, `images` how many have a lesion. A `cutoff` that is given leaves no
    choice. `tried` keeps the Dice of every candidate on every image, for `lemlight.localization.pooled`.
    """

    meter: LocalizationMeter
    cutoff: float | None
    cutoff_by: CutoffBy
    dice: Curves
    squares: Curves
    default: float
    images: int
    tried: Tried

    def best(self) -> tuple[RegionSettings, float]:
        """The settings of the highest mean Dice, and that mean."""
        found = [
            (pair, *(best_cutoff(curve) if self.cutoff is None else (self.cutoff, float(curve[level_of(self.cutoff)]))))
            for pair, curve in self.dice.items()
        ]
        (keep, smoothing), cutoff, dice = max(found, key=lambda one: one[2])
        return RegionSettings(keep=keep, smoothing=smoothing, cutoff=cutoff, cutoff_by=self.cutoff_by), dice

    def is_shown(self) -> bool:
        """Whether the best settings gain more than one standard error (over images) beside the defaults."""
        best, dice = self.best()
        gain = dice - self.default
        squares = self.squares[best.keep, best.smoothing][level_of(best.cutoff)]
        return is_shown(gain, float(squares), self.images)


def survey(place: Localizing, name: str, image_ids: Sequence[str], chosen: RegionSettings | None = None) -> Survey:
    """Localize in images by one method: try every candidate, and measure at the `chosen` settings.

    With several processes each takes its part of the images, and all of them get the same result as one process.
    """
    given, own_rule = place.settings.given, place.settings.cutoff_by
    pairs = candidates(isinstance(place.settings.methods[name], Importance), given, place.output_stride)
    rules = get_args(CutoffBy) if given["cutoff"] is None else (own_rule,)
    default = settings_of(name, {}, given, place.output_stride)
    # without extrema there is nothing to keep
    at_default = (default.keep if (default.keep, default.smoothing) in pairs else 0.0, default.smoothing)
    level, levels, rule = level_of(default.cutoff), kept_levels(default.cutoff, given["cutoff"]), rules.index(own_rule)
    every = list(dict.fromkeys([*pairs, *([] if chosen is None else [(chosen.keep, chosen.smoothing)])]))
    meter, totals, squares, defaults, images = LocalizationMeter(), Curves(), Curves(), 0.0, 0
    kept = Kept([], [], [])
    for batch in in_turn(lambda ids: _try_batch(place, name, ids, every, chosen, rules), place.batches(image_ids)):
        for image_id, curves, points, measured in batch:
            if curves:
                images, own = images + 1, float(curves[at_default][rule][level])
                defaults += own
                kept.image_ids.append(image_id)
                kept.dice.append(np.stack([curves[pair][:, levels] for pair in pairs], axis=1).astype(np.float16))
                kept.pointing.append([points[pair] for pair in pairs])
            for pair, curve in curves.items():
                totals[pair] = totals.get(pair, 0) + curve[rule]
                squares[pair] = squares.get(pair, 0) + (curve[rule] - own) ** 2
            if measured is not None:
                meter.add(measured)
    means, gains = ({pair: sums[pair] / images for pair in every if images} for sums in (totals, squares))
    tried = Tried(
        image_ids=np.array(kept.image_ids, dtype=np.str_),
        rules=np.array(rules),
        pairs=np.array(pairs, dtype=np.float64),
        cutoffs=(levels + 1) / LEVELS,
        default=np.array([rule, pairs.index(at_default), levels.tolist().index(level)]),
        dice=np.array(kept.dice, dtype=np.float16).reshape(-1, len(rules), len(pairs), levels.size),
        pointing=np.array(kept.pointing, dtype=np.float32).reshape(-1, len(pairs)),
    )
    return Survey(meter, given["cutoff"], own_rule, means, gains, defaults / max(1, images), images, tried)


class Kept(NamedTuple):
    """What is kept of the images with a lesion, see `Tried`."""

    image_ids: list[str]
    dice: list[NDArray[np.float16]]
    pointing: list[list[float]]


class OneImage(NamedTuple):
    """What trying gives for one image: by pair of settings the Dice (R, 1024) by each rule at all cutoffs and the
    pointing, nothing without a lesion; and what was measured at the chosen settings.
    """

    image_id: str
    curves: Curves
    pointing: dict[Pair, float]
    measured: Measured | None


def _try_batch(
    place: Localizing,
    name: str,
    ids: Sequence[str],
    pairs: Sequence[Pair],
    chosen: RegionSettings | None,
    rules: Sequence[str],
) -> list[OneImage]:
    at = None if chosen is None else (chosen.keep, chosen.smoothing)
    shown = any(np.any(place.lesions(image_id)) for image_id in ids)
    asked = list(pairs) if shown or at is None else [at]  # without a lesion there is no Dice to compare by
    keeps = list(dict.fromkeys(keep for keep, _ in asked))
    explained = explain_by_keep(
        place.classifier,
        place.images(ids),
        place.settings.methods[name],
        keeps,
        follow=place.settings.follow,
        threshold=place.threshold,
        suspicion_at=None if at is None else at[0],
    )
    tried = []
    for number, image_id in enumerate(ids):
        lesions = place.lesions(image_id)
        assert lesions is not None  # see `known`
        near = near_lesions(lesions, place.settings.tolerance * lesions.shape[0])
        one = OneImage(image_id, {}, {}, None)
        for pair in asked:
            found = explained[keeps.index(pair[0])]
            strength = smoothed(found.maps[number].cpu().numpy(), pair[1])
            if (curve := dice_curve(lesions, strength)) is not None:
                by_rule = [curve if rule == "maximum" else dice_curve_by_mass(curve, strength) for rule in rules]
                one.curves[pair], one.pointing[pair] = np.stack(by_rule), pointing(strength, near)
            if chosen is not None and pair == at:
                one = one._replace(measured=_measure(place, chosen, image_id, lesions, found, number, strength))
        tried.append(one)
    return tried


def _measure(
    place: Localizing,
    chosen: RegionSettings,
    image_id: str,
    lesions: NDArray[np.uint8],
    found: Explanation,
    number: int,
    strength: NDArray[np.float32],
) -> Measured:
    assert found.suspicion is not None
    suspicion = smoothed(found.suspicion[number].cpu().numpy(), chosen.smoothing)
    row = place.table.loc[place.table["image_id"] == image_id].iloc[0]
    return measure(
        cutoff=cutoff_in(strength, chosen),
        suspicion_cutoff=cutoff_in(suspicion, chosen),
        image_id=image_id,
        patient_id=str(row["patient_id"]),
        malignant=bool(row["label"] == 1),
        lesions=lesions,
        types=place.store.lesion_types(place.store.index_of(image_id)),
        strength=strength,
        suspicion=suspicion,
        probability=float(found.probability[number]),
        tolerance_px=place.settings.tolerance * lesions.shape[0],
        cell_px=place.output_stride**2,
        breast=str(row.get("laterality", "")),
        names=[lesion.id for lesion in row.get("lesions", ())],
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
    method, follow = place.settings.methods[place.settings.method], place.settings.follow
    for ids in place.batches(image_ids):
        images = place.images(ids)
        found = explain(place.classifier, images, method, follow=follow, keep=chosen.keep, threshold=place.threshold)
        for number, image_id in enumerate(ids):
            strength = smoothed(found.maps[number].cpu().numpy(), chosen.smoothing)
            yield Located(image_id, found, number, strength)

"""Localizing in the images of a split, by all processes of a training: to choose settings, to measure, to show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from lemlight.data.datamodule import unit_range
from lemlight.data.preparing.store import PreparedStore
from lemlight.localization.attribution import Explanation, ForwardPass, Importance, explain
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
    NearLesion,
    best_cutoff,
    dice_curve,
    dice_curve_by_mass,
    level_of,
    near_lesions,
    pointing,
)
from lemlight.models.classifier import MammogramClassifier
from lemlight.terminal import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
Pair = tuple[float, float]  # keep, smoothing
Curves = dict[Pair, NDArray[np.float64]]  # the Dice at all cutoffs, see `dice_curve`


@dataclass(frozen=True)
class Localizing:
    """A trained network in eval mode on its device, the images of a table and their store, and how to localize.

    Out of fold `folds` localize instead, each in the images of its own table: its network has not seen them.
    """

    classifier: MammogramClassifier
    device: torch.device
    table: pd.DataFrame
    store: PreparedStore
    settings: LocalizationSettings
    threshold: float
    batch_size: int
    folds: "Sequence[Localizing]" = ()

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

    def batches(self, image_ids: Sequence[str]) -> "list[tuple[Localizing, Sequence[str]]]":
        """The images in parts that pass a network together, each with whose; fold after fold."""
        if self.folds:
            owned = [(fold, set(fold.table["image_id"])) for fold in self.folds]
            return [part for fold, own in owned for part in fold.batches([one for one in image_ids if one in own])]
        starts = range(0, len(image_ids), self.batch_size)
        return [(self, image_ids[start : start + self.batch_size]) for start in starts]

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


def survey(
    place: Localizing,
    names: Sequence[str],
    image_ids: Sequence[str],
    chosen: Mapping[str, RegionSettings] | None = None,
) -> dict[str, Survey]:
    """Localize in images by some methods: try every candidate, and measure at the `chosen` settings of each.

    An image passes the network once for all of the methods that need no more than its features. With several processes
    each takes its part of the images, and all of them get the same result as one process.
    """
    tries = {name: Try(place, name, None if chosen is None else chosen[name]) for name in names}
    first = not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
    bar = Progress(f"localizing by {', '.join(names)}", len(place.batches(image_ids)), "batches", enabled=first)
    work = in_turn(lambda part: _try_batch(part[0], tries, part[1]), place.batches(image_ids))
    for batch in bar.over(work):
        for name, tried in batch.items():
            for one in tried:
                tries[name].add(one)
    return {name: one.survey() for name, one in tries.items()}


class OneImage(NamedTuple):
    """What trying gives for one image: by pair of settings the Dice (R, 1024) by each rule at all cutoffs and the
    pointing, nothing without a lesion; and what was measured at the chosen settings.
    """

    image_id: str
    curves: Curves
    pointing: dict[Pair, float]
    measured: Measured | None


class Try:
    """One method: its candidate settings, those at which it is measured, and the sums over the images so far.

    Attributes:
        rules: what the cutoffs are a fraction of.
        pairs: the candidates, and the chosen pair behind them where it is none of them.
    """

    def __init__(self, place: Localizing, name: str, chosen: RegionSettings | None) -> None:
        self.chosen, self.given = chosen, place.settings.given
        self.own_rule, self.at = place.settings.cutoff_by, None if chosen is None else (chosen.keep, chosen.smoothing)
        self.candidates = candidates(
            isinstance(place.settings.methods[name], Importance), self.given, place.output_stride
        )
        self.rules = get_args(CutoffBy) if self.given["cutoff"] is None else (self.own_rule,)
        default = settings_of(name, {}, self.given, place.output_stride)
        # without extrema there is nothing to keep
        at_default = (default.keep, default.smoothing)
        self.at_default = at_default if at_default in self.candidates else (0.0, default.smoothing)
        self.level, self.levels = level_of(default.cutoff), kept_levels(default.cutoff, self.given["cutoff"])
        self.pairs = list(dict.fromkeys([*self.candidates, *([] if self.at is None else [self.at])]))
        self.meter, self.totals, self.squares, self.defaults = LocalizationMeter(), Curves(), Curves(), 0.0
        self.image_ids: list[str] = []
        self.dice: list[NDArray[np.float16]] = []
        self.pointing: list[list[float]] = []

    def add(self, one: OneImage) -> None:
        """Add what trying gave for one image."""
        if one.curves:
            rule = self.rules.index(self.own_rule)
            own = float(one.curves[self.at_default][rule][self.level])
            self.defaults += own
            self.image_ids.append(one.image_id)
            kept = [one.curves[pair][:, self.levels] for pair in self.candidates]
            self.dice.append(np.stack(kept, axis=1).astype(np.float16))
            self.pointing.append([one.pointing[pair] for pair in self.candidates])
            for pair, curve in one.curves.items():
                self.totals[pair] = self.totals.get(pair, 0) + curve[rule]
                self.squares[pair] = self.squares.get(pair, 0) + (curve[rule] - own) ** 2
        if one.measured is not None:
            self.meter.add(one.measured)

    def survey(self) -> Survey:
        """What all images gave."""
        images, rule, pairs, levels = len(self.image_ids), self.rules.index(self.own_rule), self.candidates, self.levels
        means, gains = (
            {pair: sums[pair] / images for pair in self.pairs if images} for sums in (self.totals, self.squares)
        )
        tried = Tried(
            image_ids=np.array(self.image_ids, dtype=np.str_),
            rules=np.array(self.rules),
            pairs=np.array(pairs, dtype=np.float64),
            cutoffs=(levels + 1) / LEVELS,
            default=np.array([rule, pairs.index(self.at_default), levels.tolist().index(self.level)]),
            dice=np.array(self.dice, dtype=np.float16).reshape(-1, len(self.rules), len(pairs), levels.size),
            pointing=np.array(self.pointing, dtype=np.float32).reshape(-1, len(pairs)),
        )
        given, default = self.given["cutoff"], self.defaults / max(1, images)
        return Survey(self.meter, given, self.own_rule, means, gains, default, images, tried)


def _try_batch(place: Localizing, tries: Mapping[str, Try], ids: Sequence[str]) -> dict[str, list[OneImage]]:
    drawn = [lesions for image_id in ids if (lesions := place.lesions(image_id)) is not None]  # all, see `known`
    near = [near_lesions(lesions, place.settings.tolerance * lesions.shape[0]) for lesions in drawn]
    shown = any(near)
    methods = {name: place.settings.methods[name] for name in tries}
    seen = ForwardPass(place.classifier, place.images(ids), list(methods.values()), place.threshold, repeat=True)
    tried = {}
    for name, one in tries.items():
        asked = one.pairs if shown or one.at is None else [one.at]  # without a lesion there is no Dice to compare by
        keeps = list(dict.fromkeys(keep for keep, _ in asked))
        suspicion_at = None if one.chosen is None else one.chosen.keep
        explained = dict(
            zip(keeps, seen.explain(methods[name], keeps, place.settings.follow, suspicion_at), strict=True)
        )
        tried[name] = [
            _try_image(place, one, asked, explained, number, image_id, drawn[number], near[number])
            for number, image_id in enumerate(ids)
        ]
    return tried


def _try_image(
    place: Localizing,
    tries: Try,
    asked: Sequence[Pair],
    explained: Mapping[float, Explanation],
    number: int,
    image_id: str,
    lesions: NDArray[np.uint8],
    near: list[NearLesion],
) -> OneImage:
    one = OneImage(image_id, {}, {}, None)
    for pair in asked:
        found = explained[pair[0]]
        strength = smoothed(found.maps[number].cpu().numpy(), pair[1])
        if (curve := dice_curve(lesions, strength)) is not None:
            by_rule = [curve if rule == "maximum" else dice_curve_by_mass(curve, strength) for rule in tries.rules]
            one.curves[pair], one.pointing[pair] = np.stack(by_rule), pointing(strength, near)
        if tries.chosen is not None and pair == tries.at:
            one = one._replace(measured=_measure(place, tries.chosen, image_id, lesions, found, number, strength))
    return one


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
    follow, threshold = place.settings.follow, place.threshold
    for own, ids in place.batches(image_ids):
        method = own.settings.methods[own.settings.method]
        found = explain(own.classifier, own.images(ids), method, follow=follow, keep=chosen.keep, threshold=threshold)
        for number, image_id in enumerate(ids):
            strength = smoothed(found.maps[number].cpu().numpy(), chosen.smoothing)
            yield Located(image_id, found, number, strength)

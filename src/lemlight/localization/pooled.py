"""Localization settings chosen on the validation images of several runs of one method, and what they give in the test.

Each run keeps what every candidate setting gives on each of its images, so that nothing is localized again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.files import read_arrays, written_aside
from lemlight.localization.choice import CutoffBy, RegionSettings, is_shown
from lemlight.metrics.bootstrap import ratio
from lemlight.metrics.overlap import LEVELS, level_of

STEP = 8  # of the 1024 cutoffs of a curve every eighth is kept
Index = tuple[int, ...]


def kept_levels(default: float, given: float | None) -> NDArray[np.intp]:
    """Return which cutoffs of a `dice_curve` are kept: the given one alone, else every eighth and the default."""
    some = [] if given is not None else range(STEP - 1, LEVELS, STEP)
    return np.array(sorted({*some, level_of(default)}), dtype=np.intp)


@dataclass(frozen=True)
class Tried:
    """What every candidate setting of a localization method gives on N images with a lesion.

    image_ids: (N,).
    rules: (R,) what the cutoffs are a fraction of, see `CutoffBy`.
    pairs: (P, 2) keep, and smoothing in px.
    cutoffs: (C,) in (0, 1], rising.
    default: (3,) where the settings stand that hold if no others are shown to be better: rule, pair, cutoff.
    dice: (N, R, P, C) in [0, 1]; float16 rounds by 0.0003 at most.
    pointing: (N, P) in [0, 1]; it depends on no cutoff.
    """

    image_ids: NDArray[np.str_]
    rules: NDArray[np.str_]
    pairs: NDArray[np.float64]
    cutoffs: NDArray[np.float64]
    default: NDArray[np.int64]
    dice: NDArray[np.float16]
    pointing: NDArray[np.float32]

    def on_no_image(self) -> "Tried":
        """Return the same candidates on no image."""
        return replace(self, image_ids=self.image_ids[:0], dice=self.dice[:0], pointing=self.pointing[:0])

    def is_like(self, other: "Tried") -> bool:
        """Whether both hold the same candidates."""
        names = ("rules", "pairs", "cutoffs", "default")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def at(self, index: Index) -> pd.DataFrame:
        """Return `dsc` and `pointing` of every image at (rule, pair, cutoff), by image_id."""
        rule, pair, cutoff = index
        values = {"dsc": self.dice[:, rule, pair, cutoff], "pointing": self.pointing[:, pair]}
        return pd.DataFrame(values, index=self.image_ids, dtype=np.float64)

    def settings(self, index: Index) -> RegionSettings:
        """Return the settings at (rule, pair, cutoff)."""
        rule, pair, cutoff = index
        keep, smoothing = map(float, self.pairs[pair])
        by: CutoffBy = "mass" if self.rules[rule] == "mass" else "maximum"
        return RegionSettings(keep=keep, smoothing=smoothing, cutoff=float(self.cutoffs[cutoff]), cutoff_by=by)


def tried_path(folder: Path, split: str) -> Path:
    """Return where a run keeps what it tried on the images of a split."""
    return folder / f"localization_{split}.npz"


def write_tried(tried: Mapping[str, Tried], path: Path) -> None:
    """Write what was tried by method of localization; the file names images as the other tables do, never a patient."""
    arrays: dict[str, Any] = {
        f"{method}/{name}": array for method, one in tried.items() for name, array in vars(one).items()
    }
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_tried(path: Path) -> dict[str, Tried]:
    """Read what `write_tried` wrote; LemlightError, which names the file, where it is damaged."""
    try:
        arrays = read_arrays(path)
        tried = {
            method: Tried(**{field.name: arrays[f"{method}/{field.name}"] for field in fields(Tried)})
            for method in dict.fromkeys(name.rpartition("/")[0] for name in arrays)
        }
        for one in tried.values():
            shape = (one.image_ids.size, one.rules.size, len(one.pairs), one.cutoffs.size)
            kinds = "".join(getattr(one, field.name).dtype.kind for field in fields(Tried))
            if one.dice.shape != shape or one.pointing.shape != shape[::2] or kinds != "UUffiff":
                raise ValueError
            one.settings(tuple(map(int, one.default)))  # raises for places that are not there
            if not (np.all(one.default >= 0) and np.isfinite(one.dice).all()):
                raise ValueError
    except Exception as error:  # a damaged npz raises what zipfile, zlib and numpy like
        raise LemlightError(f"{path.name} is damaged: train again") from error
    return tried


@dataclass(frozen=True)
class Pooled:
    """What pooling gave for one localization method of the runs of one method.

    settings: chosen on the validation images of all runs, to be used on new images.
    chosen: whether they are shown to be better than the defaults; else they are the defaults.
    images: how many validation images there are, each counted once.
    found: `dsc` and `pointing` of the test images with a lesion of each run, by image_id, at settings that were chosen
        without the images that it was tested on.
    oracle: the highest mean Dice that one setting gives on the test images of all runs; NaN where a run has none.
    """

    settings: RegionSettings
    chosen: bool
    images: int
    found: Sequence[pd.DataFrame]
    oracle: float


def pool(validation: Sequence[Tried], tested: Sequence[Tried]) -> Pooled:
    """Choose one setting on the validation images of some runs, and look up what it gives on their test images.

    In a sweep over folds the images that validate one run test another one: they have no part in the settings of the
    run that they test.

    Args:
        validation: of every run, by one localization method.
        tested: of the same runs.

    Raises:
        LemlightError: the runs tried different candidates.
    """
    first = tested[0]
    if not all(first.is_like(one) for one in (*validation, *tested)):
        raise LemlightError("the runs try different settings (localization.keep, smoothing, cutoff, cutoff_by)")
    shape, default = first.dice.shape[1:], tuple(map(int, first.default))
    flat_default = int(np.ravel_multi_index(default, shape))
    ids = np.concatenate([one.image_ids for one in validation])
    values = np.concatenate([one.dice for one in validation]).astype(np.float32).reshape(ids.size, prod(shape))
    per_image = pd.DataFrame(values).groupby(ids).mean()  # an image that validates several runs is one image still

    def choose(rows: pd.DataFrame) -> Index:
        return tuple(map(int, np.unravel_index(choose_column(rows.to_numpy(np.float64), flat_default), shape)))

    chosen = choose(per_image)
    indices = [choose(per_image[~per_image.index.isin(one.image_ids)]) for one in tested]
    # a run without a test image leaves the mean over the runs undefined
    sums = [one.dice.sum(axis=0, dtype=np.float64) for one in tested]
    means = [ratio(part, np.full(shape, float(one.image_ids.size))) for part, one in zip(sums, tested, strict=True)]
    found = [one.at(index) for one, index in zip(tested, indices, strict=True)]
    return Pooled(
        settings=first.settings(chosen),
        chosen=chosen != default,
        images=len(per_image),
        found=found,
        oracle=float(np.mean(means, axis=0).max()),
    )


def choose_column(dice: NDArray[np.float64], default: int) -> int:
    """Return the column of the highest mean of dice (N, S), of several the middle one, or the default.

    It must gain more than one standard error over images beside the default.
    """
    if not len(dice):
        return default
    means = dice.mean(axis=0)
    tied = np.flatnonzero(means == means.max())
    best = int(tied[(tied.size - 1) // 2])
    gains = dice[:, best] - dice[:, default]
    return best if is_shown(float(gains.mean()), float(np.mean(gains**2)), len(dice)) else default

"""How a location map becomes regions: what was chosen on the validation split, and what stands in for a choice."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lemlight.config.base import Count, NotNegative, PositiveShare, Section, Share
from lemlight.config.check import check
from lemlight.training.checkpoint import Checkpoint

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

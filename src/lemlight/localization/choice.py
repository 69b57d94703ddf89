"""The choice of localization: its method, and how a map becomes regions: given, chosen on a split, or a default."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from lemlight.arguments import Count, Fraction, InnerFraction, NotNegativeCount, Probability, Smoothing, checked
from lemlight.building import Settings, build, check_settings, did_you_mean
from lemlight.errors import LemlightError

Follow = Literal["predicted", "maxima", "minima", "both"]
CutoffBy = Literal["maximum", "mass"]
Method = Callable[..., Any]  # see lemlight.localization.attribution.Method, which needs torch

KEEPS = (0.0, 0.5, 0.75, 1.0)
SMOOTHINGS = (0.125, 0.25, 0.5, 1.0)  # of the backbone's output stride
DEFAULT_CUTOFF = 0.33


class LocalizationSettings:
    """How location maps are made, turned into regions, and measured.

    Args:
        methods: every method by name, see `lemlight.localization.attribution.Method`.
        method: the name of the one that makes the pictures.
        compare: names of further ones, measured beside it on the same network.
        follow: which extrema importance follows: "predicted" (maxima if predicted malignant, else minima), ...
        keep: an extremum counts from this fraction of the strongest's strength; None: chosen on the validation split.
        smoothing: px, standard deviation of the Gaussian over a map; None: chosen on the validation split.
        cutoff: fraction of a map's maximum from which a pixel belongs to a region, or of its mass that the regions
            hold; None: chosen as well.
        cutoff_by: what the cutoff is a fraction of.
        tolerance: how far beside a lesion it still counts as found, as a fraction of the prepared image's height.
        faithfulness: images of the split on which deletion, insertion and the like are measured, see
            `lemlight.localization.faithfulness`; 0: none.

    Raises:
        LemlightError: a value out of range, or a name without a method.
    """

    @checked
    def __init__(
        self,
        methods: dict[str, Method],
        method: str = "importance",
        compare: list[str] | None = None,
        follow: Follow = "predicted",
        keep: Probability | None = None,
        smoothing: Smoothing | None = None,
        cutoff: InnerFraction | None = None,
        cutoff_by: CutoffBy = "maximum",
        tolerance: Fraction = 0.01,
        faithfulness: NotNegativeCount = 0,
    ) -> None:
        self.method, self.follow, self.cutoff_by, self.tolerance = method, follow, cutoff_by, tolerance
        self.faithfulness = faithfulness
        self.names = list(dict.fromkeys([method, *(compare or [])]))  # the one that makes the pictures first
        check_names(self.names, methods, "localization.method")
        self.methods = {name: methods[name] for name in self.names}
        self.given: dict[str, float | None] = {"keep": keep, "smoothing": smoothing, "cutoff": cutoff}


def check_names(names: Iterable[str], methods: Iterable[str], key: str) -> None:
    """Raise LemlightError for the first name that is none of the methods; `key` is what the user writes."""
    known = list(methods)
    for name in names:
        if name not in known:
            raise LemlightError(
                f"{key}={name}: there is no such method{did_you_mean(name, known)}; there are {', '.join(known)}, and "
                "+localization.methods.NAME._target_=... adds an own one"
            )


def build_settings(config: Mapping[str, Any]) -> LocalizationSettings:
    """Build the section `localization` of a configuration, its methods included.

    Raises:
        LemlightError: what `LocalizationSettings` or the constructor of a method says.
    """
    return LocalizationSettings(**{**config, "methods": build_methods(config["methods"])})


def build_methods(parts: Mapping[str, Any]) -> dict[str, Method]:
    """Build methods from their `_target_`, by name; LemlightError where one cannot be built or called."""
    return {name: build(part, f"localization.methods.{name}", kind=Callable) for name, part in parts.items()}


class RegionSettings(Settings):
    """From extrema to regions.

    keep: fraction of the strongest extremum's strength that an extremum must reach.
    smoothing: px of the prepared image, standard deviation of the Gaussian.
    cutoff: fraction of a map's maximum from which a pixel belongs to a region; by mass, the fraction of the sum of the
        map that the smallest set of its strongest pixels must hold.
    """

    keep: Probability
    smoothing: Smoothing
    cutoff: Fraction
    cutoff_by: CutoffBy = "maximum"


class Chosen(RegionSettings):
    """What a training chose for a method on a split, as a checkpoint holds it."""

    dsc: Probability  # mean over the images with a lesion of that split, at these settings
    images: Count
    split: str


def chosen_settings(localization: Mapping[str, Any], path: object) -> dict[str, Chosen]:
    """What a training chose, by method, from the checkpoint at `path`; LemlightError where the file is damaged."""
    where = f"the localization settings in {path}"
    return {method: check_settings(values, Chosen, where=where) for method, values in localization.items()}


def settings_of(
    method: str,
    chosen: Mapping[str, Chosen],
    given: Mapping[str, float | None],
    output_stride: int,
    cutoff_by: CutoffBy | None = None,
) -> RegionSettings:
    """Settings of a method: what is given, else what the training chose for it, else a default.

    The defaults are for a network without enough validation masks: keep 0.5, a quarter of a cell, a third of the
    maximum or of the mass. A cutoff that was chosen by another rule than `cutoff_by` says nothing.
    """
    own = chosen.get(method)
    rule = cutoff_by or (own.cutoff_by if own else "maximum")
    values: dict[str, Any] = {"keep": 0.5, "smoothing": 0.25 * output_stride, "cutoff": DEFAULT_CUTOFF}
    if own:
        values |= own.model_dump(include={"keep", "smoothing", *(["cutoff"] if own.cutoff_by == rule else [])})
    values |= {name: value for name, value in given.items() if value is not None}
    return RegionSettings(**values, cutoff_by=rule)


def settings_together(settings: Sequence[RegionSettings]) -> RegionSettings:
    """How the mean strength becomes regions: as sharp as it is, cut off at the mean of the networks' cutoffs.

    Raises:
        LemlightError: some are cut off by the maximum, some by the mass.
    """
    rules = {own.cutoff_by for own in settings}
    if len(rules) > 1:
        raise LemlightError("the networks cut their maps off by maximum and by mass: choose with cutoff_by=...")
    cutoff = sum(own.cutoff for own in settings) / len(settings)
    return RegionSettings(keep=0.0, smoothing=0.0, cutoff=cutoff, cutoff_by=rules.pop())


def is_shown(gain: float, square: float, images: int) -> bool:
    """Whether a mean gain over the defaults, of this mean square, is more than one standard error over the images."""
    return images > 1 and gain > (max(square - gain**2, 0) / (images - 1)) ** 0.5


def candidates(has_extrema: bool, given: Mapping[str, float | None], output_stride: int) -> list[tuple[float, float]]:
    """The pairs (keep, smoothing) to choose from; a given value leaves no choice, and only extrema can be kept."""
    keep, smoothing = given["keep"], given["smoothing"]
    keeps = [keep] if keep is not None else list(KEEPS) if has_extrema else [0.0]
    smoothings = [smoothing] if smoothing is not None else [fraction * output_stride for fraction in SMOOTHINGS]
    return [(k, s) for k in keeps for s in smoothings]

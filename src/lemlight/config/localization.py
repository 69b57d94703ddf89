"""The section localization."""

from typing import Any, Literal

from pydantic import Field, model_validator

from lemlight.config.base import InnerShare, NotNegative, PositiveShare, Section, Share

Follow = Literal["predicted", "maxima", "minima", "both"]


class LocalizationMethods(Section):
    """The methods to choose from, each with its `_target_`."""

    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)  # checkpoints from before it have none


class LocalizationConfig(LocalizationMethods):
    """How location maps are made, turned into regions, and measured."""

    method: str
    compare: list[str]
    follow: Follow
    keep: Share | None
    smoothing: NotNegative | None
    cutoff: InnerShare | None
    tolerance: PositiveShare

    @model_validator(mode="after")
    def _known(self) -> "LocalizationConfig":
        from lemlight.localization.settings import check_names

        if self.methods:
            check_names([self.method, *self.compare], self.methods, "localization.method")
        return self

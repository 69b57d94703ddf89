"""The section localization."""

from typing import Literal

from lemlight.config.base import InnerShare, NotNegative, PositiveShare, Section, Share

Method = Literal["importance", "cam", "grad_cam", "grad_cam_pp", "gradient", "smooth_grad"]
Follow = Literal["predicted", "maxima", "minima", "both"]


class LocalizationConfig(Section):
    """How location maps are made, turned into regions, and measured."""

    method: Method
    compare: list[Method]
    follow: Follow
    keep: Share | None
    smoothing: NotNegative | None
    cutoff: InnerShare | None
    tolerance: PositiveShare

    @property
    def methods(self) -> list[str]:
        """All methods to be measured, the one that makes the pictures first."""
        return list(dict.fromkeys([self.method, *self.compare]))

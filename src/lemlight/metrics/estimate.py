"""One figure of merit with its interval, or the reason why there is none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Undefined:
    """A figure that these data do not define, with the reason; it is never reported as 0."""

    reason: str


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval `[low, high]`; what is unknown is None and has a reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, float | str | None]:
        """Return value, low, high as metrics.json has them, with a reason where one of them is null."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        known: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return known | ({"reason": self.reason} if self.reason else {})

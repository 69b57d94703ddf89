"""Paired timing: two ways of doing the same, turn by turn in one process, so that a busy machine slows both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """How long `what` takes compared with `against`, pair by pair; `limit` None: for information only."""

    what: str
    against: str
    ratios: Sequence[float]
    limit: float | None
    note: str = ""

    @property
    def median(self):
        return median(self.ratios)

    def cells(self):
        spread = f"{self.median:.3f} [{min(self.ratios):.2f}-{max(self.ratios):.2f}]"
        holds = "" if self.limit is None else "yes" if self.median <= self.limit else "NO"
        return self.what, self.against, spread, "" if self.limit is None else f"{self.limit:.2f}", holds


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def turns(actions: Sequence[Callable[[], object]], pairs: int, warm_up: int = 1) -> list[list[float]]:
    """Seconds of every action in each of `pairs` turns A B A B ..., after `warm_up` turns that do not count."""
    times = [[seconds(action) for action in actions] for _ in range(warm_up + pairs)]
    return times[warm_up:]


def paired(what, against, action, other, *, limit, pairs, warm_up=1) -> Ratio:
    """Measure `action` against `other`."""
    times = turns([action, other], pairs, warm_up)
    own, others = (1000 * median(column) for column in zip(*times, strict=True))
    note = f"{own:.1f} ms against {others:.1f} ms, {pairs} pairs"
    return Ratio(what, against, [a / b for a, b in times], limit, note)

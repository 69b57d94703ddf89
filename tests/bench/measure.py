"""Paired timing: two ways of doing the same, turn by turn in one process, so that a busy machine slows both.

Each is timed by the wall clock and by the CPU time of this process and of the processes that it started. Where other
programs want the cores, the wall clock scatters by whole factors and the CPU time by a few hundredths.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]  # (2,): wall clock, CPU


@dataclass(frozen=True)
class Ratio:
    """`what` compared with `against`, pair by pair: their seconds (pairs, 2)."""

    what: str
    against: str
    seconds: NDArray[np.float64]
    other_seconds: NDArray[np.float64]
    limit: float
    note: str = ""

    def cells(self):
        ratios = (self.seconds / self.other_seconds).T
        medians = np.median(ratios, axis=1)
        spreads = (f"{np.median(clock):.3f} [{clock.min():.2f}-{clock.max():.2f}]" for clock in ratios)
        within = medians <= self.limit
        holds = "yes" if within.all() else "clocks differ" if within.any() else "NO"
        return self.what, self.against, *spreads, f"{self.limit:.2f}", holds

    def times(self):
        own, other = np.median(self.seconds, axis=0), np.median(self.other_seconds, axis=0)
        text = f"{1000 * own[0]:.0f} ms against {1000 * other[0]:.0f} ms"
        return f"{text} (CPU {1000 * own[1]:.0f} against {1000 * other[1]:.0f}), {len(self.seconds)} pairs. {self.note}"


def clocks() -> Seconds:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime])


def seconds(action: Callable[[], object]) -> Seconds:
    start = clocks()
    action()
    return clocks() - start


def turns(actions: Sequence[Callable[[], object]], pairs: int, warm_up: int) -> NDArray[np.float64]:
    """Seconds (pairs, actions, 2) in turns A B A B ..., after `warm_up` turns that do not count."""
    times = [[seconds(action) for action in actions] for _ in range(warm_up + pairs)]
    return np.array(times[warm_up:])


def paired(what, against, action, other, *, limit, pairs, warm_up) -> Ratio:
    times = turns([action, other], pairs, warm_up)
    return Ratio(what, against, times[:, 0], times[:, 1], limit)

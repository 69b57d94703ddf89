"""What reading one file may cost: sizes, memory and time."""

import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import BinaryIO

from lemlight.arguments import Count, Positive
from lemlight.building import Settings
from lemlight.errors import ImageError

GB = 10**9
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
WAITING = 5  # times `seconds`: a good file takes longer by the clock where many processes share a core or a disk


class Limits(Settings):
    """What one file may cost; `conf/shared/limits.yaml` holds these values for the commands.

    side: px, the longest that an image may have.
    decoded: GB of its pixels as they stand in the file, and of a deflated file.
    memory: GB that a process may take while it works on one file.
    seconds: of processor time that it may take, and WAITING times that by the clock.
    """

    side: Count = 20_000
    decoded: Positive = 1.0
    memory: Positive = 8.0
    seconds: Positive = 60.0

    def problem(self, height: int, width: int, bytes_of_a_pixel: float) -> str:
        """Say what is too large about an image of (height, width) px, before memory is taken for it; "" if nothing."""
        if max(height, width) > self.side:
            return f"it says that it has {height} x {width} px, more than limits.side={self.side}; {LEAVE_OUT}"
        if (size := height * width * bytes_of_a_pixel) > self.decoded * GB:
            return f"its pixels would take {size / GB:.1f} GB, more than limits.decoded={self.decoded:g}; {LEAVE_OUT}"
        return ""


LEAVE_OUT = "it is damaged or no mammogram: leave it out, or raise that limit"
_held = Limits()


def hold(limits: Limits) -> None:
    """Make these the limits of this process, and of those that it starts to read files."""
    global _held
    _held = limits


def held() -> Limits:
    """The limits of this process."""
    return _held


def check_size(height: int, width: int, bytes_of_a_pixel: float) -> None:
    """Raise ImageError, without the file's name, where an image is larger than the limits of this process."""
    if problem := _held.problem(height, width, bytes_of_a_pixel):
        raise ImageError(problem)


def length_problem(file: BinaryIO) -> str:
    """Say that a file is longer than the pixels of any image may be, and a tenth; "" where it is not."""
    size = os.fstat(file.fileno()).st_size
    if size <= 1.1 * _held.decoded * GB:
        return ""
    return f"the file has {size / GB:.1f} GB, more than limits.decoded={_held.decoded:g}; {LEAVE_OUT}"


def bound_time() -> None:
    """Let this process take `seconds` of processor time from now on, rounded up; beyond it is ended by SIGXCPU."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = math.ceil(time.process_time() + _held.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most < 0 else min(wanted, most), most))


def bound_memory() -> None:
    """Let this process take `memory` beyond what it has now; beyond it gets a MemoryError, whatever library asks."""
    if sys.platform != "linux":  # macOS has no such limit
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the patient's image
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + int(_held.memory * GB)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))


def keep_freed_memory(arrays: int = 2**31 - 1) -> None:
    """Let glibc keep what `arrays` up to so many bytes leave for those to come, where the C library is glibc.

    It would give it back to the system, which clears it page by page when the next array asks for it: on a CPU that is
    most of the time of an operation on single pixels, and a fifth of that of a training step.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(ARENA_MAX, 1)  # those of further threads hold no more than 64 MB
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(MMAP_THRESHOLD, arrays)

"""Processes that are to end: by SIGTERM outside of Slurm (`kill`, `timeout`, a shutdown), or because the sweep has."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lemlight.cli import say

GRACE = 10  # seconds to leave a job

_told = threading.Event()


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End this process at the first SIGTERM, with the code 143 and its job unfinished.

    Lightning alone would end it after the batch. But the signal often goes to the readers of the batches as well, and
    without them there is no batch: the job would fail, and the sweep go on with the next. Whoever has a handler of
    his own, submitit or Ray, keeps it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    _told.clear()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() == owner:
            _told.set()
            say("told to end (SIGTERM): this job is unfinished; the same command goes on")
            sys.exit(128 + number)
        signal.signal(number, signal.SIG_DFL)  # a process forked from this one
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Exception:
        if told_to_end():
            sys.exit(128 + signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def told_to_end() -> bool:
    """Whether this process was: an error after that may be one of the readers' end, and hide that of this process."""
    return _told.is_set()


def end_with_parent() -> None:
    """End this process, a worker of joblib, soon after the one that started it: it would train on for nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)  # joblib takes the exit for an error of the job, and waits for more work

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()

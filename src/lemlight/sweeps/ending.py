"""Processes that are to end: by SIGTERM outside of Slurm (`kill`, `timeout`, a shutdown), or because the sweep has."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType

from lemlight.cli import say

CODE = 128 + signal.SIGTERM
GRACE = 10  # seconds

_told = threading.Event()


@contextmanager
def ending_soon() -> Iterator[None]:
    """End this process soon after a SIGTERM, with the code 143 and its job unfinished.

    The job ends with the batch, which Lightning sees to, or with its next error: the signal often goes to the readers
    of the batches as well, and without them there is no batch. That is no failure of the job, and the sweep must not
    go on with the next. Whatever still runs after GRACE seconds is cut off: files are written whole or not at all.
    Whoever has a handler of his own, submitit or Ray, keeps it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _cut_off_in_time()
    signal.signal(signal.SIGTERM, _note(os.getpid()))
    try:
        yield
    except (Exception, SystemExit):
        if not told_to_end():
            raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if told_to_end():
        sys.exit(CODE)


def told_to_end() -> bool:
    """Whether this process was: an error after that may be one of its readers' end."""
    return _told.is_set()


def end_with_parent() -> None:
    """End this process, a worker of joblib, soon after the one that started it: it would train on for nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _note(owner: int) -> Callable[[int, FrameType | None], None]:
    """A handler that does no more than note the signal.

    An exception from a handler may come amid the writing of a checkpoint, where it aborts the process. Torch's own
    raises one at the end of a reader: from here on it is not to.
    """

    def note(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a process forked from this one
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signal.signal(number, signal.SIG_IGN)  # a second one amid what follows would wait for the first, for ever
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _told.set()

    return note


@cache
def _cut_off_in_time() -> None:
    """Start, once, the thread that says so, and ends this process GRACE seconds after the signal."""

    def cut_off() -> None:
        _told.wait()
        say("told to end (SIGTERM): this job is unfinished; the same command goes on")  # a handler must not print
        time.sleep(GRACE)
        os._exit(CODE)

    threading.Thread(target=cut_off, name="cut-off", daemon=True).start()

"""Work shared among processes, and a lock between the commands of one machine."""

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2

from lemlight.errors import LemlightError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # tasks that wait per worker: enough to keep it busy, few enough to bound the memory


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while `what` is done; the system frees it when its holder ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is {what}: waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield `function(item)` for every item in the order in which they are done; one worker needs no process.

    Raises:
        LemlightError: a worker was killed from outside, by the system for want of memory as a rule.
    """
    if workers == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from _completed(pool, function, iter(items), AHEAD * workers)
        except BrokenProcessPool as error:
            raise LemlightError(
                "a worker process was killed, most likely because the memory ran out: set prepare_workers to a "
                "smaller number and start again; what is done stays done"
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _completed(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Iterator[Item], ahead: int
) -> Iterator[Result]:
    under_way: set[Future[Result]] = set()
    while True:
        under_way |= {pool.submit(function, item) for item in islice(items, ahead - len(under_way))}
        if not under_way:
            return
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, end when that is killed, and be one thread: the processes are the parallelism."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

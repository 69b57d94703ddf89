"""Work on files in processes that may die of it: a file that ends, fills or holds up its process costs itself only.

Decoders written in C end the process where a file is damaged in a way that they did not expect. Python's pools of
processes are broken by that; Pebble's goes on, but not where a process dies between two tasks or while it sends.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from lemlight import limits
from lemlight.errors import ImageError, LemlightError

START = 120  # s that a process may take to start: Python and the libraries may come over a network
REST = 10  # s after which a process without work ends
BEGIN = """import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):  # they come to the whole group, and are the parent's
    signal.signal(number, signal.SIG_IGN)
sys.path[:] = {path!r}
from lemlight.data.reading.isolated import serve
serve({pipe})"""
READY = "ready"
AHEAD = 4
ORDINARY = 2**28  # bytes of an array: the memory of larger ones goes back, and does not count for the next file
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)

Item = TypeVar("Item")
Result = TypeVar("Result")


class ProcessLost(ImageError):
    """A file that ended its process, or had to be ended with it."""


class Processes:
    """Up to `workers` processes, each started when it is first needed, which several maps may share.

    Each call is done in one of them, under `limits.held()`: one that dies, asks for too much memory or takes too long
    is replaced. In a process of such a kind already, no other one is started. On leaving they rest until the next
    job; those of a job that is abandoned end.

    Raises:
        LemlightError: no process can be started.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._threads = ThreadPoolExecutor(workers)  # one for each process: it waits for what that one does
        self._ours: list[_Process] = []
        self._free: SimpleQueue[_Process] = SimpleQueue()
        self._stopped = threading.Event()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        while kind is None and not self._free.empty():
            self._free.get().rest()
        self._stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._ours:
            if process not in _resting:
                process.end()
        self._threads.shutdown()

    def start(self, *functions: Callable[..., Any]) -> None:
        """Start all of them with what these functions import, while the caller is busy with something else."""
        job = self._job_of(functions)
        for _ in range(0 if _working else self.workers):
            self._threads.submit(lambda: self._free.put(self._new(job)))

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        name: Callable[[Item], object] = str,
        ahead: int = AHEAD,
    ) -> Generator[Result | ImageError, None, None]:
        """Yield `function(item)` for each item, in their order; an ImageError in the place of what a file did not give.

        What is raised beside ImageError and MemoryError is raised here.

        Args:
            function: importable, or a partial of one.
            items: taken a few at a time, as they are needed.
            name: of an item, at the head of its reason: the path.
            ahead: items of each process that wait to be worked on or fetched.
        """
        if _working:
            yield from (_outcome(function, item, str(name(item))) for item in items)
            return
        job, left = self._job_of(function), iter(items)
        waiting: deque[Future[Result | ImageError]] = deque()
        try:
            while True:
                more = islice(left, ahead * self.workers - len(waiting))
                waiting.extend(self._threads.submit(self._work, job, item, str(name(item))) for item in more)
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _job_of(self, what: object) -> bytes:
        return pickle.dumps((what, limits.held(), os.getcwd()))

    def _work(self, job: bytes, item: Any, name: str) -> Any:
        process = self._ready_for(job)
        result = process.do(item, name)
        if process.alive:
            self._free.put(process)
        return result

    def _ready_for(self, job: bytes) -> "_Process":
        with suppress(Empty):
            while True:
                if (process := self._free.get_nowait()).take(job):
                    return process
        return self._new(job)

    def _new(self, job: bytes) -> "_Process":
        self._ours.append(process := _process_for(job))
        if self._stopped.is_set():
            process.end()
        return process


def map_isolated(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, name: Callable[[Item], object] = str
) -> Generator[Result | ImageError, None, None]:
    """Yield `function(item)` for each item, as `Processes.map` does, by processes of its own."""
    with Processes(workers) as processes:
        yield from processes.map(function, items, name)


def given(result: Result | ImageError) -> Result:
    """The result of an item that must have one; raises the ImageError in its place."""
    if isinstance(result, ImageError):
        raise result
    return result


class _Process:
    """One process, which works on one item at a time for a job, and may die."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        begin = BEGIN.format(path=sys.path, pipe=theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-c", begin], pass_fds=[theirs.fileno()], env=os.environ | ONE_THREAD
        )
        theirs.close()
        self.alive, self._ending = True, threading.Lock()
        self._job: bytes | None = None

    def take(self, job: bytes) -> bool:
        """Get ready for a job; False where the process is not there (any more)."""
        if job == self._job:
            return True
        try:
            if self._job is not None:
                self.pipe.send(None)
            self._job = job
            self.pipe.send_bytes(job)
            if self.pipe.poll(START) and self.pipe.recv() == READY:
                return True
        except (EOFError, OSError):
            pass
        self.end()
        return False

    def do(self, item: Any, name: str) -> Any:
        """The result of an item, or the ImageError that says why there is none; raises what the function raised."""
        seconds = limits.held().seconds
        try:
            self.pipe.send((item, name))
            if self.pipe.poll(limits.WAITING * seconds):
                raised, value = pickle.loads(self.pipe.recv_bytes())
                if raised:
                    raise value
                return value
            why = f"reading it took {limits.WAITING} times longer than limits.seconds={seconds:g}, by the clock"
        except (EOFError, ConnectionError):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)  # it is about to end
            why = _cause(self.process.returncode, seconds)
        self.end()
        return ProcessLost(f"{name}: {why}; fetch the file again or leave it out")

    def rest(self) -> None:
        """Be there for the next job, for a while."""
        self._job = None
        with suppress(OSError):
            self.pipe.send(None)
            _resting.append(self)

    def end(self) -> None:
        """End the process now."""
        with self._ending:  # the thread that waits for it may come here as well
            self.alive = False
            self.process.kill()
            self.process.wait()
            with suppress(OSError):  # the garbage collector closes pipes without a note that they are
                self.pipe.close()


def _process_for(job: bytes) -> _Process:
    """A process that is ready for the job, one that rests where there is one."""
    while _resting:
        with suppress(IndexError):  # another thread was faster
            if (process := _resting.pop()).take(job):
                return process
    process = _Process()
    if process.take(job):
        return process
    raise LemlightError("a process that reads files cannot be started: see what it said above, or free some memory")


def end_resting() -> None:
    """End the processes that wait for another job, now instead of after a while."""
    while _resting:
        _resting.pop().end()


def _cause(code: int | None, seconds: float) -> str:
    """Why a process has ended, by its exit code."""
    if code is None or code >= 0:
        return f"its decoder ended the process (exit code {code})"
    ended = signal.Signals(-code).name
    if ended == "SIGXCPU":
        return f"reading it took longer than limits.seconds={seconds:g} of processor time"
    if ended == "SIGKILL":
        return "its process was killed from outside, by the system where the memory runs out: set fewer workers"
    return f"its decoder ended the process ({ended})"


_resting: list[_Process] = []
_working = False  # whether this is such a process
os.register_at_fork(after_in_child=_resting.clear)  # they are the parent's


def serve(number: int) -> None:
    """Work on the items of one job after the other that come through the pipe of this number, until it ends."""
    global _working
    _working = True
    threading.Thread(target=_end_after_parent, args=(os.getppid(),), daemon=True).start()
    limits.keep_freed_memory(ORDINARY)
    pipe, nowhere = Connection(number), os.open(os.devnull, os.O_WRONLY)
    bounded: limits.Limits | None = None
    with suppress(EOFError, ConnectionError):
        while pipe.poll(REST):
            function, held, folder = pickle.loads(pipe.recv_bytes())
            os.chdir(folder)  # the parent may have moved since the last job, as notebooks do
            if held != bounded:  # not with every job: what earlier files left in the memory would raise the bound
                limits.hold(bounded := held)
                limits.bound_memory()
            os.dup2(nowhere, sys.stderr.fileno())  # decoders quote what is in a file
            pipe.send(READY)
            while (task := pipe.recv()) is not None:
                limits.bound_time()
                pipe.send_bytes(_answer(function, *task))


def _answer(function: Callable[[Any], Any], item: Any, name: str) -> bytes:
    try:
        try:
            return pickle.dumps((False, _outcome(function, item, name)), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            error.add_note(traceback.format_exc())
            return pickle.dumps((True, error))
    except Exception as error:  # it cannot be sent
        return pickle.dumps((True, RuntimeError(f"{name}: {type(error).__name__}: {error}")))


def _outcome(function: Callable[[Item], Result], item: Item, name: str) -> Result | ImageError:
    try:
        return function(item)
    except ImageError as error:
        return error
    except MemoryError:
        most = limits.held().memory
        return ImageError(f"{name}: it takes more memory than limits.memory={most:g} (GB); leave it out, or raise that")


def _end_after_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

"""Files that end, fill or hold up the process that reads them cost themselves only."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lemlight import limits
from lemlight.data.reading import isolated
from lemlight.data.reading.isolated import Processes, ProcessLost, map_isolated
from lemlight.errors import ImageError, LemlightError
from lemlight.limits import held, hold


def act(number):
    """What a decoder may do with a file."""
    if number == 1:
        os.abort()
    if number == 2:
        os._exit(0)
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        np.ones(10**9)
    if number == 5:
        time.sleep(60)
    if number == 6:
        raise ImageError("file 6: no mammogram")
    return number, cv2.getNumThreads(), held().memory, "torch" in sys.modules


def test_whatever_a_file_does_costs_that_file_and_is_named(limited):
    limited(memory=1.5, seconds=0.2)
    results = list(map_isolated(act, range(8), 1, "file {}".format))
    assert results[0] == (0, 1, 1.5, False)  # one thread, the limits of the parent, and a start without torch
    assert results[7] == (7, 1, 1.5, False)
    words = ["SIGABRT", "exit code 0", "killed from outside", "more memory than limits.memory=1.5"]
    words += ["5 times longer than limits.seconds=0.2, by the clock"]
    for number, said in enumerate([*words, "no mammogram"], start=1):
        assert str(results[number]).startswith(f"file {number}: "), results[number]
        assert said in str(results[number])
    assert [isinstance(result, ProcessLost) for result in results] == [False, *[True] * 3, False, True, False, False]


def test_processor_time_counts_where_other_processes_hold_the_cores(limited, monkeypatch):
    limited(seconds=0.2)
    monkeypatch.setattr(limits, "WAITING", 600)  # the clock has no say
    turning, slept = map_isolated(turn, [True, False], 1)
    assert "longer than limits.seconds=0.2 of processor time" in str(turning)
    assert slept == "slept"


def turn(endless):
    while endless:
        pass
    time.sleep(0.5)
    return "slept"


def test_other_errors_are_raised_with_their_place_and_everything_ends():
    with pytest.raises(ZeroDivisionError) as caught:
        list(map_isolated(divide, range(3), 2))
    assert "in divide" in caught.value.__notes__[0]
    with pytest.raises(LemlightError, match="cannot be started"):
        list(map_isolated(_not_there, [1], 1))
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def divide(number):
    return 1 / (number - 1)


def _not_there(number):
    return number


_not_there.__module__ = "os"  # pickled by a name that is not there
os._not_there = _not_there


def identify(number):
    return os.getpid(), list(map_isolated(divide, [3], 2)), os.getpid()


def test_a_process_works_on_many_files_and_rests_until_the_next_job():
    first = list(map_isolated(identify, range(20), 1))
    assert len(set(map(str, first))) == 1  # one process, in which no other is started
    assert first[0][1] == [0.5]
    assert list(map_isolated(identify, [1], 1)) == first[:1]
    assert list(map_isolated(identify, [], 2)) == []
    for process in isolated._resting:  # one that has ended meanwhile is replaced
        process.process.kill()
    (other,) = map_isolated(identify, [1], 1)
    assert other[0] != first[0][0]


def what_is_open(number):
    """The process, how many files it holds open, and the memory that it may take, after it took some and left it."""
    np.ones(2**22).sum()
    return os.getpid(), len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_DATA)


def test_jobs_in_turns_share_the_processes_that_were_started_beforehand():
    isolated.end_resting()
    with Processes(2) as processes:
        processes.start(divide, what_is_open)
        deadline = time.monotonic() + 60
        while len(children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        divided, seen = processes.map(divide, range(2, 42)), processes.map(what_is_open, range(40))
        quotients, opened = zip(*zip(divided, seen, strict=True), strict=True)
        assert len(children()) == 2
    assert quotients == tuple(divide(number) for number in range(2, 42))
    numbers = {process for process, *_ in opened}
    assert len(set(opened)) == len(numbers)  # a job that is taken up anew leaves nothing open and may take no more
    assert len(children()) == len(isolated._resting)  # one that was not ready yet has ended


def test_what_was_started_and_never_needed_ends_with_an_error():
    isolated.end_resting()
    processes = Processes(2)
    processes.start(divide)
    processes.__exit__(ImageError, None, None)
    assert not children()


def test_items_are_taken_only_as_they_are_needed_and_no_process_outlives_an_abandoned_job():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = map_isolated(divide, (number + 2 for number in items()), 2)
    next(results)
    assert len(taken) <= 10
    before = len(children())
    results.close()
    assert before > len(children()) == len(isolated._resting)


def children():
    """The processes that work on files."""
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-ww", "-o", "args="], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "lemlight.data.reading.isolated" in line]


def test_mutations_of_a_fixed_seed_cost_themselves_only():
    from tests.fuzz import LIMITS, fuzz  # here: the processes that the other tests start need none of it

    before = held()
    try:
        found, wrong = fuzz(seed=0, count=120, seconds=10, workers=2)
    finally:
        hold(before)
    assert not wrong
    assert found["mutations"] > 20
    assert found["refused"] > found["read"] / 4
    assert LIMITS.memory < before.memory


def test_a_relative_path_is_meant_as_the_parent_means_it(tmp_path, monkeypatch):
    for name in ("here", "there"):  # the same processes, which rest in between
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert list(map_isolated(Path.read_text, [Path("file")], 1)) == [name]


def test_a_process_ends_quietly_where_the_garbage_collector_was_faster():
    process = isolated._process_for(pickle.dumps((len, held(), os.getcwd())))
    process.pipe.__del__()
    process.end()
    assert process.process.returncode == -signal.SIGKILL

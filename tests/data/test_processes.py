import os
import signal
import time

import pytest

from lemlight.data.store import map_in_processes
from lemlight.errors import LemlightError


def square(number):
    return number * number


def end_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return number


def refuse(number):
    raise LemlightError(f"no {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_done_once(workers):
    assert sorted(map_in_processes(square, range(20), workers)) == [number * number for number in range(20)]


def test_no_items_need_no_work():
    assert list(map_in_processes(square, [], 2)) == []


def test_a_killed_worker_is_told_with_its_likely_cause():
    with pytest.raises(LemlightError, match=r"memory ran out: set prepare_workers"):
        list(map_in_processes(end_at_three, range(6), 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_comes_through(workers):
    with pytest.raises(LemlightError, match="no 0"):
        list(map_in_processes(refuse, range(1), workers))


def test_items_are_taken_only_as_they_are_needed():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = map_in_processes(square, items(), 2)
    next(results)
    assert len(taken) <= 6
    results.close()

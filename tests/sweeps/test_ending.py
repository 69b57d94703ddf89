"""A process that is told to end, and does not by itself: it is cut off."""

import signal
import subprocess
import sys

import pytest

STUBBORN = """
import time
from lemlight.sweeps import processes as ending

ending.GRACE = 0.2
with ending.ending_soon():
    print("at work", flush=True)
    while True:
        time.sleep(0.01)
"""
TOLD_TWICE = """
import os, signal, threading

class Event(threading.Event):
    def set(self):
        with self._cond:  # as it is held while the event is set
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass
        super().set()

import lemlight.sweeps.processes as told
told._told = Event()
"""


@pytest.mark.parametrize("before", ["", TOLD_TWICE], ids=["once", "and again amid that"])
def test_what_goes_on_regardless_is_cut_off_with_the_code_of_its_signal(before):
    process = subprocess.Popen(
        [sys.executable, "-c", before + STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143
    assert "told to end (SIGTERM)" in said
    assert "Traceback" not in said

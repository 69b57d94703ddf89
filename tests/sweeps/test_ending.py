"""A process that is told to end, and does not by itself: it is cut off."""

import signal
import subprocess
import sys

STUBBORN = """
import time
from lemlight.sweeps import ending

ending.GRACE = 0.2
with ending.ending_soon():
    print("at work", flush=True)
    while True:
        time.sleep(0.01)
"""


def test_what_goes_on_regardless_is_cut_off_with_the_code_of_its_signal():
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "told to end (SIGTERM)" in said

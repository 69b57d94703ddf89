"""What runs on this machine, for tests of what ends."""

import contextlib
import time
from pathlib import Path


def wait_for(condition, process=None, seconds=120):
    """Wait for a condition, at most as long as `process` runs; whether it is fulfilled."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and (process is None or process.poll() is None) and not condition():
        time.sleep(0.02)
    return condition()


def processes_of(session):
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(path.parent.name))
    return found

"""What a sweep shows from outside: its processes, the states of its jobs, its table."""

import contextlib
import csv
import json
import time
from pathlib import Path

METRICS = ("metrics.json", "predictions.csv", "logs/metrics.csv")


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


def states(sweep):
    """What state.json holds, by the folder of the job."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(sweep.glob("*/state.json"))}


def table(sweep):
    with (sweep / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_metrics(one, other):
    return all((one / name).read_text() == (other / name).read_text() for name in METRICS)

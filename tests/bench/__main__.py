"""`make bench`: the speed ratios of the README, each measured side by side in one run; nothing is asserted."""

import argparse
import importlib
import os
import platform
import tempfile
from pathlib import Path

import pandas as pd

from lemlight.files import cores
from lemlight.limits import keep_freed_memory

MEASUREMENTS = ("networks", "peers", "training_loop", "data", "localizing", "jobs")
HEADER = ("what", "against", "wall clock [min-max]", "CPU time [min-max]", "limit", "holds?")


def main():
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `localize` has it; of one thread it changes nothing
    import torch  # here and not above: the processes that prepare images would import it, too

    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=MEASUREMENTS, help="one measurement")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of each measurement, or a multiple of that")
    given = parser.parse_args()
    if given.pairs < 1:
        parser.error("--pairs must be at least 1")
    keep_freed_memory()  # as every command does
    # one thread: several wait for each other wherever another program has one of their cores
    torch.set_num_threads(1)
    ratios = []
    for name in [given.only] if given.only else MEASUREMENTS:
        # late: what one measurement imports and the processes that it starts are no other's business
        measurement = importlib.import_module(f"tests.bench.{name}")
        with tempfile.TemporaryDirectory() as folder:
            for ratio in measurement.measure(given.pairs, Path(folder)):
                print(f"{ratio.what}: {ratio.times()}", flush=True)
                ratios.append(ratio)
    table = pd.DataFrame([ratio.cells() for ratio in ratios], columns=HEADER)
    print(f"\n{table.to_string(index=False)}\n")
    print(
        f"Measured on {cores()} cores ({platform.machine()}, load {os.getloadavg()[0]:.1f}) with "
        f"{torch.get_num_threads()} torch thread, torch {torch.__version__}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()

"""What a sweep costs beside its training: jobs side by side against one after another, and the overhead of one job."""

import json
import os
import subprocess
import sys

import numpy as np

from tests.bench.measure import Ratio, clocks, paired

JOBS = 8
CORES = 2
SEEDS = f"seed={','.join(map(str, range(JOBS)))}"
AT_MOST = 15.0  # seconds of a job before its first step and after its last one, imports aside
ROUNDS = 2
SMALL = ("+scale=small", "trainer.enable_progress_bar=false", "workers=0", "backbone=resnet18")
ONE_STEP = ("trainer.max_epochs=1", "trainer.limit_train_batches=1")
SHORT = ("dataset.patients=24", "callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.mode=min")
# a training that notes when it had imported everything, began its first step, ended its last one, and was over
WATCHED = """
import json, sys, time
import lemlight.reporting.run_results, lemlight.training.trainer, lemlight.data.datamodule
from lemlight.train import main
from lemlight.training.module import MammogramModule
times = {"imported": time.monotonic()}
MammogramModule.on_train_batch_start = lambda *_: times.setdefault("first step", time.monotonic()) and None
MammogramModule.on_train_batch_end = lambda *_: times.update({"last step": time.monotonic()})
main()
times["end"] = time.monotonic()
print("TIMES" + json.dumps(times))
"""


def measure(pairs, folder):
    train(folder, *SMALL, *ONE_STEP)  # draws and prepares the images
    yield overhead(folder)
    train(folder, *SMALL, *SHORT, *ONE_STEP)  # the images of the short jobs
    rounds = iter(range(1, 1000))
    yield paired(
        f"a sweep of {JOBS} short jobs on {CORES} workers",
        "the same on one",
        lambda: sweep(folder, next(rounds), "hydra/launcher=joblib", f"hydra.launcher.n_jobs={CORES}"),
        lambda: sweep(folder, next(rounds)),
        limit=0.6,
        pairs=min(pairs, ROUNDS),
        warm_up=0,
    )


def overhead(folder):
    """Seconds of a job at the small scale, ResNet-18 on two cores, before its first step and after its last one.

    The end is the greater part: validation, test, localization in both splits, figures, report.
    """
    found = []
    for _ in range(ROUNDS + 1):
        before = clocks()
        times = train(folder, *SMALL, *ONE_STEP)
        wall = times["first step"] - times["imported"] + times["end"] - times["last step"]
        found.append((wall, (clocks() - before)[1]))
    seconds = np.array(found)
    note = "The CPU time is that of the whole job, imports and training too."
    return Ratio(
        "a job before its first and after its last step", "15 s", seconds, np.full_like(seconds, AT_MOST), 1.0, note
    )


def train(folder, *overrides):
    done = run([sys.executable, "-c", WATCHED, *overrides], folder, threads=CORES)
    return json.loads(done.stdout.split("TIMES")[1])


def sweep(folder, number, *overrides):
    call = [sys.executable, "-m", "lemlight.train", "-m", *SMALL, *SHORT, "trainer.max_epochs=4"]
    run([*call, SEEDS, *overrides, f"hydra.sweep.dir=sweep{number}"], folder, threads=1)


def run(call, folder, threads):
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.run(call, cwd=folder, env=environment, check=True, capture_output=True, text=True)

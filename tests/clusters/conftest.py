import os
import subprocess
import sys

import pytest

SIZES = ["dataset.patients=12", "dataset.scale=0.25", "dataset.prepare.height=96", "dataset.prepare.width=64"]
SMALL = ["prepare_workers=1", *SIZES]
TINY = ["workers=0", "bootstrap=100", "examples=0", "trainer=cpu", "trainer.max_epochs=1", "batch_size=4"]
TINY += ["scheduler.warmup_epochs=0", "trainer.enable_progress_bar=false"]
TINY += ["callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.mode=min"]


@pytest.fixture(scope="session")
def shell():
    """The environment of a shell, without what an earlier command left in this process."""
    left = ("HYDRA_FULL_ERROR", "PL_", "SLURM_", "RAY_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left)}
    return kept | {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session")
def phantom(tmp_path_factory, shell):
    """Overrides for a phantom of 12 patients that is drawn and prepared once."""
    root = tmp_path_factory.mktemp("phantom")
    data = [*SMALL, f"store={root / 'store'}", f"dataset.root={root / 'images'}"]
    subprocess.run([sys.executable, "-m", "lemlight.prepare", *data], cwd=root, env=shell, check=True)
    return data


@pytest.fixture
def start(phantom, shell, tmp_path):
    """Start a sweep in tmp_path / "sweep"; what it prints goes to a file, which no process that is left can hold up."""
    started = []

    def start(*overrides, **variables):
        call = [sys.executable, "-m", "lemlight.train", "-m", *phantom, *TINY, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
        with (tmp_path / "said.txt").open("w") as said:
            environment = shell | variables
            process = subprocess.Popen([*call, *overrides], cwd=tmp_path, env=environment, stdout=said, stderr=said)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def sweep(start, tmp_path):
    """Run a sweep to its end: its exit code and what it printed."""

    def sweep(*overrides, **variables):
        code = start(*overrides, **variables).wait(timeout=400)
        said = (tmp_path / "said.txt").read_text()
        assert "Traceback" not in said, said
        return code, said

    return sweep

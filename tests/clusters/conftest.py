import os
import subprocess
import sys

import pytest

from tests.commands.conftest import SMALL, TINY


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
    data = [f"store={root / 'store'}", f"dataset.root={root / 'images'}", "dataset.patients=12", "dataset.scale=0.25"]
    subprocess.run([sys.executable, "-m", "lemlight.prepare", *SMALL, *data], cwd=root, env=shell, check=True)
    return data


@pytest.fixture
def start(phantom, shell, tmp_path):
    """Start a sweep in tmp_path / "sweep"; what it prints goes to a file, which no process that is left can hold up."""
    started = []

    def start(*overrides, **variables):
        words = [*TINY, *phantom, "batch_size=4", f"hydra.sweep.dir={tmp_path / 'sweep'}", *overrides]
        call = [sys.executable, "-m", "lemlight.train", "-m", *words]
        with (tmp_path / "said.txt").open("w") as said:
            started.append(subprocess.Popen(call, cwd=tmp_path, env=shell | variables, stdout=said, stderr=said))
        return started[-1]

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

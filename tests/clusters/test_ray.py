"""Sweeps in a real Ray of this machine, as docs/engines/ray.md has them: a queue and a cluster."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.sweeps.observed import states, table

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="a queue of Ray needs pip install 'lemlight[ray]'")

# a Ray of the command's own, whatever else runs on this machine
OWN = ["hydra.launcher.ray.init.address=local", "+hydra.launcher.ray.init.include_dashboard=false"]
EXISTING = ["+hydra.launcher.ray.init.address=auto", "+hydra.launcher.ray.init.object_store_memory=null"]


@pytest.fixture(scope="module")
def cluster(shell):
    """A cluster of two cores that runs already; the variable by which a command finds it."""
    folder = tempfile.mkdtemp(prefix="lemlight-ray-", dir="/tmp")  # short, see ray.sh
    script = ["sh", str(Path(__file__).with_name("ray.sh"))]
    call = {"env": shell | {"PYTHON": sys.executable, "FOLDER": folder}, "text": True, "capture_output": True}
    up = subprocess.run([*script, "start"], **call)
    if up.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"no Ray cluster can be started here: {up.stderr.strip()}")
    yield {"RAY_TMPDIR": folder}
    subprocess.run([*script, "stop"], **call, check=True)
    shutil.rmtree(folder)


def test_a_job_that_fails_in_the_queue_lets_the_others_run_and_alone_runs_again(sweep, tmp_path):
    command = ["hydra/launcher=ray", *OWN, "+hydra.launcher.ray.init.num_cpus=2", "pooling=gap,lem"]
    in_the_way = tmp_path / "sweep" / "pooling-lem" / "logs"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where the job wants a folder")
    code, said = sweep(*command)
    before = states(tmp_path / "sweep")
    assert (code, [state["state"] for state in before.values()]) == (2, ["done", "failed"]), said
    assert said.count("1 of 2 jobs are not done") == said.count("figures and report:") == 1  # jobs' words come through
    in_the_way.unlink()
    code, said = sweep(*command)
    assert (code, said.count("done before, skipped")) == (0, 1), said
    assert states(tmp_path / "sweep")["pooling-gap"] == before["pooling-gap"]
    assert [row["state"] for row in table(tmp_path / "sweep")] == ["done", "done"]


def test_a_cluster_that_runs_already_takes_the_jobs_and_stays(cluster, sweep, tmp_path):
    for skipped in (0, 2):
        code, said = sweep("hydra/launcher=ray", *EXISTING, "pooling=gap,lem", **cluster)
        assert code == 0, said
        assert "existing Ray cluster" in said
        assert said.count("done before, skipped") == skipped
        assert [state["state"] for state in states(tmp_path / "sweep").values()] == ["done", "done"]

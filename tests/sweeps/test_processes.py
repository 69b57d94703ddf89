import os
import sys

import joblib
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from lemlight.config.conf_dir import conf_dir
from lemlight.data.store import map_in_processes
from lemlight.sweeps.processes import own_processes, start_processes_as_usual


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The config of a job of an experiment, and the command line of the whole sweep."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", ["experiment=pooling", "pooling=gap", "seed=1"], return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(tmp_path / "pooling=gap+seed=1")
        config.hydra.runtime.config_sources = []
        config.hydra.overrides.hydra = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra.searchpath=[pkg://mine]"]
    OmegaConf.set_readonly(config.hydra, True)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = config
    monkeypatch.setattr(sys, "argv", ["program", "-m", "experiment=pooling"])
    yield config
    HydraConfig.instance().cfg = before


def test_the_other_processes_are_single_runs_in_the_folder_of_the_job(job):
    with own_processes("lemlight.train", resume="/a b/it's/last.ckpt"):
        assert sys.argv == [
            "program",
            *job.hydra.overrides.task,
            "resume='/a b/it\\'s/last.ckpt'",
            "hydra.searchpath=[pkg://mine]",
            "hydra.mode=RUN",
        ]
        assert sys.modules["__main__"].__spec__.name == "lemlight.train"
        assert HydraConfig.get().run.dir == job.hydra.runtime.output_dir


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_for_the_next_job(job, error):
    before = list(sys.argv), sys.modules["__main__"].__spec__, dict(os.environ), torch.get_num_threads()
    folder = HydraConfig.get().run.dir
    try:
        with own_processes("lemlight.train", resume=None):
            os.environ |= {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}
            torch.set_num_threads(before[3] + 1)
            torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        assert error is not None
    assert (sys.argv, sys.modules["__main__"].__spec__, dict(os.environ), torch.get_num_threads()) == before
    assert not torch.distributed.is_initialized()
    assert job.hydra.run.dir == folder


def absolute_in_processes(numbers):
    start_processes_as_usual()
    return sorted(map_in_processes(abs, numbers, workers=2))


def test_a_worker_of_joblib_can_start_processes():
    with joblib.parallel_backend("loky"):
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(absolute_in_processes)(numbers) for numbers in ([-1, 2], [-3]))
    assert found == [[1, 2], [3]]

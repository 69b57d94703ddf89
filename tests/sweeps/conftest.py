import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.conf import ConfigSourceInfo
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from lemlight.cli import conf_dir
from lemlight.sweeps import jobs


@pytest.fixture
def job(tmp_path):
    """The config of a job in a multirun, as its task gets it; its folder is tmp_path / "job"."""
    (tmp_path / "job").mkdir()
    words = ["pooling=gap", "seed=1", f"output={tmp_path / 'job'}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", words, return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(tmp_path / "job")
        config.hydra.runtime.config_sources = [ConfigSourceInfo("/mine", "file", "command-line")]
        config.hydra.overrides.hydra = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra.searchpath=[pkg://mine]"]
        config.hydra.sweeper.params = {"pooling": "gap,lem"}
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = config
    yield OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    HydraConfig.instance().cfg = before


class Trainings(list):
    """The trainings that were started, as (command, environment): none runs, each leaves what `leaves` says."""

    code, leaves = 0, {"result": 0.5}

    def __call__(self, command, environment):
        self.append((command, environment))
        folder = json.loads(environment[jobs.JOB])["folder"]
        if folder is not None and self.leaves is not None:
            Path(folder, jobs.OUTCOME).write_text(json.dumps(self.leaves))
            Path(folder, "metrics.json").write_text("{}")
            Path(folder, "checkpoints").mkdir(exist_ok=True)
            Path(folder, jobs.LAST).touch()
        return self.code


@pytest.fixture
def trainings(monkeypatch):
    started = Trainings()
    monkeypatch.setattr(jobs, "run_to_its_end", started)
    return started

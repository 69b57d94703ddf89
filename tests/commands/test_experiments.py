"""Every experiment in its smallest form: first and last value of its first axis; the others compose, see config."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lemlight.cli import conf_dir

EXPERIMENTS = sorted(path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml"))
GRIDS = [name for name in EXPERIMENTS if name != "search"]  # that one proposes its jobs as it goes: test_search_command
SMALLEST = ["dataset.patients=20", "dataset.scale=0.25", "dataset.prepare.height=96", "dataset.prepare.width=64"]


def axes_of(name):
    params = OmegaConf.load(Path(conf_dir(), "experiment", f"{name}.yaml")).hydra.sweeper.params
    return {key: str(values).split(",") for key, values in params.items()}


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    root = tmp_path_factory.mktemp("smallest")
    return [*SMALLEST, f"store={root / 'store'}", f"dataset.root={root / 'images'}"]


@pytest.mark.parametrize("name", GRIDS)
def test_it_runs(name, lemlight_run, smallest, tmp_path):
    ends = {key: [values[0], values[-1]] for key, values in axes_of(name).items()}
    first = next(iter(ends))
    axes = [f"{key}={','.join(values) if key == first else values[0]}" for key, values in ends.items()]
    sweep = tmp_path / "sweep"
    lemlight_run("train", f"experiment={name}", "+scale=small", *smallest, *axes, f"hydra.sweep.dir={sweep}")
    states = [json.loads(path.read_text())["state"] for path in sorted(sweep.glob("*/state.json"))]
    assert states == ["done", "done"]
    assert len((sweep / "table.csv").read_text().splitlines()) == 3
    for job in sweep.glob("*/state.json"):
        assert OmegaConf.load(job.with_name("config.yaml")).choices.dataset == "phantom"
        assert (job.parent / "report.html").is_file()

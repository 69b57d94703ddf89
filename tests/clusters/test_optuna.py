"""experiment=search with Optuna: what it may vary, what it goes by, and that the same command finds its trials."""

import contextlib
import csv
import io
import json
import logging
import math
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the search needs pip install 'lemlight[optuna]'")

import lemlight.recipe.train
from lemlight import train
from lemlight.config.check import check
from lemlight.config.commands import TrainConfig
from lemlight.config.conf_dir import conf_dir

SEARCH = ["experiment=search", "+scale=small", "hydra.sweeper.sampler.n_startup_trials=2"]
TINY = [
    "trainer.max_epochs=2",
    "dataset.patients=24",
    "dataset.scale=0.25",
    "dataset.prepare.height=96",
    "dataset.prepare.width=64",
    "workers=0",
    "prepare_workers=1",
    "bootstrap=100",
    "examples=0",
    "callbacks.progress_bar=false",
]


def search(cwd, *arguments):
    """Run the search in this process: exit code, what it printed, and its folder."""
    out, err, code, before = io.StringIO(), io.StringIO(), 0, logging.root.handlers[:]
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", ["lemlight.train", *SEARCH, *arguments]),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            train.main()
        except SystemExit as end:
            code = end.code
        finally:
            logging.root.handlers[:] = before
    (folder,) = (cwd / "multirun").iterdir()
    return code, out.getvalue(), err.getvalue(), folder


def states(folder):
    return [json.loads(path.read_text()) for path in folder.glob("*/state.json")]


def results(folder):
    return OmegaConf.to_container(OmegaConf.load(folder / "optimization_results.yaml"))


@pytest.fixture
def trainings(monkeypatch):
    """No trial trains: its validation figure is highest at beta = 0.001. The betas that were tried, in their order."""
    tried = []

    def fake(config, *_):
        tried.append(config.loss.beta)
        Path(config.output, "metrics.json").write_text("{}")
        return {"validation": 1 - abs(math.log10(config.loss.beta) + 3) / 10, "auroc": {"value": config.loss.beta}}

    monkeypatch.setattr(lemlight.recipe.train, "train", fake)
    return tried


def composed(*words):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", ["experiment=search", "dataset.root=somewhere", *words], return_hydra_config=True)
    return config


def ranges(config):
    """The keys of the search, each with its lowest and highest value, or with all of its choices."""
    words = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    for override in OverridesParser.create().parse_overrides(words):
        value = override.value()
        yield override.key_or_group, value.list if override.is_choice_sweep() else [value.start, value.end]


def test_the_search_varies_only_what_the_method_leaves_open():
    text = Path(conf_dir()).parent.joinpath("docs", "method.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in text.partition("## Readings")[2].splitlines() if row.startswith("|")]
    left_open = []
    for cells in (row for row in rows if re.search("open|reading", row[4])):
        for key in re.findall(r"`([a-z_.]+)`", cells[2]):
            left_open.append(left_open[-1].rpartition(".")[0] + key if key.startswith(".") else key)
    searched = list(composed().hydra.sweeper.params)
    assert len(searched) > 5
    assert not [key for key in searched if not any(f"{key}.".startswith(f"{one}.") for one in left_open)]


def test_every_range_holds_the_default_and_nothing_impossible():
    config = composed()
    for key, values in ranges(config):
        default = OmegaConf.select(config, key)
        assert default in values or values[0] < default < values[-1], key
        for value in values:
            changed = composed(f"{key}={value}", "output=run")
            with open_dict(changed):
                del changed["hydra"]
            check(changed, TrainConfig)


@pytest.mark.parametrize(
    ("monitor", "mode", "direction"), [("val/auroc", "max", "maximize"), ("val/loss", "min", "minimize")]
)
def test_the_direction_is_that_of_the_monitored_figure(monitor, mode, direction):
    config = composed(f"callbacks.checkpoint.monitor={monitor}", f"callbacks.checkpoint.mode={mode}")
    assert config.hydra.sweeper.direction == direction


def test_the_best_trial_is_that_of_the_highest_validation_figure(trainings, tmp_path):
    code, _, err, folder = search(tmp_path, "hydra.sweeper.n_trials=8")
    assert code == 0, err
    assert len(states(folder)) == len(set(trainings)) == 8
    best = max(states(folder), key=lambda state: state["result"])
    found = results(folder)
    assert found["best_value"] == best["result"]
    assert found["best_params"]["loss.beta"] == best["config"]["loss"]["beta"]
    assert found["best_params"]["optimizer.lr_head"] == best["config"]["optimizer"]["lr_head"]


def test_the_folders_of_drawn_values_are_short_and_named_by_the_command(trainings, tmp_path):
    folder = search(tmp_path, "hydra.sweeper.n_trials=3")[3]
    assert folder.name == "search+scale=small"
    jobs = [path.parent.name for path in folder.glob("*/state.json")]
    assert len(jobs) == 3
    assert all(len(name) <= 100 and name.startswith("callbacks.lambda_ramp.end_at=") for name in jobs)


def test_the_same_command_again_trains_nothing_and_finds_the_same(trainings, tmp_path):
    _, _, _, folder = search(tmp_path, "hydra.sweeper.n_trials=6")
    found, tried = results(folder), list(trainings)
    code, out, err, _ = search(tmp_path, "hydra.sweeper.n_trials=6")
    assert (code, out.count("done before, skipped")) == (0, 6), err
    assert (results(folder), trainings) == (found, tried)


def test_more_trials_go_on_from_those_that_are_done(trainings, tmp_path):
    search(tmp_path, "hydra.sweeper.n_trials=5")
    search(tmp_path, "hydra.sweeper.n_trials=8")
    in_two = list(trainings)
    (tmp_path / "whole").mkdir()
    search(tmp_path / "whole", "hydra.sweeper.n_trials=8")
    assert len(in_two) == 8
    assert trainings[8:] == in_two


def test_a_value_that_is_given_is_no_longer_searched(trainings, tmp_path):
    folder = search(tmp_path, "hydra.sweeper.n_trials=2", "loss.beta=0.01")[3]
    assert trainings == [0.01, 0.01]
    assert "loss.beta" not in results(folder)["best_params"]


def test_a_trial_that_fails_is_left_out_and_alone_runs_again(trainings, tmp_path, monkeypatch):
    fake, seen = lemlight.recipe.train.train, []

    def breaks_at_the_second(config, *arguments):
        seen.append(config.loss.beta)
        if len(seen) == 2:
            raise RuntimeError("out of luck")
        return fake(config, *arguments)

    monkeypatch.setattr(lemlight.recipe.train, "train", breaks_at_the_second)
    code, out, err, folder = search(tmp_path, "hydra.sweeper.n_trials=2")
    assert code == 2
    assert "lemlight: RuntimeError: out of luck" in err
    assert "1 of 2 jobs are not done" in err
    assert sorted(state["state"] for state in states(folder)) == ["done", "failed"]
    assert results(folder)["best_params"]["loss.beta"] == seen[0]
    assert "Traceback" not in out + err
    code, out, err, _ = search(tmp_path, "hydra.sweeper.n_trials=2")
    assert (code, out.count("done before, skipped")) == (0, 1), err
    assert seen[2:] == [seen[1]]
    assert [state["state"] for state in states(folder)] == ["done", "done"]


def test_a_real_search_goes_by_the_validation_split(tmp_path):
    code, _, err, folder = search(tmp_path, *TINY, "hydra.sweeper.n_trials=2")
    assert code == 0, err
    highest = []
    for log in folder.glob("*/logs/metrics.csv"):
        with log.open(newline="") as file:
            highest.append(max(float(row["val/auroc"]) for row in csv.DictReader(file)))
    assert len(highest) == 2
    assert results(folder)["best_value"] == pytest.approx(max(highest))
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation"]) for row in rows] == pytest.approx(sorted(highest, reverse=True))


def test_no_trial_sees_the_test_split(tmp_path):
    folder = search(tmp_path, *TINY, "trainer.max_epochs=1", "hydra.sweeper.n_trials=1")[3]
    (job,) = (path.parent for path in folder.glob("*/state.json"))
    assert json.loads((job / "metrics.json").read_text())["split"] == "val"
    with (job / "predictions.csv").open(newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"val"}


def test_a_search_whose_trials_all_fail_says_so_in_a_sentence(tmp_path, monkeypatch):
    def breaks(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(lemlight.recipe.train, "train", breaks)
    code, out, err, _ = search(tmp_path, "hydra.sweeper.n_trials=2")
    assert code == 2
    assert err.count("lemlight: RuntimeError: out of luck") == 2
    assert "lemlight: every trial of the search has failed" in err
    assert "Traceback" not in out + err

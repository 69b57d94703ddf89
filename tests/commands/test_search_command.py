"""experiment=search with Optuna: what it may vary, what it goes by, and that the same command finds its trials."""

import json
import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the search needs pip install 'lemlight[optuna]'")

from lemlight.cli import conf_dir
from lemlight.sweeps import jobs


@pytest.fixture
def search(lemlight_run, tmp_path):
    """Run the search with other arguments in tmp_path or a folder in it: what it printed, and its folder."""

    def search(*arguments, cwd=tmp_path, **options):
        words = ["experiment=search", "+scale=small", "hydra.sweeper.sampler.n_startup_trials=2"]
        words += ["callbacks.checkpoint.monitor=val/auroc", "callbacks.checkpoint.mode=max"]
        done = lemlight_run("train", *words, *arguments, cwd=cwd, **options)
        (folder,) = (cwd / "multirun").iterdir()
        return done, folder

    return search


def states(folder):
    return [json.loads(path.read_text()) for path in folder.glob("*/state.json")]


def results(folder):
    return OmegaConf.to_container(OmegaConf.load(folder / "optimization_results.yaml"))


@pytest.fixture
def betas(monkeypatch):
    """No trial trains: its validation figure is highest at beta = 0.001. The betas that were tried, in their order."""
    tried = []

    def fake(command, environment):
        (beta,) = (float(word.partition("=")[2]) for word in command if word.startswith("loss.beta="))
        tried.append(beta)
        folder = Path(json.loads(environment[jobs.JOB])["folder"])
        figure = {"auroc": {"value": beta}}
        (folder / "metrics.json").write_text(json.dumps(figure))
        (folder / jobs.OUTCOME).write_text(json.dumps({"result": 1 - abs(math.log10(beta) + 3) / 10}))
        return 0

    monkeypatch.setattr(jobs, "run_to_its_end", fake)
    return tried


def composed(*words):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", ["experiment=search", "dataset.root=somewhere", *words], return_hydra_config=True)


def test_every_range_holds_the_default():
    config = composed()
    words = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    for override in OverridesParser.create().parse_overrides(words):
        value, default = override.value(), OmegaConf.select(config, override.key_or_group)
        assert default in value.list if override.is_choice_sweep() else value.start <= default <= value.end


def test_the_best_trial_is_that_of_the_highest_validation_figure(betas, search):
    _, folder = search("hydra.sweeper.n_trials=4")
    assert len(states(folder)) == len(set(betas)) == 4
    best = max(states(folder), key=lambda state: state["result"])
    found = results(folder)
    assert found["best_value"] == best["result"]
    assert found["best_params"]["loss.beta"] == best["config"]["loss"]["beta"]
    assert found["best_params"]["optimizer.lr_head"] == best["config"]["optimizer"]["lr_head"]
    names = [path.parent.name for path in folder.glob("*/state.json")]
    assert all(len(name) <= 100 and name.startswith("callbacks.lambda_ramp.end_at-") for name in names)


def test_the_same_command_trains_nothing_again_and_more_trials_go_on_from_there(betas, search, tmp_path):
    _, folder = search("hydra.sweeper.n_trials=3")
    found, tried = results(folder), list(betas)
    done, _ = search("hydra.sweeper.n_trials=3")
    assert done.out.count("done before, skipped") == 3
    assert (results(folder), betas) == (found, tried)
    search("hydra.sweeper.n_trials=4")
    (tmp_path / "whole").mkdir()
    search("hydra.sweeper.n_trials=4", cwd=tmp_path / "whole")
    assert len(betas) == 8
    assert betas[4:] == betas[:4]


def test_a_trial_that_fails_is_left_out_and_alone_runs_again(betas, search, monkeypatch):
    fake = jobs.run_to_its_end
    monkeypatch.setattr(jobs, "run_to_its_end", lambda *call: 1 if len(betas) == 1 else fake(*call))
    done, folder = search("hydra.sweeper.n_trials=2", fails=True)
    assert "1 of 2 jobs are not done" in done.err
    assert sorted(state["state"] for state in states(folder)) == ["done", "failed"]
    assert results(folder)["best_params"]["loss.beta"] == betas[0]
    monkeypatch.setattr(jobs, "run_to_its_end", fake)
    done, _ = search("hydra.sweeper.n_trials=2")
    assert done.out.count("done before, skipped") == 1
    assert len(betas) == 2
    assert [state["state"] for state in states(folder)] == ["done", "done"]


def test_a_search_whose_trials_all_fail_says_so_in_a_sentence(search, monkeypatch):
    monkeypatch.setattr(jobs, "run_to_its_end", lambda *_: 1)
    done, _ = search("hydra.sweeper.n_trials=2", fails=True)
    assert "lemlight: every trial of the search has failed" in done.err


def test_a_real_search_goes_by_the_validation_split_and_sees_no_other(search, phantom):
    import pandas as pd

    _, folder = search(*phantom, "trainer.max_epochs=2", "hydra.sweeper.n_trials=2")
    logs = [pd.read_csv(path)["val/auroc"] for path in folder.glob("*/logs/metrics.csv")]
    highest = sorted((log.max() for log in logs), reverse=True)
    assert len(highest) == 2
    assert results(folder)["best_value"] == pytest.approx(highest[0])
    assert list(pd.read_csv(folder / "table.csv")["validation"]) == pytest.approx(highest)
    for job in (path.parent for path in folder.glob("*/state.json")):
        assert json.loads((job / "metrics.json").read_text())["split"] == "val"
        assert set(pd.read_csv(job / "predictions.csv")["split"]) == {"val"}

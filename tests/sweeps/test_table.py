import json
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from lemlight.sweeps.table import JobState, SweepTable, best_first, expected_jobs, markdown, read_rows, write_table
from tests.sweeps.observed import table

FIGURE = {"value": 0.5, "low": 0.25, "high": 0.75}
METRICS = {"auroc": FIGURE, "acc": FIGURE, "f1": {"value": None, "low": None, "high": None, "reason": "one class"}}


def add_job(sweep, overrides, state="done", error=None):
    folder = sweep / "+".join(overrides)
    folder.mkdir(parents=True)
    result = 0.8125 if state == "done" else None
    JobState(state, [*overrides, "batch_size=4"], {"output": str(folder)}, error=error, result=result).write(folder)
    (folder / "metrics.json").write_text(json.dumps(METRICS))


@pytest.fixture
def sweep(tmp_path):
    """A job that is done, one that failed, one that was killed, and one that never started."""
    add_job(tmp_path / "sweep", ["pooling=gap", "seed=0"])
    add_job(tmp_path / "sweep", ["pooling=gap", "seed=1"], "failed", "no room\n  on this disk")
    add_job(tmp_path / "sweep", ["pooling=lem", "seed=0"], "running")
    return tmp_path / "sweep"


@pytest.fixture
def command(sweep):
    basic = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    hydra = {
        "sweeper": {"_target_": basic, "params": {"pooling": "gap,lem"}},
        "overrides": {"task": ["seed=0,1", "batch_size=4"]},
        "sweep": {"dir": str(sweep)},
    }
    return OmegaConf.create({"hydra": hydra})


def test_every_job_has_a_row_also_one_that_never_started_and_only_one_that_is_done_has_figures(sweep, command):
    with pytest.raises(SystemExit) as end:
        SweepTable().on_multirun_end(command)
    assert end.value.code == 2
    rows = table(sweep)
    assert list(rows[0])[:4] == ["pooling", "seed", "state", "validation"]
    assert [row["state"] for row in rows] == ["done", "failed", "unfinished", "missing"]
    assert [(rows[-1]["pooling"], rows[-1]["seed"], rows[-1]["folder"])] == [("lem", "1", "")]
    assert [row["auroc_value"] for row in rows] == ["0.5", "", "", ""]
    assert [row["auroc_low"] for row in rows] == ["0.25", "", "", ""]
    assert [row["validation"] for row in rows] == ["0.8125", "", "", ""]
    assert rows[0]["f1_value"] == "" == rows[0]["dsc_value"]
    assert rows[1]["error"] == "no room on this disk"


def test_the_end_of_a_sweep_shows_the_table_and_says_what_is_open(sweep, command, capsys):
    with pytest.raises(SystemExit):
        SweepTable().on_multirun_end(command)
    said = capsys.readouterr()
    assert "3 of 4 jobs are not done" in said.err
    text = (sweep / "table.md").read_text()
    assert text in said.out
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]] == [
        "gap", "0", "done", "0.81", "0.50 [0.25, 0.75]", "0.50", "-", "-", "-", "-",
    ]  # fmt: skip
    assert "- pooling=gap+seed=1: no room on this disk" in text.splitlines()


def test_a_complete_sweep_ends_well(tmp_path, command, capsys):
    for pooling in ("gap", "lem"):
        for seed in (0, 1):
            add_job(tmp_path / "sweep 2", [f"pooling={pooling}", f"seed={seed}"])
    command.hydra.sweep.dir = str(tmp_path / "sweep 2")
    SweepTable().on_multirun_end(command)
    assert capsys.readouterr().err == ""


def test_a_job_whose_lock_is_held_is_running(sweep):
    with FileLock(sweep / "pooling=lem+seed=0" / ".lock"):
        assert [row["state"] for row in read_rows(sweep)] == ["done", "failed", "running"]


def test_a_state_that_cannot_be_read_is_a_failure_with_a_remedy(sweep):
    (sweep / "pooling=gap+seed=0" / "state.json").write_text("{")
    (row,) = [row for row in read_rows(sweep) if row["folder"] == "pooling=gap+seed=0"]
    assert row["state"] == "failed"
    assert "remove it" in row["error"]


def test_a_moved_sweep_is_read_where_it_is_now(sweep, tmp_path):
    moved = Path(sweep.rename(tmp_path / "moved"))
    assert read_rows(moved)[0]["auroc_low"] == FIGURE["low"]


def test_the_jobs_of_a_sweeper_that_draws_them_are_not_foreseen(command):
    command.hydra.sweeper._target_ = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    assert expected_jobs(command) == []


@pytest.mark.parametrize(("direction", "jobs"), [("maximize", "bac"), ("minimize", "abc")])
def test_the_best_trial_of_a_search_stands_first(direction, jobs):
    rows = [{"folder": "c"}, {"folder": "a", "validation": 0.25}, {"folder": "b", "validation": 0.75}]
    assert "".join(row["folder"] for row in best_first(rows, direction)) == jobs


def test_a_drawn_number_is_whole_in_the_csv_and_short_in_the_markdown(tmp_path):
    row = {"folder": "a", "overrides": {"loss.beta": "0.00027417736752420927"}, "state": "done"}
    write_table([row], tmp_path)
    assert table(tmp_path)[0]["loss.beta"] == "0.00027417736752420927"
    assert markdown([row]).splitlines()[2].split()[1] == "0.000274"
    assert markdown([]).splitlines()[0].startswith("| state |")

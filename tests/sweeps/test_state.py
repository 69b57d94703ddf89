import json

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from lemlight.sweeps.state import (
    JobState,
    SweepTable,
    best_first,
    differences,
    expected_jobs,
    read_rows,
    read_state,
    write_table,
)
from lemlight.text import folded, markdown_table
from tests.sweeps.observed import table

FIGURE = {"value": 0.5, "low": 0.25, "high": 0.75}
METRICS = {"auroc": FIGURE, "acc": FIGURE, "f1": {"value": None, "low": None, "high": None, "reason": "one class"}}


def test_a_state_is_read_as_it_was_written_and_a_broken_one_is_none(tmp_path):
    state = JobState("running", ["seed=0"], {"seed": 0, "names": ["a", "b"]})
    state.write(tmp_path)
    assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    for text in ("", "{", "[]", '{"state": "done", "unknown": 1}'):
        (tmp_path / "state.json").write_text(text)
        assert read_state(tmp_path) is None


def test_differences_are_those_that_change_a_figure():
    before = {"seed": 0, "workers": 2, "trainer": {"max_epochs": 3, "enable_progress_bar": True}, "old": 1}
    wanted = {"seed": 0, "workers": 0, "trainer": {"max_epochs": 4, "enable_progress_bar": False}, "new": None}
    assert differences(before, wanted) == ["new", "old", "trainer.max_epochs"]
    assert differences(before, before) == []
    assert differences({"logger": {"wandb": {"mode": "online"}}}, {"logger": {"wandb": None}}) == []


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


def test_every_job_has_a_row_only_one_that_is_done_has_figures_and_what_is_open_is_said(
    sweep, command, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        SweepTable().on_multirun_end(command)
    assert end.value.code == 2
    rows = table(sweep)
    assert list(rows[0])[:4] == ["pooling", "seed", "state", "validation"]
    assert [row["state"] for row in rows] == ["done", "failed", "unfinished", "missing"]
    assert [(rows[-1]["pooling"], rows[-1]["seed"], rows[-1]["folder"])] == [("lem", "1", "")]
    for column, value in {"auroc_value": "0.5", "auroc_low": "0.25", "validation": "0.8125", "f1_value": ""}.items():
        assert [row[column] for row in rows] == [value, "", "", ""]
    assert rows[1]["error"] == "no room on this disk"
    said, text = capsys.readouterr(), (sweep / "table.md").read_text()
    assert "3 of 4 jobs are not done" in said.err
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


def test_a_moved_sweep_is_read_where_it_is_a_locked_job_is_running_and_a_broken_state_has_a_remedy(sweep, tmp_path):
    moved = sweep.rename(tmp_path / "moved")
    assert read_rows(moved)[0]["auroc_low"] == FIGURE["low"]
    (moved / "pooling=gap+seed=0" / "state.json").write_text("{")
    with FileLock(moved / "pooling=lem+seed=0" / ".lock"):
        rows = read_rows(moved)
    assert [row["state"] for row in rows] == ["failed", "failed", "running"]
    assert "remove it" in rows[0]["error"]


def test_the_jobs_of_a_sweeper_that_draws_them_are_not_foreseen(command):
    command.hydra.sweeper._target_ = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    assert expected_jobs(command) == []


@pytest.mark.parametrize(("direction", "jobs"), [("maximize", "bac"), ("minimize", "abc")])
def test_the_best_trial_of_a_search_stands_first(direction, jobs):
    rows = [{"folder": "c"}, {"folder": "a", "validation": 0.25}, {"folder": "b", "validation": 0.75}]
    assert "".join(row["folder"] for row in best_first(rows, direction)) == jobs


def test_a_drawn_number_is_whole_in_the_csv_and_short_in_the_markdown(tmp_path):
    row = {"folder": "a", "overrides": {"loss.beta": "0.00027417736752420927"}, "state": "done"}
    assert write_table([row], tmp_path).splitlines()[2].split()[1] == "0.000274"
    assert table(tmp_path)[0]["loss.beta"] == "0.00027417736752420927"
    assert write_table([], tmp_path).splitlines()[0].startswith("| state |")


@pytest.mark.parametrize("width", [30, 40, 60, 90])
def test_a_table_keeps_to_the_width_of_the_terminal_and_every_part_names_its_rows(width, monkeypatch):
    rows = [["pooling", "state", *(f"figure {n}" for n in range(7))]]
    rows += [[name, "done", *(f"{name} {n}" for n in range(7))] for name in ("gap", "lem")]
    whole = f"{markdown_table(rows)}\nFailed:\n"
    monkeypatch.setenv("COLUMNS", str(width))
    text = folded(whole, through="state")
    assert max(map(len, text.splitlines())) <= width
    assert text.endswith("\nFailed:\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert {cell for line in cells for cell in line} >= {cell for row in rows for cell in row}
    assert {line[0].strip("-") for line in cells} == {"pooling", "gap", "lem", ""}
    monkeypatch.setenv("COLUMNS", "200")
    assert folded(whole, through="state") == whole

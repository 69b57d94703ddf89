import pytest

from lemlight.errors import LemlightError
from lemlight.reporting.runs import find_runs
from tests.layouts.run_folders import config_of, predictions_of, write_run, write_state


def states(root):
    return {run.name: run.state for run in find_runs(root)}


def test_runs_at_any_depth_are_found_and_old_results_are_not(tmp_path):
    write_run(write_run(tmp_path / "2026/01/a") / "inner")  # a folder inside of a run is no other run
    write_run(tmp_path / "b")
    write_run(tmp_path / "sweep/replaced/2026-01-01_00-00-00")
    write_run(tmp_path / ".hidden/c")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/config.yaml").write_text("height: 3\n")
    assert states(tmp_path) == {"2026/01/a": "done", "b": "done"}
    assert [run.number for run in find_runs(tmp_path)] == [1, 2]
    assert states(tmp_path / "b") == {".": "done"}


def test_jobs_that_are_not_done_say_why(tmp_path):
    write_state(tmp_path / "failed", "failed", "CUDA out of memory")
    write_state(tmp_path / "started", "running", config=config_of())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.json").write_text("{")
    (write_run(tmp_path / "killed") / "metrics.json").unlink()
    runs = {run.name: run for run in find_runs(tmp_path)}
    found = {name: run.state for name, run in runs.items()}
    assert found == {"failed": "failed", "started": "unfinished", "broken": "damaged", "killed": "unfinished"}
    assert runs["failed"].reason == "CUDA out of memory"
    assert runs["failed"].overrides == ("pooling=gap", "seed=1")
    assert runs["started"].config["seed"] == 0


def test_results_that_a_job_wrote_elsewhere_are_read_there(tmp_path):
    elsewhere = write_run(tmp_path / "elsewhere", dice=0.5)
    write_state(tmp_path / "sweep/0", "done", config=config_of(output=str(elsewhere)))
    (run,) = find_runs(tmp_path / "sweep")
    assert (run.name, run.state) == ("0", "done")
    assert run.dice().max() == 0.5


HEAD = "image_id,patient_id,label,probability\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", '{"auroc": 1}'),
        ("metrics.json", '{"auroc": {"value": 1}}'),
        ("metrics.json", "\x00\xff"),
        ("predictions.csv", ""),
        ("predictions.csv", HEAD),
        ("predictions.csv", f"{HEAD}a,p,2,0.5\n"),
        ("predictions.csv", f"{HEAD}a,p,1,7\n"),
        ("predictions.csv", f"{HEAD}a,p,1,0.5\na,p,1,0.5\n"),
        ("predictions.csv", f"{HEAD},p,1,0.5\n"),
        ("config.yaml", "a: [\n"),
    ],
)
def test_a_damaged_file_is_listed_not_fatal(tmp_path, file, text):
    (write_run(tmp_path / "a") / file).write_text(text)
    write_run(tmp_path / "b")
    assert states(tmp_path) == {"a": "damaged", "b": "done"}
    assert file in find_runs(tmp_path)[0].reason


def test_what_is_missing_or_damaged_beside_the_results_is_empty(tmp_path):
    run = write_run(tmp_path / "a", dice=0.5)
    for name in ("leaks.json", "logs/metrics.csv", "localization_images.csv"):
        (run / name).write_text('{"splits": [1]}')
    (found,) = find_runs(tmp_path)
    assert (found.leaks(), found.dice(), len(found.log())) == ({}, None, 0)


def test_identifiers_stay_text(tmp_path):
    numbers = predictions_of().assign(image_id=[f"{i:04}" for i in range(80)])
    write_run(tmp_path / "a", predictions=numbers)
    assert find_runs(tmp_path)[0].predictions["image_id"].iloc[7] == "0007"


@pytest.mark.parametrize("make", [False, True])
def test_no_run_is_said(tmp_path, make):
    if make:
        (tmp_path / "none/.hydra").mkdir(parents=True)
    with pytest.raises(LemlightError, match="set runs=DIR"):
        find_runs(tmp_path / "none")

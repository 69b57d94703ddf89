import json

import pytest

from lemlight.errors import LemlightError
from lemlight.reporting.comparison_page import command_of, confusion_of, leaks_of, settings_table, why_not_done
from lemlight.reporting.runs import find_runs
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_state, write_sweep


def states(root):
    return {run.name: run.state for run in find_runs(root)}


def test_runs_at_any_depth_are_found_and_old_results_are_not(tmp_path):
    write_run(tmp_path / "2026/01/a")
    write_run(tmp_path / "b")
    write_run(tmp_path / "sweep/replaced/2026-01-01_00-00-00")
    write_run(tmp_path / ".hidden/c")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/config.yaml").write_text("height: 3\n")
    assert states(tmp_path) == {"2026/01/a": "done", "b": "done"}
    assert [run.number for run in find_runs(tmp_path)] == [1, 2]
    assert states(tmp_path / "b") == {".": "done"}


def test_a_folder_inside_a_run_is_no_other_run(tmp_path):
    write_run(write_run(tmp_path / "a") / "inner")
    assert list(states(tmp_path)) == ["a"]


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


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.json", "{"),
        ("metrics.json", "[]"),
        ("metrics.json", '{"auroc": 1}'),
        ("metrics.json", "\x00\xff"),
        ("predictions.csv", ""),
        ("predictions.csv", "image_id,patient_id,label,probability\n"),
        ("predictions.csv", "image_id,patient_id,label,probability\na,p,2,0.5\n"),
        ("predictions.csv", "image_id,patient_id,label,probability\na,p,1,7\n"),
        ("predictions.csv", "image_id,patient_id,label,probability\na,p,1,0.5\na,p,1,0.5\n"),
        ("predictions.csv", "image_id,patient_id,label,probability\n,p,1,0.5\n"),
        ("config.yaml", "a: [\n"),
    ],
)
def test_a_damaged_file_is_listed_not_fatal(tmp_path, file, text):
    (write_run(tmp_path / "a") / file).write_text(text)
    write_run(tmp_path / "b")
    assert states(tmp_path) == {"a": "damaged", "b": "done"}
    assert file in find_runs(tmp_path)[0].reason


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


def test_confusion_counts_calls_above_the_threshold(tmp_path):
    predictions = predictions_of(8).assign(probability=[0.1, 0.5, 0.9, 0.4, 0.6, 0.2, 0.51, 0.49])
    run = find_runs(write_run(tmp_path / "a", predictions=predictions))[0]
    assert confusion_of(run, "LEM", "seed 0").counts == (2, 2, 1, 3)


def test_the_command_hides_paths(tmp_path):
    root = write_sweep(tmp_path / "s", ("lem",), (0,))
    command = command_of(find_runs(root)[0])
    assert command == "python -m lemlight.train pooling=lem seed=0 dataset.root=..."
    assert command_of(find_runs(write_state(tmp_path / "f", "failed"))[0]).endswith("pooling=gap seed=1")


def test_differing_settings_leave_paths_and_the_machine_out(tmp_path):
    write_run(tmp_path / "a", config=config_of("lem", 0, workers=3))
    write_run(tmp_path / "b", config=config_of("gap", 0, dataset={"root": "/elsewhere"}))
    _, settings = settings_table(find_runs(tmp_path))
    assert dict(settings) == {"pooling.name": ["lem", "gap"], "pooling.aggregate": ["mean", "(none)"]}


def test_equal_leak_reports_stand_once_without_names(tmp_path):
    write_sweep(tmp_path)
    changed = tmp_path / "pooling=gap+seed=0/leaks.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"warnings": []}))
    (tmp_path / "pooling=gap+seed=1/leaks.json").write_text("{")
    reports = leaks_of(find_runs(tmp_path))
    assert [report.numbers for report in reports] == [(1,), (3, 4)]
    assert reports[0].in_several == "1 patients, 0 breasts, 0 files"
    assert NAME not in repr(reports)


def test_an_error_loses_every_word_that_may_be_a_name(tmp_path):
    message = (
        f"/data/{NAME}/1.dcm: image {NAME}_L (patient 19670312): cannot be read; RuntimeError: CUDA out of memory, "
        "set batch_size=8 or dataset.root=C:\\scans"
    )
    run = find_runs(write_state(tmp_path / "f", "failed", message))[0]
    said = why_not_done(run)
    assert said == (
        "The training failed: … image … (patient … cannot be read; RuntimeError: CUDA out of memory, "
        "set batch_size=8 or …"
    )

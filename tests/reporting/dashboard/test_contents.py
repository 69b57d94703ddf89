import pytest

from lemlight.errors import LemlightError
from lemlight.reporting.wandb_dashboard import MOST_AXES, contents_of, logged_runs


def test_the_runs_are_found_with_what_a_dashboard_can_show(write_run):
    folders = [write_run("a", "lem"), write_run("b", "gap", seed=1, pictures=("sheet",))]
    contents = contents_of(logged_runs(folders))
    assert (contents.project, contents.split) == ("lemlight", "test")
    assert contents.run_ids == ("id-a", "id-b")
    assert contents.poolings == ("lem", "gap")
    assert contents.pictures == ("overlays", "sheet", "roc")
    assert contents.figures == ("auroc", "dsc", "acc", "sensitivity", "specificity", "f1")
    assert contents.column("auroc") == "test/auroc"


def test_the_axes_are_what_differs_and_the_open_settings_and_no_path(write_run):
    folders = [write_run("a", loss__beta=0.0, dataset__root="/x"), write_run("b", trainer__max_epochs=9, workers=4)]
    axes = contents_of(logged_runs(folders)).settings
    assert axes[:3] == ("pooling.name", "loss.beta", "trainer.max_epochs")
    assert {"seed", "pooling.norm", "dataset.split.fold"} <= set(axes)
    assert not {"dataset.root", "workers", "output", "logger.wandb.project"} & set(axes)
    assert "callbacks.lambda_ramp.end_at" not in axes, "no training has it"


def test_many_differing_settings_stay_readable(write_run):
    many = {f"trainer__key{number}": number for number in range(20)}
    axes = contents_of(logged_runs([write_run("a"), write_run("b", **many)])).settings
    assert len(axes) == MOST_AXES
    assert axes[0] == "pooling.name"


def test_what_was_not_logged_or_is_not_done_is_passed_over(write_run):
    unfinished = write_run("c")
    (unfinished / "metrics.json").unlink()
    [run] = logged_runs([write_run("a"), write_run("b", wandb=None), unfinished])
    assert run.run_id == "id-a"
    assert [path.name for path in run.offline] == ["offline-run-20261123-id-a"]


def test_without_any_logged_training_it_is_said_how_to_log(write_run):
    with pytest.raises(LemlightError, match=r"none of the 1 finished trainings .* logger=wandb"):
        logged_runs([write_run("a", wandb=None)])


def test_two_projects_are_no_dashboard(write_run):
    with pytest.raises(LemlightError, match=r"several W&B projects \(one, two\)"):
        logged_runs([write_run("a", wandb="one"), write_run("b", wandb="two")])

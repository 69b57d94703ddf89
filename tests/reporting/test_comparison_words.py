"""What the comparison page warns of."""

from pathlib import Path

from lemlight.reporting.comparison_page import notes_of
from lemlight.reporting.runs import TrainingRun, find_methods
from tests.layouts.run_folders import config_of


def notes(*kinds, split="test", repeat="seed"):
    """The warnings over trainings of (pooling, seed)."""
    configs = [config_of(*kind) for kind in kinds]
    runs = [
        TrainingRun(number, "", Path(), "done", config=config, summary={"split": split})
        for number, config in enumerate(configs, start=1)
    ]
    methods = find_methods(configs)
    return notes_of(runs, methods.names, methods, repeat)


def test_two_methods_of_two_seeds_each_need_no_warning():
    assert notes(("lem", 0), ("lem", 1), ("gap", 0), ("gap", 1)) == []


def test_one_seed_speaks_of_networks_and_not_of_methods():
    (note,) = notes(("lem", 0), ("gap", 0))
    assert "one seed" in note
    assert notes(("lem", 0), ("gap", 0), repeat="fold") == []


def test_a_seed_that_is_missing_is_named():
    found = " ".join(notes(("lem", 0), ("lem", 1), ("gap", 0)))
    assert "GAP has one training only" in found
    assert "different numbers of trainings" in found


def test_one_method_has_nothing_to_be_compared_with():
    assert notes(("lem", 0)) == ["There is one training only: nothing to compare it with."]
    assert notes(("lem", 0), ("lem", 1)) == ["There is one method only: nothing to compare it with."]


def test_figures_of_the_validation_split_flatter():
    (note,) = notes(("lem", 0), ("lem", 1), ("gap", 0), ("gap", 1), split="val")
    assert note.startswith("4 of the 4 trainings report the validation split")

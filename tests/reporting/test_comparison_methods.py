import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemlight.reporting.runs import find_methods
from tests.layouts.run_folders import config_of


def test_poolings_and_seeds():
    found = find_methods([config_of("lem", 0), config_of("lem", 1), config_of("gap", 0), config_of("max_min", 5)])
    assert found.names == ("LEM", "LEM", "GAP", "max-min")
    assert found.keys == ("pooling.name",)
    assert not found.warning()
    assert "pooling.name" in found.sentence()


def test_backbone_and_pooling():
    other = {"name": "densenet169"}
    found = find_methods([config_of(p, 0, backbone=b) for p in ("lem", "gap") for b in ({}, other)])
    assert found.names == ("LEM, ResNet-18", "LEM, DenseNet-169", "GAP, ResNet-18", "GAP, DenseNet-169")


def test_a_value_is_named_only_where_it_tells_methods_apart():
    found = find_methods([config_of("lem"), config_of("lem", loss={"beta": 0.0}), config_of("gap")])
    assert found.names == ("LEM, loss.beta = 0.001", "LEM, loss.beta = 0.0", "GAP")
    assert found.keys == ("pooling.name", "loss.beta")


def test_a_number_that_a_search_has_drawn_is_short_unless_methods_would_become_one():
    def names(*betas):
        return find_methods([config_of("lem", loss={"beta": beta}) for beta in betas]).names

    assert names(0.00027417736752420927, 12.3456789) == ("LEM, loss.beta = 0.000274", "LEM, loss.beta = 12.3")
    assert names(1.23456789, 1.23456788) == ("LEM, loss.beta = 1.23456789", "LEM, loss.beta = 1.23456788")
    assert names(0.0001, 1.5) == ("LEM, loss.beta = 0.0001", "LEM, loss.beta = 1.5")


def test_what_changes_with_the_methods_is_warned_of():
    found = find_methods([config_of("lem"), config_of("gap", trainer={"max_epochs": 60})])
    assert found.names == ("LEM", "GAP")
    assert found.besides == ("trainer.max_epochs",)
    assert "trainer.max_epochs" in found.warning()


def test_folds_the_machine_and_the_drawing_of_lesions_make_no_method():
    fold = {"split": {"scheme": "kfold", "seed": 0, "fold": 3}}
    same = [
        config_of(dataset={"split": {"scheme": "kfold", "seed": 0, "fold": 0}}),
        config_of(dataset=fold),
        config_of(dataset=fold, seed=9, workers=8, trainer={"accelerator": "gpu"}, localization={"compare": ["cam"]}),
    ]
    found = find_methods(same)
    assert set(found.names) == {"LEM"}
    assert found.keys == ()
    assert "one method" in found.sentence()


def test_another_split_is_another_method_and_a_path_is_never_one():
    other = {"split": {"scheme": "patient", "seed": 7, "fold": 0}}
    found = find_methods([config_of(), config_of(dataset=other), config_of(dataset={"root": "/secret"})])
    assert found.keys == ("dataset.split.seed",)
    assert "secret" not in repr(found)


def test_a_setting_that_an_older_version_lacks():
    found = find_methods([config_of(), config_of(loss={"new": 1})])
    assert found.names == ("LEM, loss.new = (none)", "LEM, loss.new = 1")


@pytest.mark.parametrize("configs", [[], [{}], [{"pooling": "lem"}, {"pooling": None}]])
def test_odd_configurations_have_names(configs):
    assert len(find_methods(configs).names) == len(configs)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=12))
def test_methods_are_alike_exactly_where_all_settings_are(values):
    configs = [
        config_of(["lem", "gap", "gmp"][a], seed=number, loss={"beta": b}, trainer={"max_epochs": c})
        for number, (a, b, c) in enumerate(values)
    ]
    names = find_methods(configs).names
    for one, first in zip(names, values, strict=True):
        for other, second in zip(names, values, strict=True):
            assert (one == other) == (first == second)

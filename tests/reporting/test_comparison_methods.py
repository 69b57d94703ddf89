import shutil

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemlight.reporting.methods import compare_runs, find_methods
from lemlight.reporting.runs import find_runs
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_sweep


def chosen(pooling="lem", backbone="resnet18", **changes):
    return config_of(pooling, choices={"backbone": backbone}, **changes)


def beta(value):
    return config_of(loss={"beta": value})


FOLD = {"split": {"scheme": "kfold", "seed": 0, "fold": 3}}


@pytest.mark.parametrize(
    ("configs", "names", "keys"),
    [
        ([config_of("lem", 0), config_of("lem", 1), config_of("topmean", 5)], ("lem", "lem", "topmean"), ("pooling",)),
        (
            [chosen(p, b) for p in ("lem", "gap") for b in ("resnet18", "tiny")],
            ("lem, resnet18", "lem, tiny", "gap, resnet18", "gap, tiny"),
            ("pooling", "backbone"),
        ),
        # a value is named only where it tells methods apart
        ([beta(0.001), beta(0.0), config_of("gap")], ("lem, loss.beta=0.001", "lem, loss.beta=0.0", "gap"), None),
        # a number that a search has drawn is short, unless methods would become one
        ([beta(0.00027417736752420927), beta(12.3456789)], ("lem, loss.beta=0.000274", "lem, loss.beta=12.3"), None),
        ([beta(1.23456789), beta(1.23456788)], ("lem, loss.beta=1.23456789", "lem, loss.beta=1.23456788"), None),
        # what an older version lacks
        ([config_of(), config_of(loss={"new": 1})], ("lem, loss.new=(none)", "lem, loss.new=1"), None),
        # another class under the same file, of which no module is told
        (
            [config_of(), config_of(loss={"_target_": "hospital.losses.Focal"})],
            ("lem, loss.class=CombinedLoss", "lem, loss.class=Focal"),
            None,
        ),
        # no method: folds, the machine, how lesions are drawn, a path
        (
            [
                config_of(dataset={"split": {"scheme": "kfold", "seed": 0, "fold": 0}}),
                config_of(dataset=FOLD),
                config_of(dataset=FOLD, seed=9, workers=8, trainer={"accelerator": "gpu"}),
                config_of(dataset={**FOLD, "root": "/secret"}, localization={"compare": ["cam"]}),
            ],
            ("lem",) * 4,
            (),
        ),
        ([config_of(), config_of(dataset={"split": {"scheme": "patient", "seed": 7}})], None, ("dataset.split.seed",)),
    ],
)
def test_a_method_is_named_by_what_differs(configs, names, keys):
    found = find_methods(configs)
    assert names in (None, found.names)
    assert keys in (None, found.keys)
    assert found.besides == ()


def test_runs_of_before_choices_are_named_by_their_sections():
    old = [{"pooling": {"name": name}, "backbone": {"name": "resnet18"}, "seed": 0} for name in ("lem", "gap")]
    assert find_methods(old).names == ("lem", "gap")
    assert find_methods(old).keys == ("pooling",)


def test_what_changes_with_the_methods_is_told():
    own = {"choices": {"backbone": "tiny"}, "backbone": {"_target_": "own.Tiny"}}
    other = config_of("gap", **own, trainer={"max_epochs": 60})
    found = find_methods([config_of("lem"), other])
    assert found.names == ("lem", "gap")
    assert found.besides == ("backbone", "trainer.max_epochs")


@pytest.mark.parametrize("configs", [[], [{}], [{"pooling": "lem"}, {"pooling": None}], [{"choices": "none"}]])
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


def compared(root, resamples=1000):
    return compare_runs(find_runs(root), resamples)


def without_dice(root):
    (root / "pooling=gap+seed=1/localization_images.csv").unlink()


def dice_of_other_images(root):
    path = root / "pooling=gap+seed=1/localization_images.csv"
    rows = pd.read_csv(path)
    rows.loc[rows.index[:3], "dsc"] = 0.5
    rows.to_csv(path, index=False)


def fewer_images(root):
    write_run(root / "z", config=config_of("gmp"), predictions=predictions_of(60))


def other_labels(root):
    write_run(
        root / "z", config=config_of("gmp"), predictions=predictions_of().assign(label=lambda rows: 1 - rows["label"])
    )


def the_same_twice(root):
    shutil.copytree(root / "pooling=gap+seed=0", root / "copy")


@pytest.mark.parametrize(
    ("change", "still", "said"),
    [
        (without_dice, True, "Dice is not compared: run 2 left none"),
        (
            dice_of_other_images,
            True,
            "these methods: 2 images with a Dice in some methods only",
        ),
        (fewer_images, False, "gmp (seed 0) lacks 20 of 80"),
        (other_labels, False, "80 images with another label"),
        (the_same_twice, False, "Runs 1 and 2 are both gap with seed 0"),
    ],
)
def test_what_cannot_be_compared_is_said_without_names(sweep, tmp_path, change, still, said):
    shutil.copytree(sweep, tmp_path / "sweep")
    change(tmp_path / "sweep")
    found = compared(tmp_path / "sweep")
    (note,) = found.notes
    assert said in note
    assert (found.comparison is not None) == still
    assert NAME not in note


def test_too_few_resamples_are_said(tmp_path):
    found = compared(write_sweep(tmp_path, ("lem", "gap", "gmp", "rgp", "ggp", "lse"), (0,)), resamples=100)
    assert found.comparison is None
    assert "resamples" in found.notes[-1]


@pytest.mark.parametrize("second_seed", [0, 1])
def test_folds_together_are_one_method_of_one_seed(tmp_path, second_seed):
    whole = predictions_of(error=0.3)
    for pooling in ("lem", "gap"):
        for fold, seed in ((0, 0), (1, second_seed)):
            config = config_of(pooling, seed, dataset={"split": {"scheme": "kfold", "seed": 0, "fold": fold}})
            part = whole[40 * fold : 40 * fold + 40]
            write_run(tmp_path / f"{pooling}{fold}", config=config, predictions=part)
    found = compared(tmp_path)
    assert {*found.groups} == {"lem", "gap"}
    if second_seed:
        assert found.comparison is None
        assert "seed and fold" in found.notes[0]
    else:
        assert (found.comparison.repeat, found.comparison.images) == ("fold", 80)


def test_the_threshold_of_each_run_decides_its_predictions(tmp_path):
    for threshold in (0.5, 0.999):
        config = config_of(threshold=threshold)
        write_run(tmp_path / str(threshold), config=config, predictions=predictions_of(seed=1))
    metrics = compared(tmp_path).comparison.values
    found = {one.method: one.estimate.value for one in metrics if one.metric == "sensitivity"}
    assert found["lem, threshold=0.5"] > 0.5
    assert found["lem, threshold=0.999"] == 0

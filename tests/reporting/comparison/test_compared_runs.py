"""From run folders to a table of methods: which runs there are, what their methods are called, how they compare."""

import json
import os
import shutil

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.reporting.comparison.comparison_page import shown_differences
from lemlight.reporting.comparison.methods import compare_runs, find_methods
from lemlight.reporting.comparison.runs import find_runs
from lemlight.reporting.comparison.tables import (
    method_table,
    shown_best,
    table_latex,
    table_markdown,
    tables_of,
    write_tables,
)
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_state, write_sweep


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
    write_state(tmp_path / "broken", "done")
    (tmp_path / "broken/state.json").write_text("{")
    (write_run(tmp_path / "killed") / "metrics.json").unlink()
    runs = {run.name: run for run in find_runs(tmp_path)}
    found = {name: run.state for name, run in runs.items()}
    assert found == {"failed": "failed", "started": "unfinished", "broken": "damaged", "killed": "unfinished"}
    assert runs["failed"].reason == "CUDA out of memory"
    assert runs["failed"].overrides == ("pooling=gap", "seed=1")
    assert runs["started"].config["seed"] == 0


@pytest.mark.parametrize("change", [{"error": 5}, {"overrides": "text"}, {"config": []}, {"state": "DOE"}])
def test_a_state_of_other_types_is_listed_not_fatal(tmp_path, change):
    write_state(tmp_path / "a", "failed", "no memory", config=config_of())
    state = json.loads((tmp_path / "a/state.json").read_text())
    (tmp_path / "a/state.json").write_text(json.dumps(state | change))
    write_run(tmp_path / "b")
    assert states(tmp_path) == {"a": "damaged", "b": "done"}


def test_results_that_a_job_wrote_elsewhere_are_read_there(tmp_path):
    elsewhere = write_run(tmp_path / "elsewhere", dice=0.5)
    write_state(tmp_path / "sweep/0", "done", config=config_of(output=str(elsewhere)))
    (run,) = find_runs(tmp_path / "sweep")
    assert (run.name, run.state, run.located["dsc"].max()) == ("0", "done", 0.5)


ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
LISTED = "number,image_id,probability,cutoff\n{},a,0.5,0.5\n"
WRONG = (
    *('"split": "DOE^JANE"', '"auroc": {"value": 0.5, "low": 0.1}', '"calibration": {"bins": "DOE"}', '"levels": []'),
    *('"froc": {"curve": {"sensitivity": 5}}', '"dsc": [1]', '"primary_level": "DOE"', '"acc": {"value": 1e999}'),
)
HEAD = "image_id,patient_id,label,probability\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *(("metrics.json", text) for text in ("{", "[]", '{"auroc": {"value": 1}}', "\x00\xff")),
        *(("predictions.csv", text) for text in ("", HEAD, "image_id,label,probability\na,1,0.5\n")),
        *(
            ("predictions.csv", HEAD + rows)
            for rows in ("a,p,2,0.5\n", "a,p,1,7\n", "a,p,1,0.5\na,p,1,0.5\n", ",p,1,0\n")
        ),
        ("config.yaml", "a: [\n"),
        ("config.yaml", "choices: text"),
        ("config.yaml", ALIASES),
        *(("leaks.json", text) for text in ("{", "[" * 10**5, '{"scheme": 1}', '{"splits": "DOE^JANE"}', "[]")),
        ("metrics.json", '{"a": ' * 10**4),
        ("logs/metrics.csv", "\x00"),
        ("localization_images.csv", "image_id\n"),
        ("localization_images.csv", "image_id,method,dsc,pointing\na,importance,DOE,1\n"),
        *(("examples/examples.csv", text) for text in ("", "\x00", "number,image_id\n1,a\n", LISTED.format("many"))),
        *(("metrics.json", f'{{"threshold": 0.5, {text}}}') for text in WRONG),
    ],
)
def test_a_damaged_file_is_listed_not_fatal(tmp_path, file, text):
    whole = write_run(tmp_path / "a", pictures=1)
    if file == "metrics.json" and "threshold" in text:
        text = json.dumps(json.loads((whole / file).read_text()) | json.loads(text))
    (whole / file).write_text(text)
    write_run(tmp_path / "b")
    assert states(tmp_path) == {"a": "damaged", "b": "done"}
    assert file.rpartition("/")[2] in find_runs(tmp_path)[0].reason


@pytest.mark.parametrize("name", ["predictions.csv", "leaks.json"])
def test_a_pipe_in_the_place_of_a_file_does_not_hold_it_up(tmp_path, name):
    write_run(tmp_path / "b")
    (path := write_run(tmp_path / "a") / name).unlink()
    os.mkfifo(path)
    assert states(tmp_path)["b"] == "done"


def test_identifiers_stay_text_and_what_a_run_need_not_leave_may_miss(tmp_path):
    run = write_run(tmp_path / "a", predictions=predictions_of().assign(image_id=[f"{i:04}" for i in range(80)]))
    for name in ("leaks.json", "logs/metrics.csv"):
        (run / name).unlink()
    (found,) = find_runs(tmp_path)
    assert found.predictions["image_id"].iloc[7] == "0007"
    assert (found.leaks, found.located, len(found.log)) == (None, None, 0)


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
        # what another version lacks
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
        ([], (), ()),
    ],
)
def test_a_method_is_named_by_what_differs(configs, names, keys):
    found = find_methods(configs)
    assert names in (None, found.names)
    assert keys in (None, found.keys)
    assert found.besides == ()


def test_what_changes_with_the_methods_is_told():
    own = {"choices": {"backbone": "tiny"}, "backbone": {"_target_": "own.Tiny"}}
    found = find_methods([config_of("lem"), config_of("gap", **own, trainer={"max_epochs": 60})])
    assert found.names == ("lem", "gap")
    assert found.besides == ("backbone", "trainer.max_epochs")


@settings(deadline=None)
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


def the_same_twice(root):
    shutil.copytree(root / "pooling=gap+seed=0", root / "copy")


@pytest.mark.parametrize(
    ("change", "still", "said"),
    [
        (without_dice, True, "Dice is not compared: run 2 left none"),
        (dice_of_other_images, True, "these methods: 2 images with a Dice in some methods only"),
        (fewer_images, False, "gmp (seed 0) lacks 20 of 80"),
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
    assert "15 comparisons: take at least" in found.notes[-1]


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
        assert (found.repeat, found.comparison.images) == ("fold", 80)


def test_the_threshold_of_each_run_decides_its_predictions(tmp_path):
    for threshold in (0.5, 0.999):
        write_run(tmp_path / str(threshold), config=config_of(threshold=threshold), predictions=predictions_of(seed=1))
    found = compared(tmp_path).comparison.values
    assert found["lem, threshold=0.5", "sensitivity"].value > 0.5
    assert found["lem, threshold=0.999", "sensitivity"].value == 0


def test_the_table_has_means_over_the_runs_and_the_best_only_where_every_difference_is_shown(compared_sweep):
    own = [run.summary["auroc"]["value"] for run in compared_sweep.groups["lem"]]
    table = method_table(compared_sweep).set_index("method")
    assert table.loc["lem", "runs"] == 2
    assert table.loc["lem", "auroc"] == pytest.approx(sum(own) / 2)
    assert table.loc["lem", "auroc_low"] < table.loc["lem", "auroc"]
    assert "pxap" not in table
    assert table.loc["lem", "pointing"] == 1
    assert table["auroc_best"].to_dict() == {"lem": True, "gap": False}
    assert table.loc["lem", "brier_best"]  # the lowest
    assert not table["froc_best"].any()  # not tested


def test_nothing_is_best_where_the_second_best_is_as_good(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "s")
    for seed in (0, 1):
        close = predictions_of(error=0.1, seed=90 + seed)
        write_run(tmp_path / f"s/gmp{seed}", config=config_of("gmp", seed), predictions=close, dice=0.2)
    assert shown_best(compared(tmp_path).comparison, "auroc") is None


def test_markdown_and_latex_are_escaped_and_complete():
    columns = ["method", "runs", "auroc", "auroc_low", "auroc_high", "auroc_best"]
    rows = [("lem, loss.pos_weight=50%", 3, 0.91234, 0.85, 0.96, True), ("a|b & #1", 2, 0.5, None, None, False)]
    table = pd.DataFrame([*rows, ("gap", 1, None, None, None, False)], columns=columns)
    lines = table_markdown(table).splitlines()
    assert "**0.912** [0.850, 0.960]" in lines[2]
    assert r"a\|b & #1" in lines[3]
    assert len({len(line) for line in lines[:5]}) == 1  # aligned
    text = table_latex(table)
    assert r"lem, loss.pos\_weight=50\% & 3 & \textbf{0.912} \\" in text
    assert r"a|b \& \#1 & 2 & 0.500 \\" in text
    assert r"gap & 1 & undefined \\" in text
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1


def test_files_hold_whole_numbers_and_name_nobody(compared_sweep, tmp_path):
    table = method_table(compared_sweep)
    files = write_tables({"image": table}, pd.DataFrame(), compared_sweep, tmp_path)
    assert [file.name for file in files] == ["table.csv", "table.md", "table.tex", "differences.csv", "runs.csv"]
    assert not any(NAME in file.read_text() for file in files)
    assert pd.read_csv(tmp_path / "table.csv")["auroc"].tolist() == table["auroc"].tolist()
    pairs = pd.read_csv(tmp_path / "differences.csv")
    assert set(pairs["metric"]) >= {"auroc", "dsc", "pointing"}
    assert pairs["p_delong"].isna().all()  # several seeds


def write_levels(folder, **changes):
    """Two poolings whose images know their breast, one of them for the primary level breast."""
    for seed, (pooling, error) in enumerate({"gap": 2.0, "lem": 0.05}.items()):
        rows = predictions_of(error=error, seed=seed)
        sides = ["LR"[n % 2] for n in range(len(rows))]
        predictions = rows.assign(laterality=sides, view="CC", exam="", label=rows["label"] * (rows.index % 2))
        config = config_of(pooling, **{"primary_level": "breast", **changes.get(pooling, {})})
        write_run(folder / pooling, config=config, predictions=predictions)
    return folder


def test_levels_are_compared_beside_images_and_the_primary_one_answers(tmp_path):
    compared = compare_runs(find_runs(write_levels(tmp_path / "runs")), 1000)
    assert (compared.primary, list(compared.levels)) == ("breast", ["image", "breast", "patient"])
    assert compared.undefined == {"exam": "run 1: 80 of 80 images name no exam"}
    assert (compared.levels["breast"].images, compared.levels["patient"].images) == (80, 40)
    tables = tables_of(compared)
    assert list(tables) == ["breast", "image", "patient"]
    assert tables["breast"]["auroc"].tolist() == tables["image"]["auroc"].tolist()  # an image is a breast here
    files = write_tables(tables, pd.DataFrame(), compared, tmp_path)
    assert {"table.csv", "table_breast.md", "table_patient.tex", "differences.csv"} <= {file.name for file in files}
    assert set(pd.read_csv(tmp_path / "differences.csv")["level"]) == {"image", "breast", "patient"}
    assert not any(NAME in file.read_text() for file in files)
    first, *_ = shown_differences(compared)
    assert first.startswith("by breast: gap has a lower AUC than lem")


def test_runs_that_recorded_different_primary_levels_are_compared_by_image(tmp_path):
    compared = compare_runs(find_runs(write_levels(tmp_path, gap={"primary_level": "patient"})), 1000)
    assert compared.primary == "image"
    assert any("different primary levels (patient and breast)" in note for note in compared.notes)

import io
import shutil

import pandas as pd
import pytest

from lemlight.reporting.runs import compare_runs, find_methods, find_runs
from lemlight.reporting.tables import (
    Cell,
    MethodRow,
    columns_of,
    method_rows,
    shown_best,
    table_csv,
    table_latex,
    table_markdown,
    write_tables,
)
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_sweep


def compared(root, resamples=1000):
    runs = find_runs(root)
    methods = find_methods([run.config for run in runs]).names
    comparison, notes = compare_runs(runs, methods, resamples)
    return runs, methods, comparison, notes


def test_the_best_is_bold_only_where_every_difference_is_shown(tmp_path):
    runs, methods, comparison, notes = compared(write_sweep(tmp_path))
    assert notes == []
    assert shown_best(comparison, "auroc") == "LEM"
    assert shown_best(comparison, "brier") == "LEM"  # the lowest
    rows = method_rows(runs, methods, comparison)
    assert {row.method: row.cells["auroc"].best for row in rows} == {"LEM": True, "GAP": False}
    assert not any(row.cells["froc"].best for row in rows)  # not tested


def test_nothing_is_bold_where_the_second_best_is_as_good(tmp_path):
    write_sweep(tmp_path)
    for seed in (0, 1):
        close = predictions_of(error=0.1, seed=90 + seed)
        write_run(tmp_path / f"gmp{seed}", config=config_of("gmp", seed), predictions=close, dice=0.2)
    _, _, comparison, _ = compared(tmp_path)
    assert shown_best(comparison, "auroc") is None


def test_means_over_the_trainings(tmp_path):
    runs, methods, comparison, _ = compared(write_sweep(tmp_path))
    for given in (comparison, None):
        row = next(row for row in method_rows(runs, methods, given) if row.method == "LEM")
        own = [run.summary["auroc"]["value"] for run, method in zip(runs, methods, strict=True) if method == "LEM"]
        assert row.trainings == 2
        assert row.cells["auroc"].value == pytest.approx(sum(own) / 2)
        assert (row.cells["auroc"].low is None) == (given is None)
        assert row.cells["pointing"] == Cell()
    assert "pointing" not in columns_of(method_rows(runs, methods, comparison))


def test_without_the_dice_of_one_training_the_rest_is_compared(tmp_path):
    write_sweep(tmp_path)
    (tmp_path / "pooling=gap+seed=1/localization_images.csv").unlink()
    _, _, comparison, notes = compared(tmp_path)
    assert comparison is not None
    assert "Dice is not compared: run 2 left none" in notes[0]


def test_dice_that_disagree_undo_only_themselves(tmp_path):
    write_sweep(tmp_path)
    path = tmp_path / "pooling=gap+seed=1/localization_images.csv"
    rows = pd.read_csv(path)
    rows.loc[rows.index[:3], "dsc"] = 0.5
    rows.to_csv(path, index=False)
    _, _, comparison, notes = compared(tmp_path)
    assert comparison is not None
    assert "Dice is not compared" in notes[0]
    assert NAME not in notes[0]


def test_other_test_images_are_not_compared_and_said_without_names(tmp_path):
    write_sweep(tmp_path)
    write_run(tmp_path / "z", config=config_of("gmp"), predictions=predictions_of(60))
    _, _, comparison, notes = compared(tmp_path)
    assert comparison is None
    assert "different images" in notes[0]
    assert "run 5 (GMP, seed 0) on 60" in notes[0]
    assert "60 of these in all" in notes[0]
    assert NAME not in notes[0]


def test_other_labels_are_not_compared_and_said_without_names(tmp_path):
    write_sweep(tmp_path)
    changed = predictions_of().assign(label=lambda rows: 1 - rows["label"])
    write_run(tmp_path / "z", config=config_of("gmp"), predictions=changed)
    _, _, comparison, notes = compared(tmp_path)
    assert comparison is None
    assert "80 images with another label" in notes[0]
    assert NAME not in notes[0]


def test_the_same_training_twice_is_said(tmp_path):
    write_sweep(tmp_path)
    shutil.copytree(tmp_path / "pooling=gap+seed=0", tmp_path / "copy")
    _, _, comparison, notes = compared(tmp_path)
    assert comparison is None
    assert "Runs 1 and 2 are both GAP with seed 0" in notes[0]


def test_too_few_resamples_are_said(tmp_path):
    poolings = ("lem", "gap", "gmp", "rgp", "ggp", "lse")
    _, _, comparison, notes = compared(write_sweep(tmp_path, poolings, (0,)), resamples=100)
    assert comparison is None
    assert "resamples" in notes[0]


def fold(pooling, number, seed=0):
    return config_of(pooling, seed, dataset={"split": {"scheme": "kfold", "seed": 0, "fold": number}})


def test_folds_together_are_one_method(tmp_path):
    whole = predictions_of(error=0.3)
    for pooling in ("lem", "gap"):
        write_run(tmp_path / f"{pooling}0", config=fold(pooling, 0), predictions=whole[:40])
        write_run(tmp_path / f"{pooling}1", config=fold(pooling, 1), predictions=whole[40:])
    _, methods, comparison, _ = compared(tmp_path)
    assert set(methods) == {"LEM", "GAP"}
    assert comparison is not None
    assert (comparison.repeat, comparison.images) == ("fold", 80)


def test_seeds_and_folds_at_once_are_not_compared(tmp_path):
    whole = predictions_of()
    write_run(tmp_path / "a", config=fold("lem", 0), predictions=whole[:40])
    write_run(tmp_path / "b", config=fold("lem", 1, seed=1), predictions=whole[40:])
    _, _, comparison, notes = compared(tmp_path)
    assert comparison is None
    assert "seed and fold" in notes[0]


def test_the_threshold_of_each_training_decides_its_calls(tmp_path):
    same = predictions_of(seed=1)
    write_run(tmp_path / "a", config=config_of(threshold=0.5), predictions=same)
    write_run(tmp_path / "b", config=config_of(threshold=0.999), predictions=same)
    _, methods, comparison, _ = compared(tmp_path)
    assert methods == ("LEM, threshold = 0.5", "LEM, threshold = 0.999")
    found = {figure.method: figure.figure.value for figure in comparison.figures if figure.metric == "sensitivity"}
    assert found["LEM, threshold = 0.5"] > 0.5
    assert found["LEM, threshold = 0.999"] == 0


@pytest.fixture
def rows():
    cells = dict.fromkeys(("acc", "sensitivity", "specificity", "f1", "brier"), Cell())
    cells |= dict.fromkeys(
        ("dsc", "lesion_recall", "pixel_recall", "pointing", "pxap", "max_box_acc_v2", "froc"), Cell()
    )
    return [
        MethodRow("LEM, loss.pos_weight = 50%", 3, {**cells, "auroc": Cell(0.91234, 0.85, 0.96, best=True)}),
        MethodRow("a|b & #1", 2, {**cells, "auroc": Cell(0.5)}),
        MethodRow("GAP", 1, {**cells, "auroc": Cell()}),
    ]


def test_csv_has_whole_numbers(rows):
    table = pd.read_csv(io.StringIO(table_csv(rows)))
    assert list(table.columns) == ["method", "trainings", "auroc", "auroc_low", "auroc_high", "auroc_best"]
    assert table["auroc"].iloc[0] == 0.91234
    assert table["auroc_best"].tolist() == [True, False, False]


def test_markdown_is_aligned_and_escaped(rows):
    lines = table_markdown(rows).splitlines()
    assert "**0.912** [0.850, 0.960]" in lines[2]
    assert r"a\|b & #1" in lines[3]
    assert len({len(line) for line in lines[:5]}) == 1
    assert "several" not in lines[-1]


def test_latex_is_escaped_and_complete(rows):
    text = table_latex(rows)
    assert r"LEM, loss.pos\_weight = 50\% & 3 & \textbf{0.912} \\" in text
    assert r"a|b \& \#1 & 2 & 0.500 \\" in text
    assert r"GAP & 1 & - \\" in text
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1


def test_files_name_nobody(tmp_path):
    runs, methods, comparison, _ = compared(write_sweep(tmp_path / "s"))
    files = write_tables(method_rows(runs, methods, comparison), comparison, tmp_path)
    assert [file.name for file in files] == ["table.csv", "table.md", "table.tex", "differences.csv"]
    assert not any(NAME in file.read_text() for file in files)
    differences = pd.read_csv(tmp_path / "differences.csv")
    assert set(differences["metric"]) >= {"auroc", "dsc"}

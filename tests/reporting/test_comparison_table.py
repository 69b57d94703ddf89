import io
import shutil

import pandas as pd
import pytest

from lemlight.reporting.methods import compare_runs
from lemlight.reporting.runs import find_runs
from lemlight.reporting.tables import Cell, cells, method_table, shown_best, table_latex, table_markdown, write_tables
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run


def test_the_best_is_bold_only_where_every_difference_is_shown(compared_sweep):
    table = method_table(compared_sweep).set_index("method")
    assert table["auroc_best"].to_dict() == {"lem": True, "gap": False}
    assert table.loc["lem", "brier_best"]  # the lowest
    assert not table["froc_best"].any()  # not tested


def test_nothing_is_bold_where_the_second_best_is_as_good(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "s")
    for seed in (0, 1):
        close = predictions_of(error=0.1, seed=90 + seed)
        write_run(tmp_path / f"s/gmp{seed}", config=config_of("gmp", seed), predictions=close, dice=0.2)
    assert shown_best(compare_runs(find_runs(tmp_path), 1000).comparison, "auroc") is None


def test_metrics_are_means_over_the_runs(compared_sweep):
    own = [run.summary["auroc"]["value"] for run in compared_sweep.groups["lem"]]
    table = method_table(compared_sweep).set_index("method")
    assert table.loc["lem", "trainings"] == 2
    assert table.loc["lem", "auroc"] == pytest.approx(sum(own) / 2)
    assert table.loc["lem", "auroc_low"] < table.loc["lem", "auroc"]
    assert "pointing" not in table


@pytest.fixture
def table():
    columns = ["method", "trainings", "auroc", "auroc_low", "auroc_high", "auroc_best"]
    rows = [("lem, loss.pos_weight=50%", 3, 0.91234, 0.85, 0.96, True), ("a|b & #1", 2, 0.5, None, None, False)]
    return pd.DataFrame([*rows, ("gap", 1, None, None, None, False)], columns=columns)


def test_what_is_unknown_is_a_dash(table):
    assert cells(table, "auroc") == [
        Cell(0.91234, "0.912", "0.850 to 0.960", best=True),
        Cell(0.5, "0.500", "", best=False),
        Cell(None, "-", "", best=False),
    ]


def test_markdown_is_aligned_and_escaped(table):
    lines = table_markdown(table).splitlines()
    assert "**0.912** [0.850, 0.960]" in lines[2]
    assert r"a\|b & #1" in lines[3]
    assert len({len(line) for line in lines[:5]}) == 1


def test_latex_is_escaped_and_complete(table):
    text = table_latex(table)
    assert r"lem, loss.pos\_weight=50\% & 3 & \textbf{0.912} \\" in text
    assert r"a|b \& \#1 & 2 & 0.500 \\" in text
    assert r"gap & 1 & - \\" in text
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1


def test_files_hold_whole_numbers_and_name_nobody(compared_sweep, tmp_path):
    table = method_table(compared_sweep)
    files = write_tables(table, compared_sweep.comparison, tmp_path)
    assert [file.name for file in files] == ["table.csv", "table.md", "table.tex", "differences.csv"]
    assert not any(NAME in file.read_text() for file in files)
    read = pd.read_csv(io.StringIO((tmp_path / "table.csv").read_text()))
    assert read["auroc"].tolist() == table["auroc"].tolist()
    assert set(pd.read_csv(tmp_path / "differences.csv")["metric"]) >= {"auroc", "dsc"}

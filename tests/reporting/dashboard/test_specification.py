"""The specification by what W&B reads of it: the keys of its panels as the service names them."""

import pytest

from lemlight.reporting.wandb_dashboard import Contents, build_report, build_workspace, specification

CONTENTS = Contents(
    project="poolings",
    run_ids=("r1", "r2"),
    split="test",
    figures=("auroc", "dsc"),
    settings=("pooling.name", "seed", "dataset.split.fold"),
    pictures=("overlays", "sheet"),
    poolings=("lem", "gap"),
)
QUESTION = "Which pooling is best?"


@pytest.fixture
def workspace():
    return specification(build_workspace(CONTENTS, ""))


@pytest.fixture
def report():
    return specification(build_report(CONTENTS, "", QUESTION, "| pooling | AUC |\n|---|---|\n| LEM | 0.9 |"))


def sections(workspace):
    found = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in found}


def panels(workspace, kind):
    return [panel["config"] for shown in sections(workspace).values() for panel in shown if panel["viewType"] == kind]


def run_set(workspace):
    [runs] = workspace["spec"]["section"]["runSets"]
    return runs


def test_the_bars_are_means_by_pooling_with_an_error(workspace):
    bars = panels(workspace, "Bar Chart")
    assert [bar["metrics"] for bar in bars] == [["test/auroc"], ["test/dsc"]]
    for bar in bars:
        assert (bar["groupBy"], bar["groupAgg"], bar["groupArea"]) == ("pooling.value.name", "mean", "stddev")
        assert bar["aggregate"] is True


def test_auc_stands_against_dsc(workspace):
    [scatter] = panels(workspace, "Scatter Plot")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:test/auroc", "summary:test/dsc")


def test_the_curves_are_over_epochs_by_pooling(workspace):
    lines = panels(workspace, "Run History Line Plot")
    assert {line["metrics"][0] for line in lines} == {"val/auroc", "val/loss", "train/loss", "lambda"}
    assert {(line["xAxis"], line["groupBy"]) for line in lines} == {("epoch", "pooling.value.name")}


def test_the_axes_go_from_settings_to_figures(workspace):
    [plot] = panels(workspace, "Parallel Coordinates Plot")
    assert [column["accessor"] for column in plot["columns"]] == [
        "config:pooling.value.name",
        "config:seed.value",
        "config:dataset.value.split.fold",
        "summary:test/auroc",
        "summary:test/dsc",
    ]


def test_runs_are_compared_pictured_and_tabled(workspace):
    assert [comparer["diffOnly"] for comparer in panels(workspace, "Run Comparer")] == ["split"]
    assert [media["mediaKeys"] for media in panels(workspace, "Media Browser")] == [["test/overlays"], ["test/sheet"]]
    assert "test/predictions" in str(sections(workspace)["Predictions"])


def test_exactly_the_compared_runs_are_shown_and_their_settings_are_columns(workspace):
    runs = run_set(workspace)
    assert "'r1', 'r2'" in str(runs["filters"])
    assert runs["runFeed"]["columnOrder"] == [
        "run:displayName",
        "config:pooling.value.name",
        "config:seed.value",
        "config:dataset.value.split.fold",
        "summary:test/auroc",
        "summary:test/dsc",
    ]
    assert runs["sort"]["keys"][0]["key"] == {"section": "summary", "name": "test/auroc"}


def test_the_report_asks_the_question_and_shows_the_same(report):
    text = str(report)
    assert (report["displayName"], report["description"]) == ("Pooling methods compared", QUESTION)
    blocks = report["spec"]["blocks"]
    grids = [block for block in blocks if block["type"] == "panel-grid"]
    assert len(grids) == 5
    for grid in grids:
        assert "'r1', 'r2'" in str(grid["metadata"]["runSets"][0]["filters"])
    for shown in (QUESTION, "LEM | 0.9", "test/overlays", "test/predictions", "2 trainings, pooling lem, gap"):
        assert shown in text


def test_without_lesions_nothing_is_asked_of_the_dsc():
    contents = Contents("p", ("r1",), "test", ("auroc",), ("pooling.name",), (), ("lem",))
    built = specification(build_workspace(contents, ""))
    assert panels(built, "Scatter Plot") == []
    assert "dsc" not in str(built)
    assert "Pictures" not in sections(built)
    assert "1 training, pooling lem" in str(specification(build_report(contents, "", QUESTION)))


def test_without_figures_there_is_still_a_workspace():
    contents = Contents("p", ("r1",), "test", (), ("pooling.name",), (), ())
    assert sections(specification(build_workspace(contents, "")))["Settings"]

"""The dashboard up to the call that would go to W&B: a stand-in takes it, W&B cannot be reached from a test."""

import json
import shlex
from types import SimpleNamespace

import pytest
import wandb
import wandb_workspaces.reports.v2.interface as wr
from omegaconf import OmegaConf
from wandb_workspaces.workspaces import internal

from lemlight.errors import LemlightError
from lemlight.reporting.comparison import wandb_dashboard as chapter
from lemlight.reporting.comparison.runs import find_runs
from lemlight.reporting.comparison.wandb_dashboard import MOST_AXES, dashboard_of, send_dashboard
from tests.layouts import run_folders
from tests.layouts.run_folders import NAME, config_of, predictions_of

QUESTION = "Which pooling is best?"


@pytest.fixture
def write_run(tmp_path):
    """Write the folder of a finished run; `config` overrides with dots, `project` of W&B or None, and read it."""

    def write(name, pooling="gmp", seed=0, project="lemlight", plots=("sheet", "roc", "overlays"), **config):
        wandb_logger = {"project": project, "mode": "offline"} if project else None
        values = OmegaConf.create(config_of(pooling, seed, logger={"wandb": wandb_logger}))
        for key, value in config.items():
            OmegaConf.update(values, key.replace("__", "."), value)
        predictions = predictions_of(8, name="Jane")
        config = OmegaConf.to_container(values)
        folder = run_folders.write_run(tmp_path / "runs" / name, config=config, predictions=predictions, dice=0.3)
        (folder / "figures").mkdir()
        for plot in plots:
            (folder / "figures" / f"{plot}.png").write_bytes(b"")
        if project:
            (folder / "logs" / "wandb_run_id").write_text(f"id-{name}")
            (folder / "wandb" / f"offline-run-20261123-id-{name}").mkdir(parents=True)
        (run,) = find_runs(folder)
        return run

    return write


def test_what_the_runs_have_is_shown_and_what_differs_becomes_an_axis(write_run):
    runs = [
        write_run("a", loss__beta=0.0, dataset__root="/x"),
        write_run("b", "gap", seed=1, plots=("sheet",), trainer__max_epochs=9, workers=4),
        write_run("c", project=None),
    ]
    board = dashboard_of(runs)
    assert (board.project, board.run_ids, board.split) == ("lemlight", ["id-a", "id-b"], "test")
    assert board.settings[0] == "choices.pooling"
    assert {*board.settings[1:]} == {"loss.beta", "trainer.max_epochs", "callbacks.reseed.seed", "seed"}
    assert board.metrics == ["auroc", "dsc", "acc", "sensitivity", "specificity", "f1"]
    assert sorted(board.plots) == ["overlays", "roc", "sheet"]
    assert [path.name for path in board.offline] == ["offline-run-20261123-id-a", "offline-run-20261123-id-b"]


def test_many_differing_settings_stay_readable(write_run):
    many = {f"trainer__key{number}": number for number in range(20)}
    assert len(dashboard_of([write_run("a"), write_run("b", **many)]).settings) == MOST_AXES


def test_without_a_logged_run_or_with_two_projects_there_is_no_dashboard(write_run):
    with pytest.raises(LemlightError, match=r"none of the 1 finished runs .* logger=wandb"):
        dashboard_of([write_run("a", project=None)])
    with pytest.raises(LemlightError, match=r"several W&B projects \(one, two\)"):
        dashboard_of([write_run("b", project="one"), write_run("c", project="two")])


def test_without_the_package_the_remedy_is_named(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr(chapter, "find_spec", lambda name: None)
    with pytest.raises(LemlightError, match=r"pip install 'lemlight\[wandb\]'"):
        send_dashboard([write_run("a")], QUESTION, tmp_path)


@pytest.fixture
def service(monkeypatch):
    """What W&B is asked, as (query, variables); it knows the project lemlight of lab, who is logged in."""
    asked = []

    def execute(api, query, variables):
        asked.append((query, variables))
        if "internalId" in query:
            known = (variables["entityName"], variables["projectName"]) == ("lab", "lemlight")
            return {"project": {"internalId": "P1"} if known else None}
        own = {"id": f"V{len(asked)}", "name": variables["name"], "displayName": variables["displayName"]}
        project = {"id": "P1", "name": variables["projectName"], "entityName": variables["entityName"]}
        view = {**own, "description": "", "project": project, "spec": variables["spec"]}
        return {"upsertView": {"view": view, "inserted": True}}

    api = SimpleNamespace(
        default_entity="lab",
        client=SimpleNamespace(app_url="https://wandb.example"),
        projects=lambda entity: [SimpleNamespace(name="lemlight")],
    )
    monkeypatch.setattr(chapter, "logged_in", lambda: True)
    monkeypatch.setattr(wandb, "Api", lambda: api)
    monkeypatch.setattr(internal, "execute_graphql", execute)
    monkeypatch.setattr(wr, "execute_graphql", execute)
    return asked


@pytest.fixture
def sent(write_run, service, tmp_path):
    """Send a dashboard of two runs: what was said, and workspace and report as W&B gets them."""
    runs = [write_run("a"), write_run("b", "gap", loss__beta=0.0)]
    said = send_dashboard(runs, QUESTION, tmp_path / "out", "| pooling | AUC |\n|---|---|\n| LEM | 0.9 |")
    assert not (tmp_path / "out").exists()
    return said, *(variables for query, variables in service if "upsertView" in query)


def panels(workspace, kind):
    sections = json.loads(workspace["spec"])["section"]["panelBankConfig"]["sections"]
    return [panel["config"] for section in sections for panel in section["panels"] if panel["viewType"] == kind]


def test_workspace_and_report_reach_the_service_whole(sent):
    said, workspace, report = sent
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    assert {(view["entityName"], view["projectName"]) for view in (workspace, report)} == {("lab", "lemlight")}
    assert "https://wandb.example/lab/lemlight/reports/" in said
    assert "https://wandb.example/lab/lemlight?nw=" in said
    for shown in (QUESTION, "LEM | 0.9", "test/overlays", "test/predictions", '["id-a","id-b"]', '"P1"'):
        assert shown in report["spec"]
    grids = [block for block in json.loads(report["spec"])["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 5
    (runs,) = json.loads(workspace["spec"])["section"]["runSets"]
    assert "'id-a', 'id-b'" in str(runs["filters"])  # exactly these runs, the best first
    assert runs["sort"]["keys"][0]["key"] == {"section": "summary", "name": "test/auroc"}


def test_bars_and_curves_are_grouped_by_pooling_beside_settings_plots_and_predictions(sent):
    _, workspace, _ = sent
    bars, lines = panels(workspace, "Bar Chart"), panels(workspace, "Run History Line Plot")
    assert [bar["metrics"][0] for bar in bars] == [f"test/{name}" for name in chapter.METRICS if "/" not in name]
    assert {line["metrics"][0] for line in lines} == {"val/auroc", "val/loss", "train/loss", "lambda"}
    assert {line["xAxis"] for line in lines} == {"epoch"}
    for panel in (*bars, *lines):
        assert (panel["groupBy"], panel["groupAgg"], panel["aggregate"]) == ("choices.value.pooling", "mean", True)
    (plot,) = panels(workspace, "Parallel Coordinates Plot")
    settings = ["config:choices.value.pooling", "config:loss.value.beta"]
    assert [column["accessor"] for column in plot["columns"]] == [*settings, "summary:test/auroc", "summary:test/dsc"]
    media = [one["mediaKeys"][0] for one in panels(workspace, "Media Browser")]
    assert sorted(media) == ["test/overlays", "test/roc", "test/sheet"]
    assert panels(workspace, "Run Comparer")


def test_nothing_of_patients_and_folders_reaches_the_service(sent, service, tmp_path):
    for private in ("Jane", NAME, "/data", str(tmp_path)):
        assert private not in str(service)


def test_with_nobody_logged_in_the_specification_and_the_way_are_left(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr(chapter, "logged_in", lambda: False)
    runs = [write_run("a"), write_run("b b", "gap"), write_run("c", project=None)]
    said, note = send_dashboard(runs, QUESTION, tmp_path / "out", "| table |").splitlines()
    assert said.startswith("nobody is logged in")
    assert note == "not on it, since not logged to W&B: 1 of 3 runs"
    told = (tmp_path / "out" / "wandb_dashboard.json").read_text()
    for shown in ("id-a", "id-b b", QUESTION, "| table |", "BarPlot", "MediaBrowser", "choices.pooling"):
        assert shown in told
    for private in ("Jane", NAME, "/data", str(tmp_path)):
        assert private not in told
    sync = next(part for part in said.split("; then ") if part.startswith("wandb sync"))
    offline = [run.folder / "wandb" / f"offline-run-20261123-id-{run.folder.name}" for run in runs[:2]]
    assert shlex.split(sync) == ["wandb", "sync", *map(str, offline)]


def test_what_the_service_refuses_is_left_as_a_specification(write_run, service, tmp_path):
    said = send_dashboard([write_run("a", project="elsewhere")], QUESTION, tmp_path / "out")
    assert said.startswith("W&B did not take the dashboard (")
    assert (tmp_path / "out" / "wandb_dashboard.json").is_file()


@pytest.mark.parametrize("error", [None, wandb.errors.AuthenticationError("API key must have 40 characters")])
def test_nobody_is_asked_for_a_key_and_one_that_cannot_be_one_is_no_login(monkeypatch, error):
    def login(**options):
        assert options == {"prompt": False, "verify": False}
        if error:
            raise error
        return False

    monkeypatch.setattr(wandb, "login", login)
    assert chapter.logged_in() is False

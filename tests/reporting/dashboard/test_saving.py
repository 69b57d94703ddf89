"""Saving with wandb-workspaces' own code, up to the call that would go to W&B: a stand-in takes it."""

import json
from types import SimpleNamespace

import pytest
import wandb
import wandb_workspaces.reports.v2.interface as wr
from wandb_workspaces.workspaces import internal

from lemlight.reporting import wandb_dashboard as sending
from lemlight.reporting.wandb_dashboard import build_workspace, contents_of, logged_runs, send_dashboard

QUESTION = "Which pooling is best?"


@pytest.fixture
def folders(write_run):
    return [write_run("a", "lem"), write_run("b", "gap", seed=1)]


@pytest.fixture
def service(monkeypatch):
    """What W&B is asked, as (query, variables); it knows the project poolings of lab."""
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
    monkeypatch.setattr(sending, "logged_in", lambda: True)
    monkeypatch.setattr(wandb, "Api", lambda: api)
    monkeypatch.setattr(internal, "execute_graphql", execute)
    monkeypatch.setattr(wr, "execute_graphql", execute)
    return asked


def sent(asked):
    return [variables for query, variables in asked if "upsertView" in query]


def test_workspace_and_report_reach_the_service_whole(folders, tmp_path, service):
    said = send_dashboard(folders, QUESTION, tmp_path / "out")
    workspace, report = sent(service)
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    assert {(view["entityName"], view["projectName"]) for view in (workspace, report)} == {("lab", "lemlight")}
    panels = json.loads(workspace["spec"])["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in panels][:2] == ["Poolings compared", "Training"]
    assert QUESTION in report["spec"]
    assert '"P1"' in report["spec"], "the runs of the report are those of the project"
    assert "https://wandb.example/lab/lemlight/reports/" in said
    assert "https://wandb.example/lab/lemlight?nw=" in said


def test_nothing_of_patients_and_folders_reaches_the_service(folders, tmp_path, service):
    send_dashboard(folders, QUESTION, tmp_path / "out")
    for private in ("Jane", "Joe", "/archive", str(tmp_path)):
        assert private not in str(service)


def test_before_the_trainings_are_sent_there_is_no_project(write_run, tmp_path, service):
    said = send_dashboard([write_run("a", wandb="elsewhere")], QUESTION, tmp_path / "out")
    assert "were the trainings sent before?" in said
    assert (tmp_path / "out" / "wandb_how_to_send.txt").is_file()


def test_what_is_saved_reads_back_as_the_same_workspace(folders):
    built = build_workspace(contents_of(logged_runs(folders)), "lab")
    model = internal.View.model_validate(built._to_model().model_dump(by_alias=True))
    again = type(built)._from_model(model)
    assert [section.name for section in again.sections] == [section.name for section in built.sections]
    shown = [[type(panel).__name__ for panel in section.panels] for section in again.sections]
    assert shown == [[type(panel).__name__ for panel in section.panels] for section in built.sections]
    assert again.runset_settings.filters == built.runset_settings.filters

"""Where a dashboard goes; W&B itself is a stand-in here, it cannot be reached from a test."""

import json
import shlex
from types import SimpleNamespace

import pytest
import wandb
import wandb_workspaces.reports.v2.interface as wr
import wandb_workspaces.workspaces as ws

from lemlight.errors import LemlightError
from lemlight.reporting import wandb_dashboard as sending
from lemlight.reporting.wandb_dashboard import send_dashboard

QUESTION = "Which pooling is best?"


@pytest.fixture
def folders(write_run):
    return [write_run("a", "lem"), write_run("b b", "gap"), write_run("c", wandb=None)]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def nobody(monkeypatch):
    monkeypatch.setattr(sending, "logged_in", lambda: False)


@pytest.fixture
def account(monkeypatch):
    """Someone is logged in, and saving is recorded instead of sent."""
    saved = []

    def save(built):
        saved.append(built)
        return SimpleNamespace(url=f"https://wandb.example/{built.entity}/{type(built).__name__}")

    monkeypatch.setattr(sending, "logged_in", lambda: True)
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity="lab"))
    monkeypatch.setattr(ws.Workspace, "save", save)
    monkeypatch.setattr(wr.Report, "save", save)
    return saved


@pytest.mark.usefixtures("nobody")
def test_with_nobody_logged_in_the_specification_and_the_way_are_left(folders, out):
    said = send_dashboard(folders, QUESTION, out, "| pooling |\n|---|\n| LEM |")
    assert said.startswith("nobody is logged in")
    assert said.endswith("not on it, since not finished or not logged to W&B: 1")
    assert sorted(path.name for path in out.iterdir()) == [
        "wandb_how_to_send.txt",
        "wandb_report.json",
        "wandb_workspace.json",
    ]
    for name in ("workspace", "report"):
        specification = json.loads((out / f"wandb_{name}.json").read_text())
        assert "id-a" in str(specification)
        assert "Jane" not in str(specification)
        assert "/archive" not in str(specification)
        assert str(out.parent) not in str(specification)


@pytest.mark.usefixtures("nobody")
def test_the_way_is_commands_that_a_shell_takes(folders, out):
    send_dashboard(folders, QUESTION, out)
    lines = (out / "wandb_how_to_send.txt").read_text().splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert commands[0] == ["wandb", "login"]
    offline = [folder / "wandb" / f"offline-run-20261123-id-{folder.name}" for folder in folders[:2]]
    assert commands[1:] == [["wandb", "sync", str(path)] for path in offline]
    assert lines[-1].endswith("python -m lemlight.report ... to=wandb")


def test_logged_in_both_are_saved_for_the_account_and_nothing_is_left(folders, out, account):
    said = send_dashboard(folders, QUESTION, out)
    assert [(built.entity, built.project) for built in account] == [("lab", "lemlight"), ("lab", "lemlight")]
    assert "W&B workspace: https://wandb.example/lab/Workspace" in said
    assert "W&B report: https://wandb.example/lab/Report" in said
    assert not out.exists()


def test_a_refusal_of_the_service_leaves_the_specification(folders, out, account, monkeypatch):
    def refused(built):
        raise ValueError("project 'lab/lemlight'\nnot found")

    monkeypatch.setattr(wr.Report, "save", refused)
    said = send_dashboard(folders, QUESTION, out)
    assert "W&B did not take it (ValueError: project 'lab/lemlight' not found)" in said
    assert (out / "wandb_report.json").is_file()


def test_nobody_is_asked_for_a_key(monkeypatch):
    def login(**options):
        assert options == {"prompt": False, "verify": False}
        return False

    monkeypatch.setattr(wandb, "login", login)
    assert sending.logged_in() is False


def test_a_key_that_cannot_be_one_is_no_login(monkeypatch):
    def login(**options):
        raise wandb.errors.AuthenticationError("API key must have 40 characters")

    monkeypatch.setattr(wandb, "login", login)
    assert sending.logged_in() is False


def test_without_the_package_the_remedy_is_named(folders, out, monkeypatch):
    monkeypatch.setattr(sending, "find_spec", lambda name: None)
    with pytest.raises(LemlightError, match=r"pip install 'lemlight\[wandb\]'"):
        send_dashboard(folders, QUESTION, out)

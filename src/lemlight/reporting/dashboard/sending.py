"""Save a dashboard at W&B, or write down what it is and how to send it."""

import json
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lemlight.errors import LemlightError
from lemlight.files import write_json, written_aside
from lemlight.reporting.dashboard.contents import Contents, contents_of
from lemlight.reporting.dashboard.logged_runs import LoggedRun, logged_runs
from lemlight.reporting.dashboard.report import build_report
from lemlight.reporting.dashboard.workspace import build_workspace

WORKSPACE, REPORT, HOW = "wandb_workspace.json", "wandb_report.json", "wandb_how_to_send.txt"


def send_dashboard(folders: Sequence[Path], question: str, folder: Path, table: str = "") -> str:
    """Compare the trainings in `folders` on W&B and return what was done, in words for the terminal.

    Args:
        folders: run folders of lemlight.train; those that were not logged to W&B are passed over.
        question: what the report is to answer.
        folder: where the specification is written if nobody is logged in.
        table: Markdown for the report.

    Raises:
        LemlightError: wandb-workspaces is not installed, no training was logged to W&B, or they are in several
            projects.
    """
    if find_spec("wandb_workspaces") is None:
        raise LemlightError("to=wandb needs the package wandb-workspaces: pip install 'lemlight[wandb]'")
    runs = logged_runs(folders)
    done = write_dashboard(runs, folder, question=question, table=table)
    left_out = len(folders) - len(runs)
    return f"{done}\nnot on it, since not finished or not logged to W&B: {left_out}" if left_out else done


def write_dashboard(
    runs: Sequence[LoggedRun], folder: Path, *, question: str, table: str = "", entity: str | None = None
) -> str:
    """Save workspace and report where someone is logged in, else write them into `folder`; return what was done.

    `entity` is the user or team at W&B; None: the one that is logged in.
    """
    contents = contents_of(runs)
    if not logged_in():
        return _left(contents, runs, folder, question, table, "nobody is logged in to W&B here")
    try:
        return _saved(contents, question, table, entity)
    except Exception as error:  # of the network, the service or wandb's own checks: the work is not to be lost
        said = " ".join(f"{type(error).__name__}: {error}".split())
        why = f"W&B did not take it ({said}); were the trainings sent before?"
        return _left(contents, runs, folder, question, table, why)


def logged_in() -> bool:
    """Tell whether an API key is at hand; nothing is asked of user or server."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.Error:  # a key that cannot be one
        return False


def _saved(contents: Contents, question: str, table: str, entity: str | None) -> str:
    import wandb

    owner = entity or wandb.Api().default_entity or ""
    workspace = build_workspace(contents, owner).save()
    report = build_report(contents, owner, question, table).save()
    return f"W&B workspace: {workspace.url}\nW&B report: {report.url}"


def _left(contents: Contents, runs: Sequence[LoggedRun], folder: Path, question: str, table: str, why: str) -> str:
    specifications = {
        WORKSPACE: build_workspace(contents, ""),
        REPORT: build_report(contents, "", question, table),
    }
    for name, built in specifications.items():
        write_json(specification(built), folder / name)
    with written_aside(folder / HOW) as aside:
        aside.write_text(how_to_send(runs), encoding="utf-8")
    return (
        f"{why}: the dashboard is specified in {folder / WORKSPACE} and {folder / REPORT}; "
        f"how to send it: {folder / HOW}"
    )


def specification(built: Any) -> dict[str, Any]:
    """Give a workspace or report as plain values, as W&B is sent them."""
    values: dict[str, Any] = json.loads(built._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return values


def how_to_send(runs: Sequence[LoggedRun]) -> str:
    """Say in commands how trainings and dashboard get to W&B; this text holds paths and stays here."""
    sync = [f"wandb sync {shlex.quote(str(path))}" for run in runs for path in run.offline]
    again = "# then the command that wrote this file once more: python -m lemlight.report ... to=wandb"
    return "\n".join(["# This file is for you: it is not sent.", "wandb login", *sync, again, ""])

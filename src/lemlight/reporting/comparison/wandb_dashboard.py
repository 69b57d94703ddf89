"""Runs compared on Weights & Biases: a workspace and a report, grouped by pooling.

Built with the public API of wandb-workspaces (the extra `lemlight[wandb]`), saved where someone is logged in, else
written as JSON. Nothing in it names a patient, a file, a folder or the machine: runs go by their ids of W&B.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from lemlight.errors import LemlightError
from lemlight.files import write_json
from lemlight.reporting.comparison.methods import NO_METHOD, differing_keys, flat_settings
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.reporting.run_page import PLOT_TEXTS
from lemlight.sweeps.state import within
from lemlight.text import heading

SPECIFICATION = "wandb_dashboard.json"
TITLE = "Pooling methods compared"
POOLING = "choices.pooling"  # key of the config
METRICS = (
    "auroc", "dsc", "breast/auroc", "exam/auroc", "patient/auroc", "acc", "sensitivity", "specificity", "f1",
)  # fmt: skip
CURVES = ("val/auroc", "val/loss", "train/loss", "lambda")
MOST_AXES = 12  # more cannot be read


@dataclass(frozen=True)
class Dashboard:
    """What is compared of the runs of one project.

    `run_ids` of W&B; `settings` are the keys of the config that become axes; `metrics` and `plots` are named without
    the split; `offline` are folders that wait for `wandb sync`, which stay on this machine.
    """

    project: str
    run_ids: Sequence[str]
    split: str
    settings: Sequence[str]
    metrics: Sequence[str]
    plots: Sequence[str]
    offline: Sequence[Path] = ()


def dashboard_of(runs: Sequence[TrainingRun]) -> Dashboard:
    """Choose what to show of finished runs; those that were not logged to W&B are passed over.

    Raises:
        LemlightError: none was logged to W&B, or they are in several projects.
    """
    paths = {run: run.folder / "logs" / "wandb_run_id" for run in runs if (run.config.get("logger") or {}).get("wandb")}
    logged = {run: path.read_text(encoding="utf-8").strip() for run, path in paths.items() if path.is_file()}
    projects = sorted({str(run.config["logger"]["wandb"]["project"]) for run in logged})
    if not logged:
        raise LemlightError(
            f"none of the {len(runs)} finished runs was logged to W&B: train with logger=wandb (no account is needed), "
            "or leave out to=wandb"
        )
    if len(projects) > 1:
        raise LemlightError(
            f"the runs are in several W&B projects ({', '.join(projects)}) and a dashboard shows one: set runs=DIR to "
            "a folder with the runs of one"
        )
    differing = differing_keys([flat_settings(run.config) for run in logged])
    settings = [key for key in differing if not within(key, NO_METHOD) and not key.endswith("_target_")]
    plots = {path.stem for run in logged for path in (run.folder / "figures").glob("*.png")}
    return Dashboard(
        project=projects[0],
        run_ids=sorted(logged.values()),
        split=str(next(iter(logged)).summary["split"]),
        settings=list(dict.fromkeys([POOLING, *settings]))[:MOST_AXES],
        metrics=[name for name in METRICS if any(_has(run, name) for run in logged)],
        plots=[name for name in PLOT_TEXTS if name in plots],
        offline=sorted(path for run in logged for path in (run.folder / "wandb").glob("offline-run-*")),
    )


def _has(run: TrainingRun, name: str) -> bool:
    """Whether a run has a value of a metric, `breast/auroc` at that level."""
    level, _, key = name.rpartition("/")
    section = run.summary.get("levels", {}).get(level, {}) if level else run.summary
    return section.get(key, {}).get("value") is not None


def panels_of(board: Dashboard) -> dict[str, list[Any]]:
    """Return the panels (wandb_workspaces.reports.v2) under the question that they answer."""
    import wandb_workspaces.reports.v2.interface as wr

    half, wide = wr.Layout(w=12, h=8), wr.Layout(w=24, h=14)
    by_pooling: dict[str, Any] = {"groupby": wr.Config(POOLING), "groupby_aggfunc": "mean", "layout": half}
    columns = {name: f"{board.split}/{name}" for name in (*board.metrics, *board.plots, "predictions")}
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in board.settings]
    for name in board.metrics[:2]:
        axes.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(columns[name]), display_name=heading(name)))
    panels: dict[str, list[Any]] = {
        "Which pooling is best?": [
            wr.BarPlot(
                title=f"{heading(name)} by pooling (mean, standard deviation over runs)",
                metrics=[columns[name]],
                groupby_rangefunc="stddev",
                max_runs_to_show=len(board.run_ids),
                **by_pooling,
            )
            for name in board.metrics
        ],
        "How did they train?": [
            wr.LinePlot(title=f"{name} (mean, range)", x="epoch", y=[name], groupby_rangefunc="minmax", **by_pooling)
            for name in CURVES
        ],
        "Which settings matter?": [
            wr.ParallelCoordinatesPlot(title="Settings and what came out", columns=axes, layout=wide),
            wr.RunComparer(diff_only="split", layout=wide),
        ],
        "Where do they look?": [
            wr.MediaBrowser(title=PLOT_TEXTS[name][0], media_keys=[columns[name]], num_columns=2, layout=wide)
            for name in board.plots
        ],
        "What do they say of every image?": [wr.WeavePanelSummaryTable(table_name=columns["predictions"], layout=wide)],
    }
    return {question: shown for question, shown in panels.items() if shown}


def send_dashboard(runs: Sequence[TrainingRun], question: str, folder: Path, table: str = "") -> str:
    """Compare finished runs on W&B, or leave the specification in `folder`; return what was done, for the terminal.

    `question` is what the report is to answer, `table` Markdown for it.

    Raises:
        LemlightError: wandb-workspaces is not installed, no run was logged to W&B, or they are in several projects.
    """
    if find_spec("wandb_workspaces") is None:
        raise LemlightError("to=wandb needs the package wandb-workspaces: pip install 'lemlight[wandb]'")
    board = dashboard_of(runs)
    left_out = len(runs) - len(board.run_ids)
    note = f"\nnot on it, since not logged to W&B: {left_out} of {len(runs)} runs" if left_out else ""
    if not logged_in():
        return _written(board, folder, question, table, "nobody is logged in to W&B here") + note
    try:
        return _saved(board, question, table) + note
    except Exception as error:  # of the network, the service or wandb's own checks: the work is not to be lost
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return _written(board, folder, question, table, f"W&B did not take the dashboard ({said})") + note


def logged_in() -> bool:
    """Tell whether an API key is at hand; nothing is asked of user or server."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.Error:  # a key that cannot be one
        return False


def _saved(board: Dashboard, question: str, table: str) -> str:
    """Save the workspace and the report, a chapter of it for each section of the workspace."""
    import wandb
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws

    panels, these = panels_of(board), [ws.Metric("ID").isin(list(board.run_ids))]
    place: dict[str, Any] = {"entity": wandb.Api().default_entity or "", "project": board.project}
    best_first = [ws.Ordering(ws.Summary(f"{board.split}/{name}"), ascending=False) for name in board.metrics[:1]]
    workspace: Any = ws.Workspace(
        **place,
        name=TITLE,
        sections=[ws.Section(name=name, panels=shown, is_open=True) for name, shown in panels.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=len(board.run_ids)),
        runset_settings=ws.RunsetSettings(filters=these, order=best_first),
    )
    blocks: list[Any] = [wr.P(question), wr.TableOfContents(), *([wr.MarkdownBlock(table)] if table else [])]
    for title, shown in panels.items():
        blocks += [wr.H2(title), wr.PanelGrid(runsets=[wr.Runset(**place, filters=these)], panels=shown)]
    report: Any = wr.Report(**place, title=TITLE, description=question, blocks=blocks, width="fluid")
    return f"W&B workspace: {workspace.save().url}\nW&B report: {report.save().url}"


def _written(board: Dashboard, folder: Path, question: str, table: str, why: str) -> str:
    """Write the specification as JSON; how to send it is said with paths, hence not in the file."""
    sections = {
        title: [{"panel": type(panel).__name__, **to_jsonable_python(panel, exclude_none=True)} for panel in shown]
        for title, shown in panels_of(board).items()
    }
    head = {"project": board.project, "run_ids": board.run_ids, "title": TITLE, "question": question, "table": table}
    write_json({**head, "sections": sections}, folder / SPECIFICATION)
    sync = [" ".join(["wandb sync", *(shlex.quote(str(path)) for path in board.offline)])] if board.offline else []
    commands = "; then ".join(["wandb login", *sync, "this command once more"])
    return f"{why}: it is specified in {folder / SPECIFICATION}. To send it: {commands}"

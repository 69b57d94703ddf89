"""The W&B runs of trainings, read from their run folders."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lemlight.errors import LemlightError
from lemlight.files import write_json, written_aside
from lemlight.metrics import METRIC_NAMES
from lemlight.plots.style import heading
from lemlight.reporting.runs import NO_METHOD, TrainingRun, differing_keys, find_runs, flat_settings
from lemlight.training.logging import flat_figures


@dataclass(frozen=True)
class LoggedRun:
    """A finished training that was logged to W&B.

    `run_id` and `project` find it there; `settings` are the public ones that change a network, as text by key with
    dots; `figures` those of metrics.json by column (`test/auroc`), `pictures` the names of its PNG files; `offline`
    are the folders that `wandb sync` takes, empty where the run was online.
    """

    run_id: str
    project: str
    split: str
    settings: Mapping[str, str]
    figures: Mapping[str, float]
    pictures: tuple[str, ...]
    offline: tuple[Path, ...]


def logged_runs(folders: Sequence[Path]) -> list[LoggedRun]:
    """Read the W&B runs of the finished trainings in `folders`; what was not logged to W&B is passed over.

    Raises:
        LemlightError: none was logged to W&B, they are in several projects, or a folder holds no training.
    """
    trainings = [run for folder in folders for run in find_runs(folder) if run.state == "done"]
    found = [run for run in map(_logged, trainings) if run is not None]
    if not found:
        raise LemlightError(
            f"none of the {len(trainings)} finished trainings was logged to W&B: train with logger=wandb (no account "
            "is needed), or leave out to=wandb"
        )
    projects = sorted({run.project for run in found})
    if len(projects) > 1:
        raise LemlightError(
            f"the trainings are in several W&B projects ({', '.join(projects)}) and a dashboard shows one: "
            "set runs=DIR to a folder with the trainings of one"
        )
    return found


def _logged(run: TrainingRun) -> LoggedRun | None:
    wandb = (run.config.get("logger") or {}).get("wandb")
    places = [run.folder, Path(str(run.config.get("output") or run.folder))]  # the second: the user's own output=
    folder = next((place for place in places if (place / "logs" / "wandb_run_id").is_file()), None)
    if not wandb or folder is None:
        return None
    summary = {"split": "test", **run.summary}
    return LoggedRun(
        run_id=(folder / "logs" / "wandb_run_id").read_text(encoding="utf-8").strip(),
        project=str(wandb["project"]),
        split=str(summary["split"]),
        settings={key: value for key, value in flat_settings(run.config).items() if not _within(key, NO_METHOD)},
        figures=flat_figures(summary),
        pictures=tuple(sorted(path.stem for path in (folder / "figures").glob("*.png"))),
        offline=tuple(sorted(path for path in (folder / "wandb").glob("offline-run-*") if path.is_dir())),
    )


def _within(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


FIGURES = ("auroc", "dsc", "acc", "sensitivity", "specificity", "f1")
PICTURES = ("overlays", "sheet", "roc", "froc", "curves", "reliability")
# open in the paper: shown as axes also where the trainings agree in them, if they have them
OPEN_SETTINGS = (
    "pooling.name",
    "backbone.name",
    "dataset.name",
    "seed",
    "dataset.split.fold",
    "loss.beta",
    "pooling.aggregate",
    "pooling.threshold",
    "pooling.penalty_factor",
    "pooling.norm",
    "callbacks.lambda_ramp.end_at",
)
MOST_AXES = 12  # more cannot be read


@dataclass(frozen=True)
class Contents:
    """What to show.

    `run_ids` of W&B; `figures` are the columns of the tested network, without its split: `auroc`; `settings` keys with
    dots that become axes; `poolings` the names that are compared.
    """

    project: str
    run_ids: tuple[str, ...]
    split: str
    figures: tuple[str, ...]
    settings: tuple[str, ...]
    pictures: tuple[str, ...]
    poolings: tuple[str, ...]

    def column(self, figure: str) -> str:
        """Give the column of a figure."""
        return f"{self.split}/{figure}"


def contents_of(runs: Sequence[LoggedRun]) -> Contents:
    """Choose what to show of trainings of one project: nothing that none of them has."""
    split = runs[0].split
    figures = {name for run in runs for name in run.figures}
    pictures = {name for run in runs for name in run.pictures}
    settings = [run.settings for run in runs]
    keys = {key for own in settings for key in own}
    open_settings = [key for key in OPEN_SETTINGS if key in keys]
    axes = dict.fromkeys([*OPEN_SETTINGS[:1], *differing_keys(settings), *open_settings])
    return Contents(
        project=runs[0].project,
        run_ids=tuple(sorted({run.run_id for run in runs})),
        split=split,
        figures=tuple(name for name in FIGURES if f"{split}/{name}" in figures),
        settings=tuple(axes)[:MOST_AXES],
        pictures=tuple(name for name in PICTURES if name in pictures),
        poolings=tuple(dict.fromkeys(own["pooling.name"] for own in settings if "pooling.name" in own)),
    )


NAMES = {name: heading(name) for name in METRIC_NAMES}
CURVES = {
    "val/auroc": "AUC on the validation split",
    "val/loss": "loss on the validation split",
    "train/loss": "loss of the training",
    "lambda": "lambda of the combined loss",
}
WIDE, HALF, THIRD = 24, 12, 8  # of the 24 columns of a report


def bars(contents: Contents) -> list[Any]:
    """Every figure by pooling: mean over its runs with the standard deviation as error."""
    import wandb_workspaces.reports.v2.interface as wr

    return [
        wr.BarPlot(
            title=f"{NAMES[figure]} by pooling (mean, standard deviation over runs)",
            metrics=[contents.column(figure)],
            groupby=wr.Config("pooling.name"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=len(contents.run_ids),
            max_bars_to_show=max(1, len(contents.poolings)),
            layout=wr.Layout(w=HALF, h=8),
        )
        for figure in contents.figures
    ]


def against(contents: Contents) -> list[Any]:
    """AUC against DSC, a point a run; nothing where there is no DSC."""
    import wandb_workspaces.reports.v2.interface as wr

    if not {"auroc", "dsc"} <= set(contents.figures):
        return []
    return [
        wr.ScatterPlot(
            title="AUC against DSC, a point per run",
            x=wr.SummaryMetric(contents.column("auroc")),
            y=wr.SummaryMetric(contents.column("dsc")),
            legend_template="${run:displayName}",
            layout=wr.Layout(w=HALF, h=8),
        )
    ]


def curves() -> list[Any]:
    """Validation figures, losses and lambda over the epochs: by pooling, mean and range."""
    import wandb_workspaces.reports.v2.interface as wr

    return [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=[name],
            groupby=wr.Config("pooling.name"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            title_x="epoch",
            layout=wr.Layout(w=HALF, h=8),
        )
        for name, title in CURVES.items()
    ]


def settings(contents: Contents) -> list[Any]:
    """Parallel coordinates from the settings to AUC and DSC, and the comparer of all columns."""
    import wandb_workspaces.reports.v2.interface as wr

    ends = [name for name in ("auroc", "dsc") if name in contents.figures]
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in contents.settings]
    columns += [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(contents.column(name)), display_name=NAMES[name])
        for name in ends
    ]
    return [
        wr.ParallelCoordinatesPlot(title="Settings and what came out", columns=columns, layout=wr.Layout(w=WIDE, h=10)),
        wr.RunComparer(diff_only="split", layout=wr.Layout(w=WIDE, h=14)),
    ]


def pictures(contents: Contents) -> list[Any]:
    """The pictures of every run, side by side."""
    import wandb_workspaces.reports.v2.interface as wr

    titles = {"overlays": "Location maps and regions", "sheet": "Images and score maps", "curves": "Training"}
    return [
        wr.MediaBrowser(
            title=titles.get(name, name),
            media_keys=[contents.column(name)],
            num_columns=2,
            layout=wr.Layout(w=WIDE, h=14),
        )
        for name in contents.pictures
    ]


def predictions(contents: Contents) -> list[Any]:
    """The predictions of all images; an image is called by its row in predictions.csv."""
    import wandb_workspaces.reports.v2.interface as wr

    return [wr.WeavePanelSummaryTable(table_name=contents.column("predictions"), layout=wr.Layout(w=WIDE, h=14))]


NAME = "lemlight: pooling methods"


def build_workspace(contents: Contents, entity: str) -> Any:
    """Build the workspace of `contents` (wandb_workspaces.workspaces.Workspace); nothing is asked of any server."""
    import wandb_workspaces.workspaces as ws

    sections = {
        "Poolings compared": [*bars(contents), *against(contents)],
        "Training": curves(),
        "Settings": settings(contents),
        "Pictures": pictures(contents),
        "Predictions": predictions(contents),
    }
    columns = [_column(key) for key in contents.settings]
    columns += [f"summary:{contents.column(figure)}" for figure in contents.figures]
    order = [ws.Ordering(ws.Summary(contents.column(figure)), ascending=False) for figure in contents.figures[:1]]
    return ws.Workspace(
        entity=entity,
        project=contents.project,
        name=NAME,
        sections=[
            ws.Section(name=name, panels=shown, is_open=True, layout_settings=ws.SectionLayoutSettings(columns=2))
            for name, shown in sections.items()
            if shown
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=max(1, len(contents.run_ids))),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("ID").isin(list(contents.run_ids))), order=order, pinned_columns=columns
        ),
    )


def _column(key: str) -> str:
    """W&B's name of the column of a nested setting."""
    section, _, rest = key.partition(".")
    return f"config:{section}.value.{rest}" if rest else f"config:{section}.value"


TITLE = "Pooling methods compared"


def build_report(contents: Contents, entity: str, question: str, table: str = "") -> Any:
    """Build the report of `contents` (wandb_workspaces.reports.v2.Report).

    With an entity, W&B is asked for its project when the report is made JSON or saved.

    Args:
        contents: what to show.
        entity: user or team at W&B, empty where it is not known.
        question: what the report is to answer.
        table: Markdown, shown below the question.
    """
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws

    def grid(shown: list[Any]) -> list[Any]:
        runs = wr.Runset(
            entity=entity,
            project=contents.project,
            name="compared runs",
            filters=ws.And(ws.Metric("ID").isin(list(contents.run_ids))),
        )
        return [wr.PanelGrid(runsets=[runs], panels=shown)]

    parts = {
        "Which pooling is best?": [*bars(contents), *against(contents)],
        "How did they train?": curves(),
        "Which settings matter?": settings(contents),
        "Where do they look?": pictures(contents),
        "What do they say of every image?": predictions(contents),
    }
    blocks: list[Any] = [wr.P(question), wr.TableOfContents(), wr.P(_what(contents))]
    blocks += [wr.MarkdownBlock(table)] if table else []
    for title, shown in parts.items():
        blocks += [wr.H2(title), *grid(shown)] if shown else []
    return wr.Report(
        entity=entity, project=contents.project, title=TITLE, description=question, blocks=blocks, width="fluid"
    )


def _what(contents: Contents) -> str:
    runs = "1 training" if len(contents.run_ids) == 1 else f"{len(contents.run_ids)} trainings"
    return (
        f"{runs}, pooling {', '.join(contents.poolings)}; figures on the {contents.split} split. In the table of "
        "predictions an image is called by its row in predictions.csv of its run folder: no name leaves the machine."
    )


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

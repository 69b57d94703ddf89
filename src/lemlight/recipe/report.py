"""The report recipe: find trainings, compare their methods, and show all of it on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lemlight.config.commands import ReportConfig
from lemlight.errors import LemlightError
from lemlight.metrics.comparison import Comparison
from lemlight.metrics.significance import SIGNIFICANT
from lemlight.plots.comparison import (
    forest_plot,
    froc_overlay,
    reliability_panels,
    roc_overlay,
    score_map_panels,
    training_overlay,
)
from lemlight.plots.style import method_marks, value_text
from lemlight.recipe.model import versions
from lemlight.reporting.comparison_page import (
    ComparisonPage,
    RunLine,
    Sentences,
    command_of,
    confusion_of,
    leaks_of,
    notes_of,
    question_of,
    settings_table,
    title_of,
    what_of,
    why_not_done,
    write_comparison_page,
)
from lemlight.reporting.runs import (
    Groups,
    Methods,
    TrainingRun,
    compare_runs,
    compared_metrics,
    find_methods,
    find_runs,
    read_mammograms,
    repeat_name,
    repeat_of,
)
from lemlight.reporting.tables import MethodRow, method_rows, table_markdown, write_runs, write_tables
from lemlight.reporting.wandb_dashboard import send_dashboard
from lemlight.training.checkpoint import load_checkpoint

UNKNOWN = "unknown settings"
PLOTTED = ("auroc", "dsc")  # the others are in the sentences
ON_THE_TERMINAL = ("auroc", "acc", "dsc")  # what fits; the files have all of it


@dataclass(frozen=True)
class Found:
    """All trainings, the method of each, the finished ones among them, and what comparing these gave."""

    runs: Sequence[TrainingRun]
    names: Mapping[int, str]
    methods: Methods
    done: Sequence[TrainingRun]
    repeat: str
    comparison: Comparison | None
    notes: Sequence[str]

    @property
    def done_methods(self) -> list[str]:
        """The method of every finished training."""
        return [self.names[run.number] for run in self.done]

    @property
    def groups(self) -> Groups:
        """The finished trainings by method."""
        groups: dict[str, list[TrainingRun]] = {}
        for run in self.done:
            groups.setdefault(self.names[run.number], []).append(run)
        return groups

    def repeat_of(self, run: TrainingRun) -> str:
        """Seed or fold of a training, in words."""
        return f"{self.repeat} {repeat_name(run, self.repeat)}" if run.config else UNKNOWN


def report(config: ReportConfig) -> Path:
    """Compare the trainings below `config.runs`, write page and tables, print the table, and return the page's path.

    Trainings that failed, are not finished or are damaged are listed, never fatal.

    Raises:
        LemlightError: no training is there, or the page would take the place of a training's own.
    """
    folder = Path(config.output)
    if (folder / "metrics.json").exists() or (folder / "state.json").exists():
        raise LemlightError(f"{folder} is the folder of a training, whose report would be lost: set output=DIR")
    found = find_everything(Path(config.runs), config.resamples)
    rows = method_rows(found.done, found.done_methods, found.comparison)
    page = folder / "report.html"
    with TemporaryDirectory() as pictures:
        content = page_of(found, rows, config.question, Path(pictures))
        write_comparison_page(content, page)
    files = write_tables(rows, found.comparison, folder) if rows else []
    names = [found.names[run.number] for run in found.runs]
    files.append(write_runs(found.runs, names, [found.repeat_of(run) for run in found.runs], folder))
    _say(found, content, rows)
    print(f"page:            {page}")
    print(f"tables:          {', '.join(file.name for file in files)}")
    if config.to == "wandb":
        table = table_markdown(rows) if rows else ""
        print(send_dashboard(found.done, content.question, folder, table))
    print(f"all of this run: {folder}")
    return page


def find_everything(root: Path, resamples: int) -> Found:
    """Find the trainings below a folder and compare what is finished."""
    runs = find_runs(root)
    known = [run for run in runs if run.config]
    methods = find_methods([run.config for run in known])
    names = {run.number: UNKNOWN for run in runs}
    names |= {run.number: name for run, name in zip(known, methods.names, strict=True)}
    done = [run for run in runs if run.state == "done"]
    comparison, notes = compare_runs(done, [names[run.number] for run in done], resamples)
    return Found(runs, names, methods, done, repeat_of(done or known), comparison, notes)


def page_of(found: Found, rows: Sequence[MethodRow], question: str | None, pictures: Path) -> ComparisonPage:
    """Put together what the page says; its figures are drawn into the folder `pictures`."""
    settings_runs, settings = settings_table(found.runs)
    names = [row.method for row in rows]
    return ComparisonPage(
        title=title_of(names),
        question=question or question_of(names),
        what=what_of(found.done, found.comparison),
        methods=[found.methods.sentence()],
        notes=[*notes_of(found.done, found.done_methods, found.methods, found.repeat), *found.notes],
        rows=rows,
        differences=_differences(found.comparison, pictures),
        rules=found.comparison.rules if found.comparison else {},
        figures=_figures(found.groups, pictures),
        mammograms=read_mammograms(found.groups),
        confusion=[confusion_of(run, found.names[run.number], found.repeat_of(run)) for run in found.done],
        runs=[_line(found, run) for run in found.runs],
        settings_runs=[(run.number, found.names[run.number]) for run in settings_runs],
        settings=settings,
        leaks=leaks_of(found.runs),
        versions=_versions(found.done),
        command="python -m lemlight.report runs=...",
    )


def _line(found: Found, run: TrainingRun) -> RunLine:
    done = run.state == "done"
    return RunLine(
        number=run.number,
        method=found.names[run.number],
        repeat=found.repeat_of(run),
        state=run.state,
        why="" if done else why_not_done(run),
        auroc=value_text(run.summary["auroc"]) if done else "-",
        command=command_of(run),
    )


def _differences(comparison: Comparison | None, pictures: Path) -> list[Sentences]:
    if comparison is None or not comparison.pairs:
        return []
    parts = []
    for metric in compared_metrics(comparison):
        pairs = [pair for pair in comparison.pairs if pair.metric == metric]
        shown = [pair for pair in pairs if pair.p_corrected is not None and pair.p_corrected <= SIGNIFICANT]
        others = [pair.sentence for pair in pairs if pair not in shown]
        shown.sort(key=lambda pair: -abs(pair.difference.estimate.value or 0))
        plot = forest_plot(comparison, metric, pictures / f"forest_{metric}.png") if metric in PLOTTED else None
        parts.append(Sentences(metric, tuple(pair.sentence for pair in shown), tuple(others), plot))
    return parts


def _figures(groups: Groups, pictures: Path) -> dict[str, Path]:
    if not groups:
        return {}
    marks = method_marks(groups)
    drawn = {
        "roc": roc_overlay(groups, marks, pictures / "roc.png"),
        "froc": froc_overlay(groups, marks, pictures / "froc.png"),
        "training": training_overlay(groups, marks, pictures / "training.png"),
        "reliability": reliability_panels(groups, marks, pictures / "reliability.png"),
        "scores": score_map_panels(groups, pictures / "scores.png"),
    }
    return {name: path for name, path in drawn.items() if path is not None}


def _versions(runs: Sequence[TrainingRun]) -> dict[str, list[str]]:
    """The versions that the trainings ran with, as their checkpoints say, and those of this report."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        try:
            own = load_checkpoint(run.folder / "checkpoints" / "best.ckpt").versions
        except LemlightError:  # a checkpoint that was deleted or damaged does not matter here
            continue
        for package, version in own.items():
            found.setdefault(package, {})[str(version)] = None
    found |= {f"{package} (this report)": {version: None} for package, version in versions().items()}
    return {package: list(several) for package, several in found.items()}


def _say(found: Found, content: ComparisonPage, rows: Sequence[MethodRow]) -> None:
    if rows:
        print(f"\n{table_markdown(rows, ON_THE_TERMINAL)}")
    for part in content.differences:
        for sentence in part.first():
            print(sentence)
    for note in content.notes:
        print(f"note: {note}")
    for run in found.runs:
        if run.state != "done":
            print(f"{run.state}: {run.name}: {run.reason}")
    print()

"""python -m lemlight.report: which method is better, and is the difference shown? Many runs on one page."""

from pathlib import Path
from typing import TYPE_CHECKING

from lemlight.cli import run_command, settings_of
from lemlight.settings import ReportSettings

if TYPE_CHECKING:  # else it would slow down --help
    from lemlight.reporting.comparison.methods import ComparedRuns


def report(settings: ReportSettings) -> Path:
    """Compare the runs below `settings.runs`, write page and tables, print the table, and return the page's path.

    Runs that failed, are not finished or are damaged are listed, never fatal.

    Raises:
        LemlightError: no run is there, or the page would take the place of a run's own.
    """
    from lemlight.errors import LemlightError
    from lemlight.reporting.comparison.methods import compare_runs
    from lemlight.reporting.comparison.runs import find_runs
    from lemlight.reporting.comparison.transfer import PAGE, find_evaluations, transfer_text, write_transfer

    folder = Path(settings.output)
    if (folder / "metrics.json").exists() or (folder / "state.json").exists():
        raise LemlightError(f"{folder} is the folder of a run, whose report would be lost: set output=DIR")
    evaluations, unreadable = find_evaluations(Path(settings.runs))
    for reason in unreadable:
        print(f"damaged: {reason}")
    if evaluations:
        other, written = write_transfer(evaluations, settings.resamples, folder)
        print(f"\n{transfer_text(other)}\nother hospitals: {', '.join(map(str, written))}")
    try:
        runs = find_runs(Path(settings.runs))
    except LemlightError:
        if not evaluations:
            raise
        return folder / PAGE
    return _show(compare_runs(runs, settings.resamples), settings)


def _show(compared: "ComparedRuns", settings: ReportSettings) -> Path:
    """Write page and tables of compared runs, say what is on them, and return the page's path."""
    from lemlight.reporting.comparison import tables as chapter
    from lemlight.reporting.comparison.comparison_page import (
        QUESTION,
        notes_of,
        shown_differences,
        write_comparison_page,
    )
    from lemlight.reporting.comparison.wandb_dashboard import send_dashboard
    from lemlight.terminal import print_summary
    from lemlight.text import folded

    folder, question = Path(settings.output), settings.question or QUESTION
    tables, pooled = chapter.tables_of(compared), chapter.pooled_table(compared, settings.resamples)
    page = write_comparison_page(compared, tables, pooled, question, folder / "report.html")
    files = chapter.write_tables(tables, pooled, compared, folder)
    for level, table in tables.items():
        if len(table):
            head = f"\nby {level}:\n" if len(tables) > 1 else "\n"
            print(f"{head}{folded(chapter.table_markdown(table, chapter.SHORT), through='Method')}")
    for sentence in shown_differences(compared):
        print(sentence)
    for note in notes_of(compared):
        print(f"note: {note}")
    for run in compared.runs:
        if run.state != "done":
            print(f"{run.state}: {run.name}: {run.reason}")
    if settings.to == "wandb":
        text = chapter.table_markdown(tables["image"]) if len(tables["image"]) else ""
        print(send_dashboard(compared.done, question, folder, text))
    print()
    print_summary({"page": page, "tables": ", ".join(file.name for file in files), "all of this run": folder})
    return page


def main() -> None:
    """The entry point of `python -m lemlight.report` and of `lemlight-report`."""
    run_command("report", lambda config: report(settings_of(config, ReportSettings)))


if __name__ == "__main__":
    main()

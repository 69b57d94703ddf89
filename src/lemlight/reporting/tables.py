"""The table of the methods: each figure with its interval, and which of them is shown to be the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.files import written_aside
from lemlight.metrics import LOWER_IS_BETTER, METRIC_NAMES
from lemlight.metrics.comparison import Comparison
from lemlight.metrics.significance import SIGNIFICANT
from lemlight.plots.style import heading
from lemlight.reporting.runs import TrainingRun

COLUMNS = {name: heading(name) for name in METRIC_NAMES}


@dataclass(frozen=True)
class Cell:
    """One figure of one method: value and 95 % interval, None where unknown.

    `best` is True where the figure is better than that of every other method, and each of these differences is shown.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    best: bool = False


@dataclass(frozen=True)
class MethodRow:
    """A method, how many trainings stand behind it, and its figures by name (of COLUMNS)."""

    method: str
    trainings: int
    cells: Mapping[str, Cell] = field(default_factory=dict)


def method_rows(runs: Sequence[TrainingRun], methods: Sequence[str], comparison: Comparison | None) -> list[MethodRow]:
    """Return a row per method, in the order of the trainings.

    A figure that was compared comes with the comparison's interval; others are means over the trainings, with the
    interval of metrics.json where there is one training only.
    """
    groups: dict[str, list[TrainingRun]] = {}
    for run, method in zip(runs, methods, strict=True):
        groups.setdefault(method, []).append(run)
    rows = []
    for method, own in groups.items():
        cells = {name: _mean([_figure(run.summary, name) for run in own]) for name in COLUMNS}
        rows.append(MethodRow(method, len(own), cells | _compared(method, comparison)))
    return [_with_best(row, comparison) for row in rows]


def columns_of(rows: Sequence[MethodRow]) -> list[str]:
    """List the figures that any method has."""
    return [name for name in COLUMNS if any(row.cells[name].value is not None for row in rows)]


def shown_best(comparison: Comparison, metric: str) -> str | None:
    """Return the method that is shown to be better than every other one in a metric, None where there is none."""
    values = {
        figure.method: figure.figure.value
        for figure in comparison.figures
        if figure.metric == metric and figure.figure.value is not None
    }
    if len(values) < 2 or len(values) < len({figure.method for figure in comparison.figures}):
        return None
    best = (min if metric in LOWER_IS_BETTER else max)(values, key=lambda method: values[method])
    own = [pair for pair in comparison.pairs if pair.metric == metric and best in (pair.first, pair.second)]
    shown = all(pair.p_corrected is not None and pair.p_corrected <= SIGNIFICANT for pair in own)
    return best if shown else None


def _compared(method: str, comparison: Comparison | None) -> dict[str, Cell]:
    own = [figure for figure in comparison.figures if figure.method == method] if comparison else []
    return {one.metric: Cell(one.figure.value, one.figure.low, one.figure.high) for one in own}


def _with_best(row: MethodRow, comparison: Comparison | None) -> MethodRow:
    if comparison is None:
        return row
    metrics = {figure.metric for figure in comparison.figures}
    best = {name for name in metrics if shown_best(comparison, name) == row.method}
    return replace(row, cells={name: replace(cell, best=name in best) for name, cell in row.cells.items()})


def _figure(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    figure = summary.get(name)
    if name == "froc" and isinstance(figure, Mapping):
        figure = figure.get("mean")
    return figure if isinstance(figure, Mapping) else {}


def _mean(figures: Sequence[Mapping[str, Any]]) -> Cell:
    values = [figure.get("value") for figure in figures]
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values):
        return Cell()
    if len(figures) == 1:
        return Cell(known[0], figures[0].get("low"), figures[0].get("high"))
    return Cell(sum(known) / len(known))


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{mark: rf"\{mark}" for mark in "&%$#_{}"},
    }
)


def write_tables(rows: Sequence[MethodRow], comparison: Comparison | None, folder: Path) -> list[Path]:
    """Write table.csv (numbers), table.md and table.tex (for reading), and differences.csv where there are any.

    None of them names a file or a patient.
    """
    texts = {"table.csv": table_csv(rows), "table.md": table_markdown(rows), "table.tex": table_latex(rows)}
    if comparison is not None and comparison.pairs:
        texts["differences.csv"] = _differences(comparison).to_csv(index=False)
    for name, text in texts.items():
        with written_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def write_runs(runs: Sequence[TrainingRun], methods: Sequence[str], repeats: Sequence[str], folder: Path) -> Path:
    """Write runs.csv: which folder the numbers on the page stand for, and the whole error of each that failed."""
    table = pd.DataFrame(
        {
            "number": [run.number for run in runs],
            "folder": [run.name for run in runs],
            "state": [run.state for run in runs],
            "method": methods,
            "repeat": repeats,
            "reason": [run.reason for run in runs],
        }
    )
    with written_aside(folder / "runs.csv") as aside:
        table.to_csv(aside, index=False)
    return folder / "runs.csv"


def table_csv(rows: Sequence[MethodRow]) -> str:
    """Return the table with a column per value and bound, unrounded."""
    lines = []
    for row in rows:
        line: dict[str, object] = {"method": row.method, "trainings": row.trainings}
        for name in columns_of(rows):
            cell = row.cells[name]
            line |= {name: cell.value, f"{name}_low": cell.low, f"{name}_high": cell.high, f"{name}_best": cell.best}
        lines.append(line)
    return pd.DataFrame(lines).to_csv(index=False)


def table_markdown(rows: Sequence[MethodRow], wanted: Sequence[str] = tuple(COLUMNS)) -> str:
    """Return the table (or those `wanted` of its figures) as Markdown with aligned columns."""
    columns = [name for name in columns_of(rows) if name in wanted]
    lines = [["Method", "Trainings", *(COLUMNS[name] for name in columns)]]
    for row in rows:
        cells = [_marked(row.cells[name], "**{}**") for name in columns]
        lines.append([row.method.replace("|", r"\|"), str(row.trainings), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*texts, "", _note(rows), ""])


def table_latex(rows: Sequence[MethodRow]) -> str:
    """Return the table as LaTeX (package booktabs); intervals below their values would not fit and are left out."""
    columns = columns_of(rows)
    head = ["Method", "$n$", *(COLUMNS[name].translate(LATEX) for name in columns)]
    lines = [
        " & ".join(
            [
                row.method.translate(LATEX),
                str(row.trainings),
                *(_marked(row.cells[name], r"\textbf{{{}}}", interval=False) for name in columns),
            ]
        )
        for row in rows
    ]
    body = " \\\\\n".join([*lines, ""])
    return (
        f"% {_note(rows)} $n$: trainings.\n\\begin{{tabular}}{{l{'r' * (len(columns) + 1)}}}\n\\toprule\n"
        f"{' & '.join(head)} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def cell_text(cell: Cell) -> str:
    """Return a value with three digits, a dash where there is none."""
    return "-" if cell.value is None else f"{cell.value:.3f}"


def interval_text(cell: Cell) -> str:
    """Return an interval, empty where there is none."""
    return "" if cell.low is None or cell.high is None else f"{cell.low:.3f} to {cell.high:.3f}"


def _marked(cell: Cell, bold: str, interval: bool = True) -> str:
    text = bold.format(cell_text(cell)) if cell.best else cell_text(cell)
    between = interval_text(cell).replace(" to ", ", ") if interval else ""
    return f"{text} [{between}]" if between else text


def _note(rows: Sequence[MethodRow]) -> str:
    several = any(row.trainings > 1 for row in rows)
    mean = "Means over the trainings of a method. " if several else "One training per method. "
    return f"{mean}Bold: shown to be better than every other method (corrected p at most 0.05). Research only."


def _differences(comparison: Comparison) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "metric": pair.metric,
            "first": pair.first,
            "second": pair.second,
            "difference": pair.difference.estimate.value,
            "low": pair.difference.estimate.low,
            "high": pair.difference.estimate.high,
            "p": pair.difference.p,
            "p_corrected": pair.p_corrected,
            "comparisons": pair.comparisons,
            "sentence": pair.sentence,
        }
        for pair in comparison.pairs
    )

"""The tables as files: table.csv, table.md, table.tex, and the trainings and differences behind them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lemlight.files import written_aside
from lemlight.metrics.comparison.results import Comparison
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.reporting.comparison.table import COLUMNS, Cell, MethodRow, columns_of

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

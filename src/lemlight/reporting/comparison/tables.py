"""The table of the methods, for a program (CSV) and for readers (Markdown, LaTeX), and which method is shown best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.files import write_csv, written_aside
from lemlight.metrics import CLASSIFICATION_NAMES, LOWER_IS_BETTER, METRIC_NAMES, Level
from lemlight.metrics.comparison import Comparison
from lemlight.metrics.levels import LEVELS, known_levels, level_section
from lemlight.reporting.comparison.methods import ComparedRuns
from lemlight.text import brackets, from_columns, heading, in_columns, interval_text, markdown_table, value_text

COLUMNS = {name: heading(name) for name in METRIC_NAMES}
SHORT = ("auroc", "acc", "dsc")  # what fits a terminal


def method_table(compared: ComparedRuns, level: Level = "image") -> pd.DataFrame:
    """Return a row per method: method, runs (how many), and of every known metric value, low, high and best.

    Of a level above the image there are the metrics of the classification. A metric that was compared comes with the
    comparison's interval; others are means over the runs, with the interval of metrics.json where there is one run
    only. `best` is True where a method is shown to be better than every other.
    """
    comparison = compared.levels.get(level)
    columns = COLUMNS if level == "image" else CLASSIFICATION_NAMES
    known = comparison.values if comparison else {}
    best = {metric: shown_best(comparison, metric) for _, metric in known} if comparison else {}
    rows = []
    for method, runs in compared.groups.items():
        row: dict[str, Any] = {"method": method, "runs": len(runs)}
        for name in columns:
            figure = known.get((method, name))
            sections = [level_section(run.summary, level) for run in runs]
            found = _mean([section.get(name, {}) for section in sections]) if figure is None else vars(figure)
            row |= in_columns(name, found) | {f"{name}_best": best.get(name) == method}
        rows.append(row)
    table = pd.DataFrame(rows)
    unknown = [name for name in columns if rows and table[name].isna().all()]
    return table.drop(columns=[f"{name}{end}" for name in unknown for end in ("", "_low", "_high", "_best")])


def tables_of(compared: ComparedRuns) -> dict[Level, pd.DataFrame]:
    """Return the table of the methods at every level that all finished runs define, the primary level first."""
    levels = [level for level in LEVELS if all(level in known_levels(run.summary) for run in compared.done)]
    levels.sort(key=lambda level: level != compared.primary)
    return {level: method_table(compared, level) for level in levels}


def metrics_of(table: pd.DataFrame) -> list[str]:
    """List the metrics that a table of methods has."""
    return [name for name in COLUMNS if name in table]


def shown_best(comparison: Comparison, metric: str) -> str | None:
    """Return the method that is shown to be better than every other one in a metric, None where there is none."""
    values = {method: one.value for (method, name), one in comparison.values.items() if name == metric}
    if len(values) < 2 or None in values.values():
        return None
    best = (min if metric in LOWER_IS_BETTER else max)(values, key=lambda method: values[method] or 0.0)
    own = [pair for pair in comparison.pairs if pair.metric == metric and best in (pair.first, pair.second)]
    return best if all(pair.shown for pair in own) else None


def _mean(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = [metric.get("mean", metric) for metric in metrics]  # of FROC, which has a curve, too
    values: list[Any] = [metric.get("value") for metric in metrics]
    if None in values:
        return dict.fromkeys(("value", "low", "high"))
    if len(metrics) == 1:
        return {"value": float(values[0]), "low": metrics[0].get("low"), "high": metrics[0].get("high")}
    return {"value": sum(map(float, values)) / len(values), "low": None, "high": None}


def cells(table: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """Return value, low, high and best of one metric for every method; what is unknown is None."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [from_columns(name, row) | {"best": row[f"{name}_best"]} for row in rows]


def write_tables(tables: Mapping[Level, pd.DataFrame], compared: ComparedRuns, folder: Path) -> list[Path]:
    """Write table.csv (numbers), table.md and table.tex (for reading), and differences.csv where there are any.

    The tables of the levels above the image are table_breast.csv and so on. None of them names a file or a patient.
    """
    texts = {}
    for level, table in tables.items():
        name = "table" if level == "image" else f"table_{level}"
        texts[f"{name}.csv"] = table.to_csv(index=False)
        texts[f"{name}.md"] = table_markdown(table)
        texts[f"{name}.tex"] = table_latex(table)
    pairs = [differences(one).assign(level=level) for level, one in compared.levels.items() if one.pairs]
    if pairs:
        texts["differences.csv"] = pd.concat(pairs).to_csv(index=False)
    for name, text in texts.items():
        with written_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def differences(comparison: Comparison) -> pd.DataFrame:
    """Return a row per pair of methods and metric, first minus second."""
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
            "p_delong": pair.p_delong,
            "sentence": pair.sentence,
        }
        for pair in comparison.pairs
    )


def write_runs(compared: ComparedRuns, folder: Path) -> Path:
    """Write runs.csv: which folder the numbers on the page stand for, and the whole error of each that failed."""
    lines = [
        {
            "number": run.number,
            "folder": run.name,
            "state": run.state,
            "method": compared.method_of[run.number],
            "repeat": compared.repeat_of(run),
            "reason": run.reason,
        }
        for run in compared.runs
    ]
    write_csv(pd.DataFrame(lines), folder / "runs.csv")
    return folder / "runs.csv"


def table_markdown(table: pd.DataFrame, wanted: Sequence[str] = tuple(COLUMNS)) -> str:
    """Return the table (or those `wanted` of its metrics) as Markdown with aligned columns."""
    columns = [["Method", *table["method"]], ["Runs", *table["runs"].map(str)]]
    for name in (name for name in metrics_of(table) if name in wanted):
        texts = [COLUMNS[name]]
        for cell in cells(table, name):
            value = f"**{value_text(cell)}**" if cell["best"] else value_text(cell)
            texts.append(f"{value} {brackets(interval_text(cell))}".strip())
        columns.append(texts)
    return f"{markdown_table(list(zip(*columns, strict=True)))}\n{_note(table)}\n"


def table_latex(table: pd.DataFrame) -> str:
    """Return the table as LaTeX (package booktabs); intervals below their values would not fit and are left out."""
    texts = pd.DataFrame({"Method": table["method"], "Runs": table["runs"]})
    bold = pd.DataFrame("", texts.index, texts.columns)
    for name in metrics_of(table):
        texts[COLUMNS[name]] = [value_text(cell) for cell in cells(table, name)]
        bold[COLUMNS[name]] = ["textbf:--rwrap;" if best else "" for best in table[f"{name}_best"]]
    style = texts.style.apply(lambda _: bold, axis=None).hide(axis="index")
    style = style.format(escape="latex").format_index(escape="latex", axis=1)
    return f"% {_note(table)}\n{style.to_latex(hrules=True, column_format='l' + 'r' * (len(texts.columns) - 1))}"


def _note(table: pd.DataFrame) -> str:
    several = "Means over the runs of a method. " if (table["runs"] > 1).any() else "One run per method. "
    return f"{several}Bold: shown to be better than every other method (corrected p at most 0.05). Research only."

"""The table of the methods: each figure with its interval, and which of them is shown to be the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lemlight.metrics.comparison.results import Comparison
from lemlight.metrics.comparison.sentences import LOWER_IS_BETTER, SIGNIFICANT
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.reporting.localization_table import FIGURE_NAMES
from lemlight.reporting.names import METRIC_NAMES

COLUMNS = {**METRIC_NAMES, **FIGURE_NAMES}


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

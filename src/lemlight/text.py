"""Numbers and tables as people read them, on the terminal, on a page and in Markdown."""

import itertools
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lemlight.metrics import METRIC_NAMES

if TYPE_CHECKING:
    import pandas as pd

Table = list[list[Any]]
"""Rows of cells, each a text, or a metric as metrics.json has it; first the heads, and first in each row its name."""
DRAWN = re.compile(r"\d+\.\d{6,}(e-?\d+)?")


def short_numbers(text: str) -> str:
    """Shorten every number that a search has drawn, which has 17 digits, to three."""
    return DRAWN.sub(lambda number: f"{float(number[0]):.3g}", text)


def interval_text(metric: Mapping[str, Any]) -> str:
    """Return the interval of one metric of metrics.json as `0.85 to 0.96`, or an empty string where there is none."""
    return "" if metric.get("low") is None else f"{metric['low']:.3f} to {metric['high']:.3f}"


def value_text(metric: Mapping[str, Any]) -> str:
    """Return the value of one metric of metrics.json with three digits, or `undefined`."""
    return "undefined" if metric["value"] is None else f"{metric['value']:.3f}"


def brackets(interval: str) -> str:
    """Return an interval of `interval_text` as `[0.85, 0.96]`; empty where there is none."""
    return f"[{interval.replace(' to ', ', ')}]" if interval else ""


def figure_text(metric: Mapping[str, Any]) -> str:
    """Return value and interval of one metric of metrics.json as `0.90 [0.85, 0.96]`."""
    return f"{value_text(metric)} {brackets(interval_text(metric))}".strip()


def cells_text(table: Table, unknown: str = "undefined") -> list[list[str]]:
    """Return a table with each metric as a text; `unknown` stands for one without a value."""
    return [
        [cell if isinstance(cell, str) else unknown if cell["value"] is None else figure_text(cell) for cell in row]
        for row in table
    ]


def in_columns(name: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    """Return one metric of metrics.json as the cells of a row: NAME, NAME_low and NAME_high."""
    return {name: metric["value"], f"{name}_low": metric.get("low"), f"{name}_high": metric.get("high")}


def from_columns(name: str, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the metric that `in_columns` put into a row."""
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def rows_of(table: "pd.DataFrame") -> list[dict[Any, Any]]:
    """Return the rows of a table, in which what is unknown is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def heading(metric: str) -> str:
    """Return the name of a metric as the head of a column has it; `breast/auroc` is AUC by breast."""
    level, _, key = metric.rpartition("/")
    name = METRIC_NAMES[key]
    return name[0].upper() + name[1:] + (f" by {level}" if level else "")


def plain_table(rows: Sequence[Sequence[str]], numbers: bool = False) -> list[str]:
    """Return rows of cells as lines with aligned columns; `numbers`: to the right, but for the first column."""
    return ["  ".join(row).rstrip() for row in _aligned(rows, numbers)]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as Markdown with aligned columns; the first row is the head."""
    head, *others = _aligned([[cell.replace("|", r"\|") for cell in row] for row in rows])
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["-" * len(cell) for cell in head], *others])


def folded(text: str, through: str) -> str:
    """Fold a Markdown table that is wider than the terminal into several, each with the columns through that name.

    Unchanged where there is no terminal, and where the text begins with no table.
    """
    width = shutil.get_terminal_size((0, 0)).columns
    lines = text.split("\n")
    table = [line for line in lines if line.startswith("|")]
    if not table or len(table[0]) <= width or not width:
        return text
    bars = [place for place, sign in enumerate(table[0]) if sign == "|"]
    columns = [slice(left, right) for left, right in itertools.pairwise(bars)]
    first = next((n for n, column in enumerate(columns, 1) if table[0][column].strip("| ") == through), 1)
    head, parts = slice(0, bars[first]), [[columns[first]]]
    for column in columns[first + 1 :]:
        if head.stop + sum(part.stop - part.start for part in [*parts[-1], column]) < width:
            parts[-1].append(column)
        else:
            parts.append([column])
    tables = ["\n".join("".join(line[part] for part in (head, *more)) + "|" for line in table) for more in parts]
    return "\n\n".join(tables) + "\n" + "\n".join(lines[len(table) :])


def _aligned(rows: Sequence[Sequence[str]], numbers: bool = False) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [cell.rjust(width) if numbers and place else cell.ljust(width) for place, (cell, width) in enumerate(cells)]
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]

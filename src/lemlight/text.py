"""Numbers and tables as people read them, on the terminal, on a page and in Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lemlight.metrics import METRIC_NAMES

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


def heading(metric: str) -> str:
    """Return the name of a metric as the head of a column has it."""
    name = METRIC_NAMES[metric]
    return name[0].upper() + name[1:]


def plain_table(rows: Sequence[Sequence[str]], numbers: bool = False) -> list[str]:
    """Return rows of cells as lines with aligned columns; `numbers`: to the right, but for the first column."""
    return ["  ".join(row).rstrip() for row in _aligned(rows, numbers)]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as Markdown with aligned columns; the first row is the head."""
    head, *others = _aligned([[cell.replace("|", r"\|") for cell in row] for row in rows])
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["-" * len(cell) for cell in head], *others])


def _aligned(rows: Sequence[Sequence[str]], numbers: bool = False) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [cell.rjust(width) if numbers and place else cell.ljust(width) for place, (cell, width) in enumerate(cells)]
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]

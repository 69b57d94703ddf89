"""The figures of a run on the terminal."""

from collections.abc import Mapping
from typing import Any

from lemlight.reporting.names import how_text, metric_rows


def metrics_text(summary: Mapping[str, Any]) -> str:
    """Return the figures of a summary (metrics.json) as a small table; what is undefined stands with its reason."""
    rows = metric_rows(summary)
    width = max(len(name) for name, *_ in rows)
    lines = [how_text(summary), ""]
    for name, value, interval, reason in rows:
        shown = f"[{interval.replace(' to ', ', ')}]" if interval else f"({reason})"
        lines.append(f"  {name:<{width}}  {value:>9}  {shown}")
    return "\n".join(lines)

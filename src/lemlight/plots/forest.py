"""The forest plot of the subgroups of one run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lemlight.metrics import METRIC_NAMES
from lemlight.metrics.subgroups import TESTED, subgroup_rows
from lemlight.plots.style import BLUE, GREY, new_figure, save, tidy


def any_group_is_large_enough(summary: Mapping[str, Any]) -> bool:
    """Whether a subgroup of a summary (metrics.json) has a value that can be drawn."""
    return any(group[metric]["value"] is not None for _, _, group in subgroup_rows(summary) for metric in TESTED)


def subgroup_figure(summary: Mapping[str, Any], path: Path) -> Path:
    """Draw AUC, sensitivity and specificity of every subgroup with 95 % intervals; the line is that of all images.

    A subgroup that is too small has no point, which is said in its place.
    """
    rows = subgroup_rows(summary)
    figure = new_figure(10.0, 1.3 + 0.3 * len(rows))
    panels = figure.subplots(1, len(TESTED), sharey=True)
    heights = range(len(rows), 0, -1)
    for axes, metric in zip(panels, TESTED, strict=True):
        tidy(axes)
        name = METRIC_NAMES[metric]
        axes.set_title(name[0].upper() + name[1:], fontsize=11)
        if summary[metric]["value"] is not None:
            axes.axvline(summary[metric]["value"], color=GREY, linewidth=1, linestyle=":")
        for height, (_, _, group) in zip(heights, rows, strict=True):
            found = group[metric]
            if found["value"] is None:
                why = "too small" if "too small" in found["reason"] else "undefined"
                axes.text(0.5, height, why, ha="center", va="center", color=GREY, fontsize=7)
                continue
            if found.get("low") is not None:
                axes.plot([found["low"], found["high"]], [height, height], color=BLUE, linewidth=1.6)
            axes.plot(found["value"], height, "o", color=BLUE, markersize=5)
        axes.set(xlim=(-0.02, 1.02), ylim=(0.3, len(rows) + 0.7))
    names = [
        f"{name.replace('_', ' ')}: {value} ({group['images']}, {group['patients']})" for name, value, group in rows
    ]
    panels[0].set_yticks(list(heights), names, fontsize=8, parse_math=False)
    return save(figure, path)

"""The forest plot: differences of pairs of methods with their intervals."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.lines import Line2D

from lemlight.metrics.comparison.results import Comparison, PairDifference
from lemlight.metrics.comparison.sentences import METRIC_NAMES, SIGNIFICANT, p_text
from lemlight.reporting.figures.style import BLUE, GREY, new_figure, save, say, tidy

MOST_PAIRS = 36  # more are too many to read: then those with the method of the highest value


def forest_plot(comparison: Comparison, metric: str, path: Path) -> Path | None:
    """Draw the differences of one metric, first minus second, with 95 % intervals; None where there is no pair.

    Filled blue where the difference is shown after correction, hollow grey where it is not.
    """
    pairs, title = forest_pairs(comparison, metric)
    if not pairs:
        return None
    figure = new_figure(9.0, 1.5 + 0.27 * len(pairs))
    axes = figure.add_subplot()
    tidy(axes)
    axes.set_title(title, fontsize=11)
    axes.axvline(0, color="black", linewidth=1)
    heights = range(len(pairs), 0, -1)
    for height, pair in zip(heights, pairs, strict=True):
        estimate, shown = pair.difference.estimate, pair.p_corrected is not None and pair.p_corrected <= SIGNIFICANT
        colour = BLUE if shown else GREY
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=2 if shown else 1.4)
        if estimate.value is not None:
            axes.plot(estimate.value, height, "o", color=colour, markerfacecolor=colour if shown else "white")
        note = "not tested" if pair.p_corrected is None else p_text(pair.p_corrected)
        axes.annotate(
            note, (1.01, height), xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False
        )
    axes.set_yticks(
        list(heights), [f"{pair.first} minus {pair.second}" for pair in pairs], fontsize=8, parse_math=False
    )
    axes.set(ylim=(0.3, len(pairs) + 0.7), xlabel=f"Difference in {METRIC_NAMES[metric]}")
    if all(pair.difference.estimate.value is None for pair in pairs):
        say(axes, "the images do not define it")
    marks = [
        Line2D([], [], color=BLUE, marker="o", linewidth=2, label="shown after correction"),
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linewidth=1.4, label="not shown"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save(figure, path)


def forest_pairs(comparison: Comparison, metric: str) -> tuple[Sequence[PairDifference], str]:
    """Return the pairs that a plot has room for, and its title, which says where it leaves some out."""
    pairs = [pair for pair in comparison.pairs if pair.metric == metric]
    title = f"{METRIC_NAMES[metric]}: differences of all pairs, 95 % intervals, corrected p"
    if len(pairs) <= MOST_PAIRS:
        return pairs, title
    values = {
        figure.method: figure.figure.value
        for figure in comparison.figures
        if figure.metric == metric and figure.figure.value is not None
    }
    if not values:
        return [], title
    top = max(values, key=lambda method: values[method])
    own = [pair for pair in pairs if top in (pair.first, pair.second)]
    return (
        own,
        f"{METRIC_NAMES[metric]}: {len(own)} of {len(pairs)} pairs, those with {top} (highest value); corrected p",
    )

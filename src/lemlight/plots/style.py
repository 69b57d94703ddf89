"""What all figures share: colours for the colour-blind, marks of methods, saving."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lemlight.files import written_aside

# Okabe and Ito 2008: told apart with every common colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#707070",
)
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of width x height inches that belongs to no global state."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def tidy(axes: Axes) -> None:
    """Take away the frame that says nothing and put a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


def bare(axes: Axes, title: str = "", **options: Any) -> None:
    """Leave nothing of axes but what is drawn in them, and a title; at a fixed height, to look for one takes long."""
    axes.set_axis_off()
    axes.set_title(title, y=1.0, parse_math=False, **options)


def say(axes: Axes, text: str) -> None:
    """Write into axes without data why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, backgroundcolor="white")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, completely or not at all, and return its path."""
    with written_aside(path) as aside:
        figure.savefig(aside, format="png")
    return path


CLASS_NAMES = ("benign", "malignant")
LINES = ("-", "--", ":", "-.")

Marks = dict[str, dict[str, Any]]


def method_marks(methods: Iterable[str]) -> Marks:
    """Give every method a colour and, where these repeat, another kind of line: told apart without colour, too."""
    return {
        method: {
            "color": SERIES[place % len(SERIES)],
            "linestyle": LINES[(place + place // len(SERIES)) % len(LINES)],
            "linewidth": 1.8,
        }
        for place, method in enumerate(dict.fromkeys(methods))
    }

"""What all figures share: colours for the colour-blind, marks of methods, saving."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray
from skimage.measure import find_contours

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


FEWEST, MOST = 0.125, 8.0  # false positives per image, the ends of the axis of a FROC curve


def roc_axes(axes: Axes, title: str) -> None:
    """Prepare axes for ROC curves."""
    tidy(axes)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title=title)
    axes.set(xlabel="False positive rate (1 - specificity)", ylabel="True positive rate (sensitivity)")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)


def froc_axes(axes: Axes, title: str) -> None:
    """Prepare axes for FROC curves: false positives per image on an axis that doubles."""
    tidy(axes)
    axes.set_xscale("log", base=2, nonpositive="clip")
    axes.set(xlim=(FEWEST, MOST * 1.08), ylim=(-0.01, 1.01), title=title)
    axes.set(xlabel="False positives per image", ylabel="Sensitivity (fraction of lesions found)")
    axes.set_xticks(2.0 ** np.arange(-3, 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def outlines(mask: NDArray[Any] | None) -> list[NDArray[np.float64]]:
    """The borders (K, 2) xy of what a mask (H, W) holds, holes included; along the border of the image, too."""
    if mask is None or not mask.any():
        return []
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    inside = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] != 0, 1)
    corner = np.array([columns[0], rows[0]]) - 1
    found = find_contours(inside, 0.5)  # type: ignore[no-untyped-call]
    return [outline[:, ::-1] + corner for outline in found]


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

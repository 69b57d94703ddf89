"""How the methods look in every figure of a comparison."""

from collections.abc import Iterable
from typing import Any

from lemlight.reporting.figures.style import SERIES

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

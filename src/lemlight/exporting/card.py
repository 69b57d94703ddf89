"""The card that travels in an exported file: how its images are prepared, and what its answers mean."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lemlight.errors import LemlightError

FORMAT = 1
MOST_BYTES = 2**20  # far more than any card has: a file from a stranger may hold anything


def card_text(card: Mapping[str, Any]) -> str:
    """A card of plain values as JSON, with the number of its format."""
    return json.dumps({"format": FORMAT, **card}, allow_nan=False)


def card_values(text: str | None, path: Path) -> dict[str, Any]:
    """The values of the card of the file `path`, without its format; nothing of them is checked yet.

    Raises:
        LemlightError: there is no card, it is damaged, or of a newer format.
    """
    if text is None:
        raise LemlightError(f"{path} has no card of lemlight: give a file that lemlight.export wrote")
    try:
        if len(text) > MOST_BYTES:
            raise ValueError("too long")
        card = json.loads(text)
        number = card.pop("format")
        if type(number) is not int:
            raise ValueError("no format number")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LemlightError(f"{path} is damaged: its card cannot be read; export the checkpoint again") from error
    if number > FORMAT:
        raise LemlightError(f"{path} has card format {number}, this lemlight reads up to {FORMAT}: upgrade lemlight")
    return dict(card)

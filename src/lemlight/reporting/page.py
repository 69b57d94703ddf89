"""What the pages share: the templates, pictures inside of them, and the command that repeats a run."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lemlight.files import written_aside
from lemlight.settings import public_override
from lemlight.text import Table, cells_text, interval_text, markdown_table, value_text

TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill a template, write the page and return its path; what is filled in stays text, whatever it holds.

    In Markdown nothing is escaped: what is filled in there must be our own text or a checked name.
    """
    loader, page = FileSystemLoader(TEMPLATES), path.suffix == ".html"
    environment = Environment(loader=loader, autoescape=page, undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"value_text": value_text, "interval_text": interval_text, "markdown": markdown}
    text = environment.get_template(template).render(values)
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def markdown(table: Table, unknown: str = "undefined") -> str:
    """Return a table as Markdown."""
    return markdown_table(cells_text(table, unknown))


def base64_of(content: bytes) -> str:
    """Return a picture or a digest as a page holds it."""
    return base64.b64encode(content).decode("ascii")


def public_command(command: str, overrides: Sequence[str]) -> str:
    """Return the command line that repeats a run, with dots in place of every path: the page may be sent to others."""
    words = [
        override if public_override(override) and "/" not in override else f"{override.partition('=')[0]}=..."
        for override in overrides
    ]
    return " ".join([f"python -m lemlight.{command}", *words])

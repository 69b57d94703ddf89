"""The page of a check in its two forms: text for the terminal, and one HTML file that asks nothing of any server."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from lemlight.errors import LemlightError
from lemlight.files import written_aside
from lemlight.reporting.inventory_sections import Section


def sections_text(sections: Sequence[Section]) -> str:
    """Draw sections as tables of text, names to the left and numbers to the right."""
    return "\n\n".join(_text(section) for section in sections)


def _text(section: Section) -> str:
    lines = [section.heading]
    table = [section.columns, *section.rows] if section.rows else []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        numbers = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  " + "  ".join([f"{row[0]:<{widths[0]}}", *numbers]))
    return "\n".join([*lines, *(f"  {note}" for note in section.notes)])


def write_inventory_page(
    path: Path,
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    sheet: Path | None,
    settings: Mapping[str, str],
) -> Path:
    """Write the page and return its path; what it says must name no patient, no file and no folder.

    Args:
        path: of the page.
        title: of the page; subtitle: what was done, in a sentence.
        sections: what was found.
        sheet: the contact sheet, a PNG file, or None.
        settings: names and values of the settings that decided what was found.

    Raises:
        LemlightError: the contact sheet is not there, or the page cannot be written.
    """
    try:
        png = base64.b64encode(sheet.read_bytes()).decode("ascii") if sheet else ""
    except OSError as error:
        raise LemlightError(f"cannot write {path}: no contact sheet at {sheet} ({error.strerror})") from error
    page = _template().render(title=title, subtitle=subtitle, sections=sections, png=png, settings=settings)
    with written_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")
    return path


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("inventory.html.j2")

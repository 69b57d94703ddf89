"""What the page of a check says: the same sections on the terminal and as HTML."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from lemlight.data.inventory import Inventory
from lemlight.data.splits import LeakReport
from lemlight.errors import LemlightError
from lemlight.files import written_aside

MOST_ROWS = 10


@dataclass(frozen=True)
class Section:
    """A heading, a table (first column names, the others numbers) and what is to be said below it."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def inventory_sections(inventory: Inventory, published: int | None, splits_made: bool = True) -> list[Section]:
    """Put an inventory into words and tables.

    Args:
        inventory: what was found.
        published: images that the data set has as published, None where that is not known.
        splits_made: whether the images could be dealt to splits.
    """
    lesions = inventory.lesions
    sections = [
        _images(inventory, published),
        _table("Images left out", "reason", "images", inventory.left_out),
        _splits(inventory.leaks, splits_made),
        _lesions(inventory),
        _table("Lesions by type", "type", "lesions", lesions.types),
        _table("Notes on lesions", "note", "images", lesions.notes),
        _sizes(inventory),
        _table("File formats and transfer syntaxes", "format", "images", inventory.formats),
        _table("Grey values", "bits and colours", "images", inventory.greys),
    ]
    return [section for section in sections if section is not None]


def _images(inventory: Inventory, published: int | None) -> Section:
    rows = [("found", _number(inventory.images))]
    if published is not None:
        rows.append(("in the whole data set as published", _number(published)))
    rows += [("left out", _number(inventory.images - inventory.used)), ("used", _number(inventory.used))]
    notes = []
    if published is not None and inventory.images < published:
        notes.append("fewer than published: options of the data set leave images out, or the download is not complete")
    if inventory.duplicates:
        rows.append(("of these with the pixels of another one", _number(inventory.duplicates)))
    if inventory.duplicates_in_splits:
        notes.append(
            f"warning: {inventory.duplicates_in_splits} pictures stand in more than one split under different names: "
            "the same image is trained and tested on"
        )
    return Section("Images", ("", "images"), rows, notes)


def _splits(leaks: LeakReport, made: bool) -> Section:
    rows = [
        (
            row.split or "(none)",
            _number(row.images),
            f"{row.share:.1%}",
            _number(row.images - row.malignant),
            _number(row.malignant),
            _number(row.patients),
        )
        for row in leaks.splits
        if made or row.images
    ]
    notes = [
        f"in more than one split: {len(leaks.leaking_patients)} patients, {len(leaks.leaking_breasts)} breasts, "
        f"{len(leaks.leaking_files)} files",
        *(f"warning: {warning}" for warning in leaks.warnings),
    ]
    if not made:
        notes = ["error: the images cannot be dealt to splits; the terminal says why"]
    return Section("Split and leaks", ("split", "images", "share", "benign", "malignant", "patients"), rows, notes)


def _lesions(inventory: Inventory) -> Section:
    lesions = inventory.lesions
    rows = [
        ("with known lesions", _number(lesions.with_lesions)),
        ("known to have none", _number(lesions.without_lesions)),
        ("lesions unknown", _number(lesions.unknown)),
    ]
    if inventory.duplicates is None:
        return Section(
            "Lesions", ("", "images"), rows, ["as annotated; preparing shows whether all of them can be drawn"]
        )
    return Section(
        "Lesions", ("", "images"), [*rows, ("rejected: a lesion cannot be drawn", _number(lesions.rejected))]
    )


def _sizes(inventory: Inventory) -> Section | None:
    section = _table("Original sizes", "height x width, px", "images", inventory.sizes)
    if section is None:
        return None
    sides = [tuple(map(int, size.split(" x "))) for size in inventory.sizes]
    heights, widths = zip(*sides, strict=True)
    span = f"heights {min(heights)} to {max(heights)} px, widths {min(widths)} to {max(widths)} px"
    return Section(section.heading, section.columns, section.rows, [span] if len(sides) > 1 else [])


def _table(heading: str, name: str, number: str, counts: Mapping[str, int]) -> Section | None:
    """List the most frequent, the others in one line; None where there is nothing to list."""
    if not counts:
        return None
    rows = [(text, _number(count)) for text, count in list(counts.items())[:MOST_ROWS]]
    rest = list(counts.values())[MOST_ROWS:]
    if rest:
        rows.append((f"({len(rest)} others)", _number(sum(rest))))
    return Section(heading, (name, number), rows)


def _number(value: int) -> str:
    return f"{value:,}"


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

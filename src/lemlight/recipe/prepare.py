"""The preparing recipe: find, check and store the images of a data set, and say on one page what is there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.config.commands import PrepareCommandConfig
from lemlight.data.datasets.common import PUBLISHED
from lemlight.data.datasets.registry import build_table
from lemlight.data.inventory import Inventory, take_inventory
from lemlight.data.io import read_file_headers
from lemlight.data.splits import split_table
from lemlight.data.store import LEFT_OUT, PrepareSettings
from lemlight.data.table import write_table
from lemlight.errors import LemlightError
from lemlight.files import cores, write_json, write_yaml, written_aside
from lemlight.plots.sheets import contact_sheet
from lemlight.recipe.findings import Findings, check_images, prepare_images
from lemlight.reporting.inventory_page import Section, inventory_sections, sections_text, write_inventory_page
from lemlight.training.privacy import public_config

NOTES = "notes.csv"
MOST_LINES = 10  # of a list on the terminal; the CSV file has all of it


def prepare_dataset(config: PrepareCommandConfig) -> Inventory:
    """Check a data set, prepare it unless `check_only`, write the run folder, and return what was found.

    Raises:
        LemlightError: anything that the user can mend; a check says on its page what was found before it does.
    """
    folder, dataset = Path(config.output), config.dataset
    write_yaml(config.model_dump(), folder / "config.yaml")
    table, no_split = _dealt_table(config)
    headers = read_file_headers(table["path"].tolist())
    settings = PrepareSettings(**dataset.prepare.model_dump())
    workers = config.prepare_workers or cores()
    if config.check_only:
        findings = check_images(table, headers, settings, workers, config.thumbnails)
    else:
        findings = prepare_images(table, settings, Path(config.store), workers, config.thumbnails)
    scheme = "" if no_split else dataset.split.scheme
    inventory = take_inventory(table, headers, findings.left_out, findings.store, scheme)
    sections = inventory_sections(inventory, PUBLISHED.get(dataset.name), splits_made=no_split is None)
    _write_lists(table, findings, inventory, config)
    page = _write_page(config, sections, findings)
    print(f"\n{sections_text(sections)}\n")
    _print_names("left out", findings.left_out, table, folder / LEFT_OUT)
    _print_names("used, but", findings.notes, table, folder / NOTES)
    if findings.store:
        print(f"prepared images: {findings.store.folder}")
    print(f"page:            {page}")
    print(f"all of this run: {folder}")
    if not inventory.used:
        raise LemlightError(f"none of the {len(table)} images can be used; why: {folder / LEFT_OUT}")
    if no_split:
        raise no_split
    return inventory


def _dealt_table(config: PrepareCommandConfig) -> tuple[pd.DataFrame, LemlightError | None]:
    """The image table with its splits; where none can be made, a check goes on and hands over why."""
    dataset = config.dataset
    table = build_table(dataset.name, Path(dataset.root), **dataset.source_options())
    try:
        return split_table(table, **dataset.split.model_dump()), None
    except LemlightError as error:
        if not config.check_only:
            raise
        return table, error


def _write_lists(table: pd.DataFrame, findings: Findings, inventory: Inventory, config: PrepareCommandConfig) -> None:
    """Write the files that programs read; all but inventory.json hold names."""
    folder, name = Path(config.output), config.dataset.name
    write_table(table, folder / "images.csv")
    for file, frame in ((LEFT_OUT, findings.left_out), (NOTES, findings.notes)):
        with written_aside(folder / file) as aside:
            _with_paths(frame, table).to_csv(aside, index=False)
    write_json(inventory.leaks.to_dict(), folder / "leaks.json")
    head = {"dataset": name, "check_only": config.check_only, "published": PUBLISHED.get(name)}
    write_json(head | inventory.to_dict(), folder / "inventory.json")


def _write_page(config: PrepareCommandConfig, sections: Sequence[Section], findings: Findings) -> Path:
    folder, prepare = Path(config.output), config.dataset.prepare
    sheet = contact_sheet(findings.thumbnails, folder / "contact_sheet.png") if findings.thumbnails else None
    done = "Checked: tables, names and headers; no image was decoded but those shown, and nothing was prepared."
    if not config.check_only:
        done = f"Prepared: every image that is used is stored with {prepare.height} x {prepare.width} px."
    return write_inventory_page(
        folder / "prepare.html",
        title=f"Data set {config.dataset.name}",
        subtitle=done,
        sections=sections,
        sheet=sheet,
        settings=dict(_flat(public_config(config.dataset.model_dump()))),
    )


def _flat(values: Mapping[str, Any], prefix: str = "dataset.") -> list[tuple[str, str]]:
    """Settings as they stand on a command line."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            pairs.append((f"{prefix}{key}", f"[{text}]" if isinstance(value, list) else text))
    return pairs


def _with_paths(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put the path of each image between its image_id and what is said of it, where the path need not stand again."""
    id_column, text = frame.columns
    paths = frame[id_column].map(table.set_index("image_id")["path"])
    said = [str(words).removeprefix(f"{path}: ") for words, path in zip(frame[text], paths, strict=True)]
    return pd.DataFrame({id_column: frame[id_column], "path": paths, text: said})


def _print_names(heading: str, frame: pd.DataFrame, table: pd.DataFrame, file: Path) -> None:
    if frame.empty:
        return
    lines = [
        f"  {path}: {said}" for _, path, said in _with_paths(frame, table).head(MOST_LINES).itertuples(index=False)
    ]
    more = len(frame) - len(lines)
    print(
        "\n".join([f"{heading} ({len(frame)}; all in {file}):", *lines, *([f"  and {more} more"] if more else []), ""])
    )

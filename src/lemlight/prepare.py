"""python -m lemlight.prepare: find, check and store the images of a data set, and say on one page what is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lemlight import settings
from lemlight.cli import run_command, settings_of
from lemlight.limits import hold

if TYPE_CHECKING:
    import pandas as pd

    from lemlight.reporting.inventory_page import Findings


def prepare_dataset(config: settings.PrepareSettings) -> dict[str, Any]:
    """Check a data set, prepare it unless `check_only`, write the run folder, and return what was found.

    With `part` that part of the images is prepared and nothing else is done.

    Raises:
        LemlightError: anything that the user can mend; a check says on its page what was found before it does.
    """
    from lemlight.data.datamodule import find_images_of
    from lemlight.data.preparing.inventory import take_inventory
    from lemlight.data.preparing.store import LEFT_OUT, PrepareSettings, fill_store
    from lemlight.data.reading.headers import read_headers
    from lemlight.data.splits import split_table
    from lemlight.errors import LemlightError
    from lemlight.files import cores, write_yaml
    from lemlight.reporting import inventory_page

    hold(config.limits)
    folder, dataset = Path(config.output), config.dataset
    write_yaml(settings.plain(config), folder / "config.yaml")
    table, no_split = find_images_of(dataset), None
    try:
        table = split_table(table, **dataset["split"])
    except LemlightError as error:
        if not config.check_only:
            raise
        no_split = error

    size, workers = PrepareSettings(**dataset["prepare"]), config.prepare_workers or cores()
    if config.part is not None:
        number, parts = map(int, config.part.split("/"))
        store = fill_store(table, size, Path(config.store), workers, part=(number, parts))
        print(f"part {config.part} of {len(table)} images is prepared; {len(store)} of all are there: {store.folder}")
        print("once all parts are, the same command without part= joins them and writes the page")
        return {"used": len(store)}
    headers = read_headers(table["path"].tolist(), notes=True)
    if config.check_only:
        findings = inventory_page.check_images(table, headers, size, workers, config.thumbnails)
    else:
        findings = inventory_page.prepare_images(table, size, Path(config.store), workers, config.thumbnails)
    scheme = "" if no_split else dataset["split"]["scheme"]
    found = take_inventory(table, headers, findings.left_out, findings.store, scheme, findings.notes)
    _write(config, table, findings, found, split_made=no_split is None)
    if not found["used"]:
        raise LemlightError(f"none of the {len(table)} images can be used; why: {folder / LEFT_OUT}")
    if no_split:
        raise no_split
    return found


def _write(
    config: settings.PrepareSettings,
    table: "pd.DataFrame",
    findings: "Findings",
    found: dict[str, Any],
    split_made: bool,
) -> None:
    """Write lists, contact sheet and page into the run folder, and say on the terminal what was found."""
    import shutil

    import pandas as pd

    from lemlight.data.datasets.common import PUBLISHED
    from lemlight.plots.sheets import contact_sheet
    from lemlight.reporting import inventory_page
    from lemlight.settings import public_config
    from lemlight.terminal import print_summary

    folder, name, prepare = Path(config.output), str(config.choices["dataset"]), config.dataset["prepare"]
    done = f"Prepared: every image that is used is stored with {prepare['height']} x {prepare['width']} px."
    if config.check_only:
        done = "Checked: tables, names and headers; no image was decoded but those shown, and nothing was prepared."
    published = PUBLISHED.get(name)
    head = {"dataset": name, "check_only": config.check_only, "published": published}
    inventory_page.write_lists(folder, table, findings, head | found)
    sections = inventory_page.inventory_sections(found, published, split_made)
    sheet = contact_sheet(findings.thumbnails, folder / "contact_sheet.png") if findings.thumbnails else None
    (shown,) = pd.json_normalize({"dataset": public_config(config.dataset)}).to_dict("records")
    page = folder / "prepare.html"
    inventory_page.write_inventory_page(page, f"Data set {name}", done, sections, sheet, shown)

    width = shutil.get_terminal_size().columns
    said = [section for section in sections if section.heading not in inventory_page.BY_NAME]
    print(f"\n{inventory_page.sections_text(said, width)}")
    print(inventory_page.names_text(table, findings, width))
    where = {"prepared images": findings.store.folder} if findings.store else {}
    print_summary(where | {"page": page, "all of this run": folder})


def main() -> None:
    """The entry point of `python -m lemlight.prepare` and of `lemlight-prepare`."""
    run_command("prepare", lambda config: prepare_dataset(settings_of(config, settings.PrepareSettings)))


if __name__ == "__main__":
    main()

"""From a data set's configuration to prepared images that are dealt to splits."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from lightning_utilities.core.rank_zero import rank_zero_only

from lemlight.config.commands import Command
from lemlight.config.data import DatasetConfig
from lemlight.data.datamodule import drop_left_out
from lemlight.data.datasets.registry import build_table
from lemlight.data.splits import LeakReport, leak_report, split_table
from lemlight.data.store import LEFT_OUT, PreparedStore, PrepareSettings, prepare
from lemlight.files import cores, write_json, written_aside

say = rank_zero_only(print)  # once, whatever the number of devices


@dataclass(frozen=True)
class PreparedData:
    """The image table of those images that the store holds, the store, and who stands on both sides."""

    table: pd.DataFrame
    store: PreparedStore
    leaks: LeakReport

    def fingerprints(self, split: str) -> list[str]:
        """Hashes of the prepared images of a split, in the order of the table."""
        chosen = self.table.loc[self.table["split"] == split, "image_id"]
        return [self.store.fingerprint(self.store.index_of(image_id)) for image_id in chosen]


def prepare_data(
    dataset: DatasetConfig, settings: PrepareSettings, command: Command, split: bool = True
) -> PreparedData:
    """Find the images, deal them to splits, print the leak report, and prepare what the store lacks.

    Args:
        dataset: the data set.
        settings: the geometry of the prepared images.
        command: where the store is, and how many processes prepare.
        split: False puts every image into one split, "all".

    Raises:
        LemlightError: files, labels or splits that cannot be used, all of them at once.
    """
    table = build_table(dataset.name, Path(dataset.root), **dataset.source_options())
    table = split_table(table, **dataset.split.model_dump()) if split else table.assign(split="all")
    store = prepare(table, settings, Path(command.store), command.prepare_workers or cores())
    if len(store.left_out):
        say(f"{len(store.left_out)} of {len(table)} images are left out; why: {store.folder / LEFT_OUT}")
    table = drop_left_out(table, store)
    leaks = leak_report(table, dataset.split.scheme if split else "")
    say(leaks.text())
    return PreparedData(table, store, leaks)


def record_data(prepared: PreparedData, folder: Path) -> None:
    """Keep in the run folder who stands on both sides, and which images were left out and why."""
    write_json(prepared.leaks.to_dict(), folder / "leaks.json")
    with written_aside(folder / LEFT_OUT) as aside:
        prepared.store.left_out.to_csv(aside, index=False)

"""metrics.csv: one row per epoch, the source of the training curves."""

import csv
import math
import os
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer


class EpochTable(Callback):
    """Write everything that was logged in an epoch as one row of `path`, before that epoch's checkpoint is saved.

    Columns: epoch, step (optimizer steps done), then the logged names; undefined (NaN) is an empty cell. A resumed
    training keeps the rows of the epochs done and repeats none, where Lightning's CSVLogger would delete the file and
    writes the training figures of an epoch after its checkpoint, so that a kill in between loses them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the rows of the epochs that a resumed training has behind it."""
        self.rows = []
        if self.path.is_file() and trainer.current_epoch > 0:
            with self.path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row and write the table aside, then in place."""
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": str(trainer.current_epoch), "step": str(trainer.global_step)}
        self.rows.append(row | {name: "" if math.isnan(value) else repr(value) for name, value in values.items()})
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.part")
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(aside, self.path)

"""The callbacks of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar

from lemlight.training.epoch_table import EpochTable
from lemlight.training.ramp import LambdaRamp
from lemlight.training.reseed import ReseedEveryEpoch

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class FolderCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint with one fixed file name, whose state holds no path: a run folder can be moved, then resumed.

    `monitor=None` keeps the newest epoch, otherwise the best one is kept.
    """

    def __init__(self, folder: Path, name: str, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(
            dirpath=folder,
            filename=name,
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=True,
            enable_version_counter=False,  # best.ckpt, never best-v1.ckpt
        )

    def state_dict(self) -> dict[str, Any]:
        """Give the state with file names in place of paths."""
        state = super().state_dict()
        names = {key: Path(state[key]).name for key in PATHS}
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return state | names | {"dirpath": "", "best_k_models": best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; its file names stand for files in this run's folder."""
        folder = Path(str(self.dirpath))
        if self.monitor is not None and not (folder / f"{self.filename}.ckpt").is_file():
            return  # the best one was left behind in another folder: keep the best of what is to come
        paths = {key: str(folder / state_dict[key]) if state_dict[key] else "" for key in PATHS}
        best = {str(folder / name): score for name, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})


class ResumableEarlyStopping(EarlyStopping):
    """An EarlyStopping that stays stopped: resumed after it has stopped, a training does not run one epoch more."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the patience was used up before."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def build_callbacks(
    folder: Path,
    *,
    seed: int,
    checkpoint: Mapping[str, Any],
    ramp: Mapping[str, Any] | None,
    early_stopping: Mapping[str, Any] | None,
    progress_bar: bool,
) -> list[Callback]:
    """Build the callbacks of a training in the run folder `folder`, in the order in which they must act.

    They leave `logs/metrics.csv` (a row per epoch), `checkpoints/best.ckpt` (by `checkpoint`: monitor, mode) and
    `checkpoints/last.ckpt` (every epoch, after all that belongs to it). `ramp` are LambdaRamp's arguments, None for a
    pooling without a ramp; `early_stopping`: monitor, mode, patience, min_delta.
    """
    callbacks: list[Callback] = [ReseedEveryEpoch(seed)]
    if ramp is not None:
        callbacks.append(LambdaRamp(**ramp))
    callbacks.append(EpochTable(folder / "logs" / "metrics.csv"))
    if progress_bar:
        callbacks.append(TQDMProgressBar())
    if early_stopping is not None:
        # an undefined figure counts as no improvement instead of ending the training
        callbacks.append(ResumableEarlyStopping(**early_stopping, check_finite=False))
    best = FolderCheckpoint(folder / "checkpoints", "best", checkpoint["monitor"], checkpoint["mode"])
    return [*callbacks, best, FolderCheckpoint(folder / "checkpoints", "last")]

"""The callbacks of a training: the ramp of lambda, the table of epochs, checkpoints; any of Lightning's go beside them.

They are built from `callbacks` of the config, a dict of `_target_`, and act in its order. See docs/own/callback.md.
"""

import csv
import math
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar, RichProgressBar
from torch import nn

from lemlight.arguments import Count, NotNegative, NotNegativeCount, Positive, Probability, checked
from lemlight.building import TARGET, build, did_you_mean
from lemlight.data.datamodule import unit_range
from lemlight.errors import LemlightError
from lemlight.files import written_aside
from lemlight.terminal import duration

VALIDATED = ("val/loss", "val/acc", "val/auroc")
TRAINED = ("train/loss", "train/loss_gap", "train/loss_pool", "train/loss_regularizer")
NEEDED = ("checkpoint", "last_checkpoint", "epoch_table")
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")

Shape = Literal["linear", "cosine", "step"]


def ramp_value(
    shape: Shape, fraction: float, *, start_value: float, end_value: float, start_at: float, end_at: float
) -> float:
    """Give lambda at `fraction` of the training: `start_value` up to `start_at`, `end_value` from `end_at` on.

    In between a straight line (the paper: "gradually increases to 1"), half a cosine, or, for step, still the start.
    """
    position = min(1.0, max(0.0, (fraction - start_at) / (end_at - start_at)))
    if shape == "cosine":
        position = (1 - math.cos(math.pi * position)) / 2
    elif shape == "step":
        position = math.floor(position)
    return (1 - position) * start_value + position * end_value


class LambdaRamp(Callback):
    """Set lambda, the weight of the pooling's loss against GAP's (Zhu et al. 2025, Eq. 8), before every batch.

    Only for a pooling that asks for it (`ramps`), or for every one with `loss.ramp_all_poolings`; the others keep
    lambda at 1. Nothing is remembered from batch to batch, so a resumed training goes on with the very same values.
    """

    @checked
    def __init__(
        self,
        shape: Shape,
        start_value: Probability,
        end_value: Probability,
        start_at: Probability,
        end_at: Probability,
    ) -> None:
        if not start_at < end_at:
            raise LemlightError(
                f"callbacks.lambda_ramp: the ramp must start before it ends: set start_at={start_at} below "
                f"end_at={end_at}"
            )
        self.shape = shape
        self.given = {"start_value": start_value, "end_value": end_value, "start_at": start_at, "end_at": end_at}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set lambda; the last optimizer step of the training stands at fraction 1."""
        if _ramps(pl_module):
            last_step = max(int(trainer.estimated_stepping_batches) - 1, 1)
            fraction = min(trainer.global_step / last_step, 1.0)
            pl_module.lam = ramp_value(self.shape, fraction, **self.given)  # type: ignore[assignment]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the value that the epoch ended with."""
        if _ramps(pl_module):
            pl_module.log("lambda", pl_module.lam, sync_dist=True)  # type: ignore[arg-type]


def _ramps(module: LightningModule) -> bool:
    pooling = getattr(getattr(module, "classifier", None), "pooling", None)
    every = getattr(getattr(module, "loss", None), "ramp_all_poolings", None)
    return every is not None and bool(every or getattr(pooling, "ramps", False))


class ReseedEveryEpoch(Callback):
    """Seed Python, NumPy and torch from (seed, epoch, process) before the first batch of every epoch.

    Dropout and stochastic depth then draw the same numbers in a training that was resumed at the start of an epoch as
    in one that ran through. It happens at the first batch, not at the epoch's start: between the two Lightning makes
    the loader's iterator, which draws from the same state, but not in the first epoch after resuming.
    """

    @checked
    def __init__(self, seed: NotNegativeCount) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed if this is the first batch."""
        if batch_idx == 0:
            entropy = [self.seed, trainer.current_epoch, trainer.global_rank]
            words = np.random.SeedSequence(entropy).generate_state(3)
            random.seed(int(words[0]))
            np.random.seed(int(words[1]))
            torch.manual_seed(int(words[2]))


class EpochTable(Callback):
    """Write everything that was logged in an epoch as one row of `path`, before that epoch's checkpoint is saved.

    Columns: epoch, step (optimizer steps done), then the logged names; undefined (NaN) is an empty cell. A resumed
    training keeps the rows of the epochs done and repeats none, where Lightning's CSVLogger would delete the file and
    writes the training figures of an epoch after its checkpoint, so that a kill in between loses them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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
        if not trainer.is_global_zero:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with written_aside(self.path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


class FolderCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint with one fixed file name, whose state holds no path: a run folder can be moved, then resumed.

    `monitor=None` keeps the newest epoch, otherwise the best one is kept.
    """

    def __init__(
        self, folder: str | Path, name: str, monitor: str | None = None, mode: Literal["min", "max"] = "min"
    ) -> None:
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
    """An EarlyStopping that stays stopped: resumed after it has stopped, a training does not run one epoch more.

    An undefined figure counts as no improvement instead of ending the training.
    """

    @checked
    def __init__(
        self, monitor: str, mode: Literal["min", "max"], patience: Count = 10, min_delta: NotNegative = 0.0
    ) -> None:
        super().__init__(monitor=monitor, mode=mode, patience=patience, min_delta=min_delta, check_finite=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the patience was used up before."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class FreezeAtFirst(Callback):
    """Train scorer and pooling alone for the first epochs, then the backbone as well.

    The backbone's running statistics stay as they are until then. Its parameters are in the optimizer from the start,
    where Lightning's BackboneFinetuning adds them later: rates by depth, schedules and resuming stay what they are.

    Args:
        epochs: how many.
        run_config: of the training.

    Raises:
        LemlightError: the backbone is never trained.
    """

    @checked
    def __init__(self, epochs: Count, run_config: dict[str, Any] | None = None) -> None:
        if run_config and run_config["backbone"].get("frozen"):
            raise LemlightError(
                "callbacks.freeze: backbone.frozen=true never trains the backbone; leave one of them out"
            )
        self.epochs = epochs
        self.trained: list[nn.Parameter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what would let several devices wait for gradients that do not come."""
        arguments = getattr(trainer.strategy, "_ddp_kwargs", {})
        if trainer.world_size > 1 and not arguments.get("find_unused_parameters"):
            raise LemlightError(
                "callbacks.freeze: on several devices set trainer.strategy=ddp_find_unused_parameters_true; others "
                "wait for the gradients of what is frozen"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze or train the backbone."""
        classifier: Any = pl_module.classifier
        freeze = trainer.current_epoch < self.epochs
        if freeze and not classifier.frozen:
            self.trained = [weight for weight in classifier.backbone.parameters() if weight.requires_grad]
            classifier.freeze()
        elif classifier.frozen and not freeze:
            classifier.frozen = False
            classifier.backbone.train()
            for weight in self.trained:
                weight.requires_grad_()


class MixUp(Callback):
    """Mix each training image with another one of its batch, and their labels (Zhang et al., ICLR 2018, Eq. 1).

    Every cross-entropy of a loss is linear in its label, so that both labels are learned in their fractions; the sparse
    loss of LEM looks at no label. The fraction is one of the batch, from Beta(alpha, alpha).

    Args:
        alpha: 0.1 to 0.4 in the source.
        run_config: of the training.

    Raises:
        LemlightError: where there are no images to mix, or no two of a kind.
    """

    @checked
    def __init__(self, alpha: Positive = 0.2, run_config: dict[str, Any] | None = None) -> None:
        config = run_config or {"backbone": {}}
        if config.get("level") == "breast":
            raise LemlightError(
                "callbacks.mixup: breasts have unlike numbers of views, which cannot be mixed: level=image"
            )
        if config["backbone"].get("frozen") and config.get("feature_versions") is not None:
            raise LemlightError(
                "callbacks.mixup mixes images, and the features of a frozen backbone are kept in their place: set "
                "feature_versions=null, and every image passes the network"
            )
        self.alpha = alpha

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Mix the batch in place."""
        from torchvision.transforms import v2

        mixing = v2.MixUp(alpha=self.alpha, num_classes=2)
        batch["image"], labels = mixing(unit_range(batch["image"]), batch["label"].long())
        batch["label"] = labels[:, 1]


class TimeLeft(ProgressBar):
    """The time that is left of a whole training, by the steps that are done of all that are planned."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a resumed training has steps behind it."""
        super().on_train_start(trainer, pl_module)
        self._started, self._before = time.monotonic(), trainer.global_step

    def time_left(self, trainer: Trainer) -> str:
        """Tell the time left, or nothing where nothing is known of it yet."""
        came, planned = trainer.global_step - self._before, float(trainer.estimated_stepping_batches)
        if came < 1 or not math.isfinite(planned):
            return ""
        return duration((time.monotonic() - self._started) / came * max(0.0, planned - trainer.global_step))


class TrainingBar(TimeLeft, RichProgressBar):
    """Lightning's bar for a terminal, with the time left of the whole training beside that of the epoch."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Give what is logged for the bar, and the time left in all."""
        shown = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        left = self.time_left(trainer)
        return shown | ({"all epochs": f"{left} left"} if left else {})


class TrainingLines(TimeLeft):
    """A plain line per epoch, for a log or a batch job, where bars would leave hundreds."""

    def disable(self) -> None:
        """Say nothing: Lightning asks for it in every process but the first."""
        self._silent = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the figures of the epoch and the time left."""
        if getattr(self, "_silent", False):
            return
        values = {name: float(value) for name, value in sorted(trainer.progress_bar_metrics.items())}
        of, left = f" of {trainer.max_epochs}" if trainer.max_epochs else "", self.time_left(trainer)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        ends = f"; {left} left" if left else ""
        print(f"epoch {trainer.current_epoch + 1}{of}: {figures}{ends}", file=sys.stderr, flush=True)


def build_callbacks(parts: Mapping[str, Any], run_config: Mapping[str, Any] | None = None) -> list[Callback]:
    """Build the callbacks of a config in its order, null left out; LemlightError where one is none or is needed.

    An argument `run_config` of a constructor is given the configuration of the training, plain values.
    """
    absent = [name for name in NEEDED if not parts.get(name)]
    if absent:
        raise LemlightError(
            f"callbacks: {', '.join(absent)} is missing, without which a training leaves nothing: start an own file "
            "with `defaults: [default]`"
        )
    return [
        build(part, f"callbacks.{name}", kind=Callback, run_config=run_config) for name, part in parts.items() if part
    ]


def check_monitors(parts: Mapping[str, Any], val_labels: Sequence[int]) -> None:
    """Refuse to watch what is never logged, or is undefined for val images with these labels: before the training.

    A name that lemlight does not log is let pass where a callback from outside may log it.
    """
    given = {f"callbacks.{name}": part for name, part in parts.items() if part}
    outside = any(not str(part[TARGET]).startswith(("lemlight.", "pytorch_lightning.")) for part in given.values())
    for key, part in given.items():
        monitor, mode, known = part.get("monitor"), part.get("mode"), VALIDATED + TRAINED
        if monitor is None or (outside and monitor not in known):
            continue
        better = "min" if "loss" in monitor else "max"
        if monitor not in known:
            wrong = f"{monitor} is not logged{did_you_mean(monitor, known)}: choose one of {', '.join(known)}"
        elif mode not in (None, better):
            wrong = f"{monitor} is better at its {better}; set {key}.mode={better}"
        elif monitor in VALIDATED and not len(val_labels):
            wrong = "it needs a val split, which has no image: raise dataset.split.val_fraction"
        elif monitor == "val/auroc" and len(set(val_labels)) < 2:
            wrong = f"the val split has one class only: set {key}.monitor=val/loss and {key}.mode=min"
        else:
            continue
        raise LemlightError(f"{key}.monitor={monitor}: {wrong}")

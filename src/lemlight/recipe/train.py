"""The training recipe: data, model, fit, test of the best checkpoint, report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger

from lemlight.config.commands import TrainConfig
from lemlight.config.data import StandardAugmentation
from lemlight.data.augment import AugmentSettings
from lemlight.data.datamodule import MammogramData
from lemlight.data.store import PrepareSettings
from lemlight.errors import LemlightError
from lemlight.files import write_yaml
from lemlight.localization.settings import Chosen, build_settings
from lemlight.recipe.data import PreparedData, prepare_data, record_data
from lemlight.recipe.machine import check_machine
from lemlight.recipe.model import build_classifier, build_module, ramps
from lemlight.recipe.results import Run, localizing, write_results
from lemlight.reporting.localization_results import choose_settings
from lemlight.sweeps.names import Sweep, group_label, run_label, tag_labels
from lemlight.training.callbacks import build_callbacks, check_monitor
from lemlight.training.checkpoint import add_to_card, load_checkpoint, load_weights
from lemlight.training.logging import build_loggers, finish_loggers
from lemlight.training.module import MammogramModule, leave_process_group
from lemlight.training.trainer import build_trainer, fit


def train(config: TrainConfig, overrides: Sequence[str] = (), sweep: Sweep | None = None) -> dict[str, Any]:
    """Train, test the best checkpoint, write the run folder, and return what metrics.json holds, and `validation`.

    What is tested on is `config.split`; the other splits are not predicted.

    Args:
        config: the checked configuration.
        overrides: of the command line, for the report.
        sweep: that this training is a job of, for the dashboard.

    Raises:
        LemlightError: anything that the user can mend, found as early as it can be.
    """
    check_machine(config)
    build_settings(config.localization.model_dump())  # an own method that cannot be built is found before the training
    folder = Path(config.output)
    write_yaml(config.model_dump(), folder / "config.yaml")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    prepared, module = _prepare(config, folder)
    data = batches_of(config, prepared)
    loggers = loggers_of(config, folder, overrides, sweep)
    failed = True
    try:
        trainer = trainer_of(config, folder, loggers)
        fit(trainer, module, data, Path(config.resume) if config.resume else None)
        run = Run(
            command="train",
            title=f"{config.run_name} on {config.dataset.name}",
            folder=folder,
            config=config,
            settings=config.model_dump(),
            overrides=overrides,
            trainer=trainer,
            module=module,
            prepared=prepared,
            chosen=_choose(config, trainer, module, prepared),
            threshold=config.threshold,
        )
        summary = write_results(run, data.eval_dataloader(config.split))
        leave_process_group()
        failed = False
    finally:
        finish_loggers(loggers, failed)
    return summary | {"validation": best_validation(trainer)}


def _prepare(config: TrainConfig, folder: Path) -> tuple[PreparedData, MammogramModule]:
    """Prepare the images, write down what became of them, and build the network that they are for."""
    classifier = build_classifier(config)  # before the images: missing weights are found in seconds
    prepared = prepare_data(config.dataset, PrepareSettings(**config.dataset.prepare.model_dump()), config)
    record_data(prepared, folder)
    labels = {str(split): rows["label"].tolist() for split, rows in prepared.table.groupby("split")}
    _check_labels(config, labels)
    preprocessing = config.dataset.prepare.model_dump()
    module = build_module(config, classifier, preprocessing, labels["train"], prepared.fingerprints("train"))
    return prepared, module


def _choose(
    config: TrainConfig, trainer: pl.Trainer, module: MammogramModule, prepared: PreparedData
) -> dict[str, Chosen]:
    """Go back to the best weights, and choose with them how to localize; their checkpoint holds it, too."""
    best = Path(config.output) / "checkpoints" / "best.ckpt"
    load_weights(module.classifier, load_checkpoint(best))
    trainer.strategy.barrier()  # none is to read the file while another adds to it
    chosen = choose_settings(localizing(config, trainer, module, prepared, config.threshold))
    if trainer.is_global_zero:
        add_to_card(best, localization={method: one.model_dump() for method, one in chosen.items()})
    return chosen


def best_validation(trainer: pl.Trainer) -> float | None:
    """The monitored figure of the best checkpoint, on the validation split: what a search may optimize."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            return float(callback.best_model_score)
    return None


def _check_labels(config: TrainConfig, labels: Mapping[str, Sequence[int]]) -> None:
    """Images that were left out can leave a split without a class."""
    if set(labels.get("train", [])) != {0, 1}:
        raise LemlightError(
            "the images that are left do not hold both classes in the train split: see the images left out, "
            "or change dataset.split"
        )
    val = labels.get("val", [])
    check_monitor(config.callbacks.checkpoint.monitor, val)
    if config.callbacks.early_stopping is not None:
        check_monitor(config.callbacks.early_stopping.monitor, val, "callbacks.early_stopping")


def batches_of(config: TrainConfig, prepared: PreparedData) -> MammogramData:
    """The batches, with the augmentation of the train split."""
    chosen = config.augmentation
    augment = (
        AugmentSettings(**chosen.model_dump(exclude={"name"})) if isinstance(chosen, StandardAugmentation) else None
    )
    return MammogramData(prepared.table, prepared.store, config.batch_size, config.workers, augment, config.seed)


def loggers_of(config: TrainConfig, folder: Path, overrides: Sequence[str], sweep: Sweep | None) -> list[Logger]:
    """The loggers beside the CSV log; a W&B run gets a name that tells it from others, a group and tags."""
    wandb = config.logger.wandb.model_dump() if config.logger.wandb else None
    if wandb is not None:
        wandb["name"] = wandb["name"] or run_label(config.run_name, overrides, sweep)
        wandb["group"] = wandb["group"] or group_label(overrides, sweep)
        wandb["tags"] = tag_labels(overrides, [*wandb["tags"], config.dataset.name])
    return build_loggers(folder, tensorboard=config.logger.tensorboard, wandb=wandb, config=config.model_dump())


def trainer_of(config: TrainConfig, folder: Path, loggers: Sequence[Logger]) -> pl.Trainer:
    """The Trainer with its callbacks."""
    chosen = config.callbacks.model_dump()
    callbacks = build_callbacks(
        folder,
        seed=config.seed,
        checkpoint=chosen["checkpoint"],
        ramp=chosen["lambda_ramp"] if ramps(config) else None,
        early_stopping=chosen["early_stopping"],
        progress_bar=chosen["progress_bar"],
    )
    return build_trainer(folder, callbacks=callbacks, loggers=loggers, **config.trainer.model_dump())

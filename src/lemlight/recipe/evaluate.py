"""The evaluation recipe: a checkpoint, a data set, the same figures as after a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from lemlight.config.check import check
from lemlight.config.commands import EvaluateConfig, TrainConfig
from lemlight.config.data import DatasetConfig, PrepareConfig
from lemlight.data.datamodule import MammogramData
from lemlight.data.store import PrepareSettings
from lemlight.errors import LemlightError
from lemlight.files import write_yaml
from lemlight.localization.settings import chosen_settings
from lemlight.recipe.data import prepare_data, record_data, say
from lemlight.recipe.model import build_classifier, build_module
from lemlight.recipe.results import Run, write_results
from lemlight.training.checkpoint import Checkpoint, load_checkpoint, load_weights
from lemlight.training.trainer import build_trainer


def evaluate(config: EvaluateConfig, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, write the run folder, and return what metrics.json holds.

    Preprocessing is the checkpoint's: what was trained is what is tested.

    Raises:
        LemlightError: anything that the user can mend.
    """
    checkpoint = load_checkpoint(Path(config.checkpoint))
    trained = check(checkpoint.config, TrainConfig, where=f"the configuration in {config.checkpoint}")
    dataset = _dataset(config, trained, checkpoint)
    folder = Path(config.output)
    settings = config.model_copy(update={"dataset": dataset}).model_dump()
    write_yaml(settings, folder / "config.yaml")
    classifier = build_classifier(trained, first_weights=False)
    load_weights(classifier, checkpoint)
    geometry = PrepareSettings(**dataset.prepare.model_dump())
    prepared = prepare_data(dataset, geometry, config, split=config.split != "all")
    record_data(prepared, folder)
    _say_known(prepared.fingerprints(config.split), checkpoint)
    module = build_module(trained, classifier, checkpoint.preprocessing)
    data = MammogramData(prepared.table, prepared.store, config.batch_size, config.workers)
    title = f"{trained.run_name}, trained on {trained.dataset.name}, tested on {dataset.name}"
    trainer = _trainer(config, trained, folder)
    threshold = trained.threshold if config.threshold is None else config.threshold
    chosen = chosen_settings(checkpoint.localization, checkpoint.path)
    run = Run("evaluate", title, folder, config, settings, overrides, trainer, module, prepared, chosen, threshold)
    return write_results(run, data.eval_dataloader(config.split))


def _dataset(config: EvaluateConfig, trained: TrainConfig, checkpoint: Checkpoint) -> DatasetConfig:
    """The data set to test on, in the geometry of the checkpoint: what was trained is what is tested."""
    where = f"the preprocessing in {checkpoint.path}"
    geometry = check(checkpoint.preprocessing, PrepareConfig, where=where)
    dataset = config.dataset or trained.dataset
    if not Path(dataset.root).is_dir() and config.dataset is None:
        raise LemlightError(
            f"the data set of the training ({dataset.name}) is not at {dataset.root}: give dataset=... dataset.root=DIR"
        )
    return dataset.model_copy(update={"prepare": geometry})


def _say_known(fingerprints: Sequence[str], checkpoint: Checkpoint) -> None:
    """Warn of images that the network was trained on: their figures say nothing of new images."""
    known = len(set(checkpoint.trained_on).intersection(fingerprints))
    if known:
        say(
            f"warning: the network was trained on {known} of these {len(fingerprints)} images: their figures flatter it"
        )


def _trainer(config: EvaluateConfig, trained: TrainConfig, folder: Path) -> pl.Trainer:
    """One device, full precision and every image, whatever the training had."""
    alone = {"accelerator": config.accelerator, "devices": 1, "num_nodes": 1, "strategy": "auto"}
    whole = {"precision": "32-true", "limit_test_batches": 1.0, "overfit_batches": 0}
    options = trained.trainer.model_dump() | alone | whole
    return build_trainer(folder, callbacks=[], loggers=[], **options)

"""The evaluation recipe: a checkpoint, a data set, the same figures as after a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lemlight.config.check import check
from lemlight.config.commands import EvaluateConfig, TrainConfig
from lemlight.config.data import PrepareConfig
from lemlight.data.module import MammogramData
from lemlight.data.preparation import PrepareSettings
from lemlight.files import write_yaml
from lemlight.recipe.data import prepare_data, record_data
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
    settings = _preprocessing(checkpoint)
    folder = Path(config.output)
    write_yaml(config.model_dump(), folder / "config.yaml")
    classifier = build_classifier(trained, first_weights=False)
    load_weights(classifier, checkpoint)
    dataset = config.dataset or trained.dataset
    prepared = prepare_data(dataset, settings, config, split=config.split != "all")
    record_data(prepared, folder)
    module = build_module(trained, classifier, checkpoint.preprocessing)
    alone = {
        "accelerator": config.accelerator,
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "precision": "32-true",
    }
    trainer = build_trainer(folder, callbacks=[], loggers=[], **trained.trainer.model_copy(update=alone).model_dump())
    data = MammogramData(prepared.table, prepared.store, config.batch_size, config.workers)
    title = f"{trained.run_name}, trained on {trained.dataset.name}, tested on {dataset.name}"
    run = Run("evaluate", title, folder, config, config.model_dump(), overrides, trainer, module, prepared)
    threshold = trained.threshold if config.threshold is None else config.threshold
    return write_results(run, data.eval_dataloader("test" if config.split == "all" else config.split), threshold)


def _preprocessing(checkpoint: Checkpoint) -> PrepareSettings:
    checked = check(checkpoint.preprocessing, PrepareConfig, where=f"the preprocessing in {checkpoint.path}")
    return PrepareSettings(**checked.model_dump())

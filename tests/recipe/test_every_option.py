"""Every option of every group composes, passes the check, and becomes the object that it stands for."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from lemlight.config.check import check
from lemlight.config.commands import EvaluateConfig, TrainConfig
from lemlight.config.conf_dir import conf_dir
from lemlight.config.data import StandardAugmentation
from lemlight.data.augment import AugmentSettings, build_augmentation
from lemlight.data.datasets.registry import source
from lemlight.data.store import PrepareSettings
from lemlight.recipe.model import build_classifier, build_module
from lemlight.recipe.train import loggers_of, trainer_of
from lemlight.training.logging import finish_loggers
from lemlight.training.optimizers import build_optimizer, build_schedule

GROUPS = ["backbone", "pooling", "loss", "augmentation", "optimizer", "scheduler", "trainer", "callbacks", "logger"]
NEEDED = {"dataset": ["dataset.root=images"], "backbone": ["backbone.weights=none"], "trainer": ["trainer.devices=1"]}
NEEDED["trainer"] += ["trainer.accelerator=cpu", "trainer.precision=32-true"]


def options(group):
    return sorted(file.stem for file in Path(conf_dir(), group).glob("*.yaml"))


def composed(*overrides, command="train"):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose(command, [*overrides, "output=run"])
    return check(config, TrainConfig if command == "train" else EvaluateConfig)


def chosen(group, option):
    extra = NEEDED.get(group, [])
    if option == "torchvision":
        extra = [*extra, "backbone.name=mobilenet_v3_small"]
    return composed(f"{group}={option}", *extra, *([] if group == "backbone" else NEEDED["backbone"]))


def test_no_group_is_forgotten():
    folders = {folder.name for folder in Path(conf_dir()).iterdir() if folder.is_dir()}
    assert folders == {*GROUPS, "dataset", "recipe", "debug", "experiment", "hydra", "scale", "localization", "shared"}


@pytest.mark.parametrize("option", options("backbone"))
def test_backbones_and_what_trains_them(option):
    config = chosen("backbone", option)
    module = build_module(config, build_classifier(config), config.dataset.prepare.model_dump(), [0, 1, 1])
    assert module.classifier.backbone.name == config.backbone.name


@pytest.mark.parametrize("bias", [True, False])
def test_the_bias_of_the_scorer_is_a_choice(bias):
    scorer = build_classifier(composed(f"scorer_bias={bias}", *NEEDED["backbone"])).scorer
    assert (scorer.bias is not None) == bias


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in ("pooling", "loss") for o in options(g)])
def test_poolings_and_losses(group, option):
    config = chosen(group, option)
    module = build_module(config, build_classifier(config), config.dataset.prepare.model_dump(), [0, 1, 1])
    assert module.beta == getattr(config.loss, "beta", 0.0)


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in ("optimizer", "scheduler") for o in options(g)])
def test_optimizers_and_schedulers(group, option):
    config = chosen(group, option)
    optimizer = build_optimizer(build_classifier(config), config.optimizer.model_dump())
    build_schedule(optimizer, config.scheduler.model_dump(), total_steps=60, epochs=config.trainer.max_epochs)
    assert type(optimizer).__name__.lower() == config.optimizer.name
    assert 0 < optimizer.param_groups[0]["lr"] <= max(config.optimizer.lr_backbone, config.optimizer.lr_head)


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in ("trainer", "callbacks", "logger") for o in options(g)])
def test_trainers_callbacks_and_loggers(group, option, tmp_path):
    config = chosen(group, option)
    loggers = loggers_of(config, tmp_path, [], None)
    try:
        trainer = trainer_of(config, tmp_path, loggers)
        assert trainer.max_epochs == config.trainer.max_epochs
        assert len(trainer.loggers) == (config.logger.tensorboard + (config.logger.wandb is not None))
    finally:
        finish_loggers(loggers, failed=False)


@pytest.mark.parametrize("option", options("augmentation"))
def test_augmentations(option):
    chosen_one = chosen("augmentation", option).augmentation
    settings = None
    if isinstance(chosen_one, StandardAugmentation):
        settings = AugmentSettings(**chosen_one.model_dump(exclude={"name"}))
    image, mask = np.full((40, 30), 0.5, np.float32), np.ones((40, 30), np.uint8)
    image[:, 20:] = 0
    seen, _ = build_augmentation(settings)(image.copy(), mask, 7)
    assert np.array_equal(seen, image) == (option == "none")


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("option", options("dataset"))
def test_data_sets(command, option):
    needed = [*NEEDED["dataset"], *(["checkpoint=best.ckpt"] if command == "evaluate" else [])]
    dataset = composed(f"dataset={option}", *needed, command=command).dataset
    inspect.signature(source(dataset.name)).bind(Path("images"), **dataset.source_options())
    PrepareSettings(**dataset.prepare.model_dump())


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in ("recipe", "debug") for o in options(g)])
def test_recipes_and_debugging(group, option):
    assert chosen(group, option).pooling.name == "lem"

import inspect
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from lemlight.config.check import check
from lemlight.config.commands import (
    EvaluateConfig,
    ExportConfig,
    LocalizeConfig,
    PrepareCommandConfig,
    ReportConfig,
    TrainConfig,
)
from lemlight.config.conf_dir import conf_dir
from lemlight.data.datasets.registry import source
from lemlight.errors import LemlightError

SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "localize": LocalizeConfig,
    "prepare": PrepareCommandConfig,
    "report": ReportConfig,
}


def checked(*overrides, command="train"):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose(command, [*overrides, "output=run"])
    return check(config, SCHEMAS[command])


def test_the_defaults_are_right():
    config = checked()
    assert config.pooling.name == "lem"
    assert config.dataset.name == "phantom"
    assert config.dataset.source_options() == {"patients": 120, "seed": 0, "difficulty": 0.15, "scale": 1.0}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("batch_size=0", ["batch_size=0", "set batch_size="]),
        ("batch_size=many", ["batch_size=many", "integer"]),
        ("batch_size=true", ["batch_size=True", "integer"]),
        ("seed=-1", ["seed=-1"]),
        ("bootstrap=.nan", ["bootstrap"]),
        ("optimizer.lr_head=.inf", ["optimizer.lr_head"]),
        ("optimizer.lr_head=0", ["optimizer.lr_head=0"]),
        ("callbacks.lambda_ramp.start_at=0.8", ["before it starts", "callbacks.lambda_ramp.end_at"]),
        ("callbacks.checkpoint.monitor=val/auc", ["callbacks.checkpoint.monitor=val/auc", "val/auroc"]),
        ("callbacks.checkpoint.mode=min", ["callbacks.checkpoint", "mode=max"]),
        ("trainer.devices=x", ["trainer.devices=x", "integer or 'auto'"]),
        ("trainer.limit_train_batches=0", ["trainer.limit_train_batches=0"]),
        ("backbone.output_stride=8", ["backbone.output_stride=8", "16 or 32"]),
        ("backbone.weights=file", ["backbone", "weights_file"]),
        ("backbone.weights=imagenet", ["backbone", "bundled"]),
        ("dataset.split.test_share=0.9", ["dataset.split", "nothing is left to train on"]),
        ("dataset.split.fold=5", ["dataset.split", "below folds=5"]),
        ("dataset.prepare.height=8", ["dataset.prepare.height=8"]),
        ("scheduler.warmup_epochs=99", ["scheduler.warmup_epochs=99"]),
        ("label_names=[benign]", ["label_names"]),
        ("pooling.name=mean", ["pooling.name", "choose with pooling="]),
    ],
)
def test_an_impossible_value_is_refused_by_its_key_and_remedy(override, named):
    with pytest.raises(LemlightError) as caught:
        checked(override)
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize("pooling", ["rgp", "ggp"])
@pytest.mark.parametrize("k", ["0", "-0.1", "1.01"])
def test_k_lies_in_its_interval(pooling, k):
    with pytest.raises(LemlightError, match=r"pooling\.k="):
        checked(f"pooling={pooling}", f"pooling.k={k}")
    assert checked(f"pooling={pooling}", "pooling.k=1.0").pooling.k == 1.0


def test_all_mistakes_come_at_once():
    with pytest.raises(LemlightError) as caught:
        checked("batch_size=0", "pooling=rgp", "pooling.k=2", "trainer.max_epochs=0", "+typo=1")
    assert [key in str(caught.value) for key in ("batch_size", "pooling.k", "trainer.max_epochs", "typo")] == [True] * 4


def test_an_unknown_key_is_refused_with_the_nearest_one():
    with pytest.raises(LemlightError, match=r"optimizer\.lr_heads: there is no such key .did you mean lr_head"):
        checked("+optimizer.lr_heads=1")


def test_a_key_of_another_pooling_is_refused():
    with pytest.raises(LemlightError, match=r"pooling\.k"):
        checked("+pooling.k=0.5")


def test_a_value_that_the_user_must_give_is_asked_for():
    with pytest.raises(LemlightError, match=r"dataset\.root: a value is needed; give dataset\.root="):
        checked("dataset=cbis")
    with pytest.raises(LemlightError, match=r"checkpoint: a value is needed"):
        checked(command="evaluate")
    with pytest.raises(LemlightError, match=r"input: a value is needed"):
        checked("checkpoint=best.ckpt", command="localize")
    with pytest.raises(LemlightError, match=r"dataset\.root: a value is needed"):
        checked("dataset=vindr", command="prepare")
    with pytest.raises(LemlightError, match=r"runs: a value is needed"):
        checked(command="report")
    with pytest.raises(LemlightError, match=r"checkpoint: a value is needed"):
        checked(command="export")


def test_a_missing_key_is_named():
    config = OmegaConf.create({"checkpoint": "best.ckpt"})
    with pytest.raises(LemlightError, match=r"batch_size: the key is missing"):
        check(config, EvaluateConfig)


def test_a_target_in_a_config_is_an_unknown_key_and_is_never_called():
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", ["output=run"])
    with open_dict(config):
        config.optimizer._target_ = "os.system"
    with pytest.raises(LemlightError, match=r"optimizer\._target_: there is no such key"):
        check(config, TrainConfig)


def test_the_paper_recipe_holds_the_published_settings():
    config = checked("recipe=paper", "backbone=resnet18")
    assert (config.batch_size, config.trainer.max_epochs, config.threshold) == (32, 400, 0.5)
    assert (config.optimizer.lr_backbone, config.optimizer.lr_head) == (2e-5, 1e-4)
    assert (config.scheduler.every_epochs, config.scheduler.factor) == (8, 0.98)
    assert (config.dataset.prepare.height, config.dataset.prepare.width) == (800, 800)
    assert config.augmentation.degrees == 30


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(conf_dir(), "dataset").glob("*.yaml")))
def test_every_data_set_composes_with_options_that_its_source_takes(name):
    config = checked(f"dataset={name}", "dataset.root=somewhere")
    assert config.dataset.name == name
    taken = inspect.signature(source(name)).parameters
    assert set(config.dataset.source_options()) <= set(taken)


EXPERIMENTS = sorted(path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml"))


def axes(name):
    """Every value on every axis of an experiment, as an override; of a search the ends of its intervals and choices."""
    values = OmegaConf.load(Path(conf_dir(), "experiment", f"{name}.yaml")).hydra.sweeper.params
    plain = {key: re.sub(r"^(tag\(log, *)?(choice|interval)\(|\)+$", "", str(swept)) for key, swept in values.items()}
    return [f"{key}={value.strip()}" for key, swept in plain.items() for value in swept.split(",")]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_on_an_axis_of_an_experiment_composes(name):
    for override in axes(name):
        config = checked(f"experiment={name}", "dataset.root=somewhere", override)
        assert (config.dataset.name, config.trainer.max_epochs) != ("phantom", 400)
        assert config.optimizer.lr_backbone == 2e-5 or override.startswith("optimizer.lr_backbone=")


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", sorted(path.stem for path in Path(conf_dir(), "scale").glob("*.yaml")))
def test_a_small_scale_makes_any_experiment_one_of_the_phantom(name, scale):
    config = checked(f"experiment={name}", f"+scale={scale}", axes(name)[0])
    assert (config.dataset.name, config.backbone.weights, config.trainer.accelerator) == ("phantom", "none", "cpu")
    assert config.trainer.max_epochs <= 12
    assert config.dataset.prepare.height < 300


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_sweep_and_has_its_folder(name):
    folder = Path(conf_dir()).parent / "experiments" / name
    assert (folder / f"{name}.yaml").resolve() == Path(conf_dir(), "experiment", f"{name}.yaml")
    text = (folder / "README.md").read_text()
    assert f"python -m lemlight.train experiment={name}" in text
    assert f"experiment={name} +scale=small" in text
    assert OmegaConf.load(folder / f"{name}.yaml").hydra.mode == "MULTIRUN"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("dataset=inbreast dataset.malignant_from=1", "dataset.malignant_from=1"),
        ("dataset=inbreast dataset.malignant_from=4a", "dataset.malignant_from=4a"),
        ("dataset=inbreast dataset.leave_out=[7]", "dataset.leave_out"),
        ("dataset=mias dataset.normal_images=some", "dataset.normal_images=some"),
        ("dataset=vindr dataset.malignant_from=6", "dataset.malignant_from=6"),
        ("dataset=vindr dataset.leave_out=[4a]", "dataset.leave_out"),
        ("dataset=rsna dataset.views=[]", "dataset.views"),
        ("dataset=rsna dataset.views=[CC,XX]", "dataset.views"),
        ("dataset=cmmd dataset.normal_images=some", "dataset.normal_images=some"),
    ],
)
def test_an_impossible_option_of_a_data_set_is_refused(override, named):
    with pytest.raises(LemlightError) as caught:
        checked(*override.split(), "dataset.root=somewhere")
    assert named in str(caught.value)


def test_birads_categories_to_leave_out():
    config = checked("dataset=inbreast", "dataset.root=somewhere", "dataset.leave_out=[3,4a]")
    assert config.dataset.source_options()["leave_out"] == [3, "4a"]

"""Every option of every group composes, passes the check and is built; what a constructor would not take is named."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from lemlight.building import build, check_settings, check_trust, locate
from lemlight.cli import conf_dir
from lemlight.errors import LemlightError
from lemlight.limits import Limits
from lemlight.models.classifier import build_classifier
from lemlight.settings import EvaluateSettings
from lemlight.training.callbacks import build_callbacks
from lemlight.training.logging import build_loggers, finish_loggers
from lemlight.training.optimizers import build_optimizer
from lemlight.training.trainer import build_trainer, dataset_to_test, try_parts
from tests.composing import settings_of, values_of

CPU = ("trainer.devices=1", "trainer.accelerator=cpu", "trainer.precision=32-true")
NEEDED = {
    "dataset": ["dataset.root=images"],
    "backbone=torchvision": ["backbone.name=mobilenet_v3_small"],
    "backbone=timm": ["backbone.name=resnet10t"],
    "pooling=multi_scale": ["backbone=pyramid"],
}


def options(group):
    return sorted(file.stem for file in Path(conf_dir(), group).glob("*.yaml"))


def every_option(*groups):
    return pytest.mark.parametrize(("group", "option"), [(group, name) for group in groups for name in options(group)])


def chosen(group, option, *more):
    needed = [*NEEDED.get(group, []), *NEEDED.get(f"{group}={option}", [])]
    return settings_of(f"{group}={option}", *needed, *CPU, "backbone.weights=none", *more)


def built_network(config):
    return build_classifier(config.model_dump())


@every_option("backbone", "pooling")
def test_networks(group, option):
    network = built_network(chosen(group, option)).eval()
    scores, stride = network(torch.rand(2, 1, 64, 96)), network.output_stride
    assert scores.logit.shape == (2,)
    assert scores.score_map.shape[1:] == (64 // stride, 96 // stride)


@every_option("loss", "optimizer", "scheduler", "trainer", "callbacks", "logger", "recipe", "debug")
def test_what_a_network_is_trained_with(group, option, tmp_path):
    config = chosen(group, option, f"output={tmp_path}")
    assert config.choices["pooling"] == "lem"
    network = built_network(config)
    try_parts(config.model_dump(), network)
    optimizer = build_optimizer(network, config.optimizer)
    assert 0 < optimizer.param_groups[0]["lr"] <= max(config.optimizer["lr_backbone"], config.optimizer["lr_head"])
    loggers = build_loggers(config.logger or {}, config.model_dump())
    try:
        trainer = build_trainer(config.trainer, tmp_path, build_callbacks(config.callbacks), loggers)
        assert trainer.max_epochs == config.trainer["max_epochs"]
        assert len(trainer.loggers) == len(config.logger or {})
    finally:
        finish_loggers(loggers, failed=False)


@pytest.mark.parametrize("choice", [True, False])
def test_the_bias_of_the_scorer_and_the_cells_in_the_air_are_choices(choice):
    words = [f"scorer_bias={choice}", f"inside_breast={choice}", "backbone.weights=none"]
    classifier = built_network(settings_of(*words))
    assert ((classifier.scorer.bias is not None), classifier.inside_breast) == (choice, choice)


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["trainer=gpu", "trainer.devices=99"], "trainer=cpu run on any machine"),
        (["trainer=cpu", "trainer.precision=bf16-mixed"], "use trainer.precision=32-true"),
        (["trainer=ddp_cpu", "trainer.sync_batchnorm=true"], "on GPUs only"),
    ],
)
def test_what_this_machine_cannot_train_is_refused_before_any_image(overrides, remedy):
    with pytest.raises(LemlightError, match=remedy):
        try_parts(values_of(*overrides), torch.nn.Identity())


def test_deterministic_algorithms_are_asked_for_or_those_of_a_cpu(tmp_path, monkeypatch):
    def asked(*overrides, gpu=False):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
        built = []
        monkeypatch.setattr("lemlight.training.trainer.build", lambda part, *_, **more: built.append(part))
        build_trainer(values_of(*overrides)["trainer"], tmp_path, [], [])
        return built[0]["deterministic"]

    assert asked("trainer=default") is asked("trainer=cpu", gpu=True) is True
    assert (
        asked("trainer=default", gpu=True) is asked("trainer=gpu", gpu=True) is asked("trainer=ddp", gpu=True) is False
    )
    assert asked("trainer=gpu", "trainer.deterministic=true", gpu=True) is True
    assert asked("trainer=cpu", "trainer.deterministic=false") is False


@pytest.mark.parametrize("option", options("augmentation"))
def test_augmentations(option):
    image = np.full((40, 30), 30000, np.uint16)
    image[:, 20:] = 0
    seen = build(chosen("augmentation", option).augmentation, "augmentation")(image.copy(), 7)
    assert np.array_equal(seen, image) == (option == "none")


@pytest.mark.parametrize("command", ["train", "evaluate", "prepare"])
@pytest.mark.parametrize("option", options("dataset"))
def test_data_sets(command, option):
    needed = ["dataset.root=images", *(["checkpoint=best.ckpt"] if command == "evaluate" else [])]
    assert settings_of(f"dataset={option}", *needed, command=command).choices["dataset"] == option


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("batch_size=0", ["batch_size=0", "set batch_size="]),
        ("batch_size=many", ["batch_size=many", "integer"]),
        ("bootstrap=.nan", ["bootstrap"]),
        ("optimizer.lr_head=.inf", ["optimizer.lr_head"]),
        ("callbacks.lambda_ramp.start_at=2", ["callbacks.lambda_ramp.start_at=2"]),
        ("callbacks.checkpoint.mode=up", ["callbacks.checkpoint.mode=up", "'min' or 'max'"]),
        ("trainer.devices=[x]", ["trainer.devices"]),
        ("trainer.max_epochs=many", ["trainer.max_epochs=many", "integer"]),
        ("backbone.output_stride=8", ["backbone.output_stride=8", "16 or 32"]),
        ("backbone.weights=imagenet", ["backbone.weights=imagenet", "bundled"]),
        ("dataset.prepare.height=8", ["dataset.prepare.height=8"]),
        ("dataset.split.test_fraction=0.9", ["test_fraction=0.9", "nothing to train on"]),
        ("dataset.split.fold=5", ["dataset.split.fold=5", "below folds=5"]),
        ("label_names=[benign]", ["label_names"]),
        ("+trainer.max_epoch=3", ["trainer.max_epoch: there is no such key", "did you mean max_epochs?"]),
        ("+optimizer.lr_heads=1", ["optimizer.lr_heads: there is no such key", "did you mean lr_head?"]),
        ("+pooling.k=0.5", ["pooling.k: there is no such key"]),
        ("+typo=1", ["typo: there is no such key"]),
        (
            "pooling._target_=lemlight.models.pooling.GlobalPooling",
            ["has no attribute", "did you mean Global"],
        ),
        ("pooling._target_=nowhere.Mine", ["No module named 'nowhere'", "PYTHONPATH"]),
        ("pooling._target_=math.pi", ["pooling._target_=math.pi", "no class or function"]),
        ("dataset=inbreast dataset.malignant_from=1", ["dataset.malignant_from=1"]),
        ("dataset=inbreast dataset.leave_out=[7]", ["dataset.leave_out"]),
        ("dataset=mias dataset.normal_images=some", ["dataset.normal_images=some"]),
        ("dataset=rsna dataset.views=[CC,XX]", ["dataset.views"]),
    ],
)
def test_an_impossible_value_is_refused_by_its_key_and_remedy(override, named):
    with pytest.raises(LemlightError) as caught:
        settings_of("dataset.root=images", *override.split())
    for part in named:
        assert part in str(caught.value)


def test_all_mistakes_come_at_once():
    with pytest.raises(LemlightError) as caught:
        settings_of("pooling=rgp", "pooling.k=2", "trainer.max_epochs=x", "+loss.typo=1", "dataset.patients=-1")
    named = ("pooling.k=2", "trainer.max_epochs=x", "loss.typo", "dataset.patients=-1")
    assert [part in str(caught.value) for part in named] == [True] * 4


@pytest.mark.parametrize(
    ("overrides", "command", "key"),
    [
        (["dataset=cbis"], "train", "dataset.root"),
        (["checkpoint=best.ckpt"], "localize", "input"),
        ([], "report", "runs"),
        ([], "export", "checkpoint"),
    ],
)
def test_a_value_that_the_user_must_give_is_asked_for(overrides, command, key):
    with pytest.raises(LemlightError, match=rf"{key}: a value is needed; give {key}="):
        settings_of(*overrides, command=command)


def test_where_a_data_set_lies_may_stand_in_the_environment(monkeypatch):
    asked = {"dataset": settings_of("dataset=cbis", "dataset.root=there").dataset}
    checkpoint = SimpleNamespace(preprocessing=asked["dataset"]["prepare"], config=asked, choices={"dataset": "cbis"})
    with pytest.raises(LemlightError, match=r"dataset=cbis dataset\.root=DIR"):
        dataset_to_test(checkpoint, None, None)
    monkeypatch.setenv("LEMLIGHT_CBIS", "/data/a b=1,")
    assert settings_of("dataset=cbis").dataset["root"] == "/data/a b=1,"
    assert settings_of("dataset=cbis", "dataset.root=there").dataset["root"] == "there"
    assert dataset_to_test(checkpoint, None, None) == ("cbis", {**asked["dataset"], "root": "/data/a b=1,"})


def test_a_missing_key_is_named():
    with pytest.raises(LemlightError, match=r"batch_size: a value is needed"):
        check_settings({"checkpoint": "best.ckpt"}, EvaluateSettings)


def test_a_constructor_that_fails_is_named_with_its_part():
    with pytest.raises(LemlightError, match=r"pooling: torch.nn.Linear failed in its constructor with TypeError"):
        build({"_target_": "torch.nn.Linear", "in_features": "many", "out_features": 2}, "pooling")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"backbone": {"_target_": "torch.nn.Identity"}}, "out_channels"),
        ({"pooling": {"_target_": "torch.nn.Flatten"}}, r"pooling: torch.nn.Flatten failed on score maps"),
        ({"pooling": {"_target_": "tests.test_building.TwoColumns"}}, r"logits \(N,\).* of 2 maps it made \(2, 1\)"),
        ({"pooling": {"_target_": "builtins.dict"}}, "gives no Module, but dict"),
    ],
)
def test_a_part_of_another_kind_is_refused_before_any_image(parts, message):
    config = values_of("backbone.weights=none") | parts
    with pytest.raises(LemlightError, match=message):
        build_classifier(config)


class TwoColumns(torch.nn.Module):
    def forward(self, score_map, features, scorer):
        return score_map.mean(dim=(1, 2)).unsqueeze(1)


OWN = {"backbone": {"_target_": "lemlight.models.backbones.torchvision_cnn", "name": "resnet18"}}


@pytest.mark.parametrize(
    "config",
    [
        {"pooling": {"_target_": "os.system", "command": "true"}},
        {"pooling": {"_target_": "lemlight.cli.os.system"}},
        {"pooling": {"_target_": "lemlight.models.pooling.torch.hub.load"}},
        {"pooling": {"_target_": "lemlight.models.pooling.torch"}},
        {"pooling": {"_target_": "lemlight.models.pooling.checked"}},
        {"pooling": {"_target_": "lemlight.files.write_json", "path": "x"}},
        {"pooling": {"_target_": "torch.load", "f": "x"}},
        {"pooling": {"_target_": "torch.optim.Adam"}},
        {"pooling": {"_target_": ["os", "system"]}},
        {"pooling": {"_target_": "lemlight.models.pooling.LogSumExpPooling", "r": {"_target_": "os.getpid"}}},
        {"pooling": {"_target_": "lemlight.models.pooling.LogSumExpPooling", "_args_": [1]}},
        {"pooling": {"_target_": "lemlight.models.pooling.LogSumExpPooling", "_args_": []}},
        {"pooling": {"_target_": "lemlight.models.pooling.LogSumExpPooling", "_convert_": "all"}},
        {"pooling": {"_target_": "lemlight.models.pooling.LogSumExpPooling", "r": "${oc.env:HOME}"}},
        {"pooling": {"_target_": "lemlight.models.pooling.LogSumExpPooling", "r": ["${sweep_name:a,b}"]}},
        {"optimizer": {"_target_": "torch.optim.lr_scheduler.os.system"}},
        {"trainer": {"_target_": "pytorch_lightning.Trainer", "profiler": {"_target_": "os.getpid"}}},
        {"callbacks": {"mine": {"_target_": "own.Callback"}}},
        {"elsewhere": {"_target_": "lemlight.models.pooling.LogSumExpPooling"}},
    ],
)
def test_a_config_from_a_stranger_builds_nothing_but_parts_of_lemlight(config):
    with pytest.raises(LemlightError, match=r"FILE (is refused|holds a part from outside)"):
        check_trust(OWN | config, [], "FILE")


def test_a_module_that_fails_on_import_says_why_and_a_method_of_a_class_may_build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("import nowhere_at_all")
    with pytest.raises(LemlightError, match=r"pooling._target_=mine.Pool: .*No module named 'nowhere_at_all'"):
        locate("mine.Pool", "pooling")
    assert locate("torch.nn.Embedding.from_pretrained", "pooling") == torch.nn.Embedding.from_pretrained


def test_trust_is_by_module_and_names_the_remedy():
    config = {"pooling": {"_target_": "own.TopMean", "k": 3}}
    with pytest.raises(LemlightError, match=r"own.TopMean.*add trust=\[own\]"):
        check_trust(config, ["other", "ow"], "FILE")
    check_trust(config, ["own"], "FILE")
    check_trust(OWN | values_of("backbone.weights=none"), [], "FILE")


def test_the_paper_recipe_holds_the_published_settings():
    config = settings_of("recipe=paper", "backbone=resnet18")
    assert (config.batch_size, config.trainer["max_epochs"], config.threshold) == (32, 400, 0.5)
    assert (config.optimizer["lr_backbone"], config.optimizer["lr_head"]) == (2e-5, 1e-4)
    assert (config.scheduler["every_epochs"], config.scheduler["factor"]) == (8, 0.98)
    assert (config.dataset["prepare"]["height"], config.dataset["prepare"]["width"]) == (800, 800)
    assert config.augmentation["degrees"] == 30


@pytest.mark.parametrize(
    ("chosen", "dataset"), [([], "phantom_film"), (["dataset=phantom"], "phantom"), (["dataset=mias"], "mias")]
)
def test_the_demo_shows_film_unless_another_data_set_is_chosen(chosen, dataset):
    config = settings_of("recipe=demo", "dataset.root=images", *chosen)
    assert (config.choices["dataset"], config.trainer["max_epochs"]) == (dataset, 10)
    assert config.dataset.get("film") == {"phantom_film": 0.25, "phantom": 0.0}.get(dataset)


EXPERIMENTS = options("experiment")


def axes(name):
    """The values on every axis of an experiment; of a search the ends of its intervals and choices."""
    values = OmegaConf.load(Path(conf_dir(), "experiment", f"{name}.yaml")).hydra.sweeper.params
    plain = {key: re.sub(r"^(tag\(log, *)?(choice|interval)\(|\)+$", "", str(swept)) for key, swept in values.items()}
    return {key: [value.strip() for value in swept.split(",")] for key, swept in plain.items()}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_on_an_axis_of_an_experiment_composes(name):
    swept = axes(name)
    for number in range(max(map(len, swept.values()))):
        chosen = {key: values[number % len(values)] for key, values in swept.items()}
        given = [f"{key}={value}" for key, value in chosen.items()]
        config = settings_of(f"experiment={name}", "dataset.root=somewhere", *given)
        assert (config.choices["dataset"], config.trainer["max_epochs"]) != ("phantom", 400)
        rate = 5e-4 if config.choices["recipe"] == "demo" else 2e-5  # of the recipe, whatever stands in the files
        assert config.optimizer["lr_backbone"] == float(chosen.get("optimizer.lr_backbone", rate))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_small_scale_makes_any_experiment_one_of_the_phantom(name):
    config = settings_of(f"experiment={name}", "+scale=small")
    assert (config.choices["dataset"], config.backbone["weights"]) == ("phantom", "none")
    assert config.trainer["accelerator"] == "cpu"
    assert config.trainer["max_epochs"] <= 12
    assert config.dataset["prepare"]["height"] < 300


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_sweep_and_has_its_folder(name):
    folder = Path(conf_dir()).parent / "experiments" / name
    assert (folder / f"{name}.yaml").resolve() == Path(conf_dir(), "experiment", f"{name}.yaml")
    text = (folder / "README.md").read_text()
    assert f"python -m lemlight.train experiment={name}" in text
    assert f"experiment={name} +scale=small" in text
    assert OmegaConf.load(folder / f"{name}.yaml").hydra.mode == "MULTIRUN"


def test_what_reading_a_file_may_cost_is_the_same_in_the_constructor_and_for_every_command():
    for command in ("train", "evaluate", "localize", "prepare", "export"):
        given = [f"{name}=x" for name in ("checkpoint", "input") if command in ("evaluate", "localize", "export")]
        given = given[:1] if command == "evaluate" else given
        assert settings_of(*given, command=command).limits == Limits()
    with pytest.raises(LemlightError, match=r"limits\.seconds=-1"):
        settings_of("limits.seconds=-1")

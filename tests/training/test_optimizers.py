"""Optimizers with two rates, and the rate over the training."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from lemlight.training.optimizers import WARMUP_START, build_optimizer, build_scheduler, parameter_groups
from tests.parts import build_backbone, part_of

RATES = {"lr_backbone": 1e-3, "lr_head": 1e-2, "weight_decay": 0.1}


def test_every_trainable_parameter_is_in_one_group_with_its_rate_and_decay(tiny):
    classifier = tiny.make_classifier(pooling="attention_mil")
    groups = parameter_groups(classifier, **RATES)
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(settings) == len(list(classifier.parameters()))
    for name, parameter in classifier.named_parameters():
        rate = 1e-3 if name.startswith("backbone.") else 1e-2
        assert settings[id(parameter)] == (rate, 0.1 if parameter.ndim > 1 else 0.0), name


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_an_error(tiny):
    classifier = tiny.make_classifier()
    classifier.backbone.requires_grad_(False)
    assert {g["part"] for g in parameter_groups(classifier, **RATES)} == {"head"}
    classifier.requires_grad_(False)
    with pytest.raises(LemlightError, match="frozen"):
        build_optimizer(classifier, part_of("optimizer", "adam", **RATES))


BLOCKS = {  # first and last parameter, and the number of blocks
    "resnet18": ("conv1.weight", "layer4.1.bn2.bias", 9),
    "densenet121": ("features.conv0.weight", "features.norm5.bias", 8),
    "convnext_tiny": ("features.0.0.weight", "features.7.2.block.5.bias", 22),
    "efficientnet_lite0": ("_conv_stem.weight", "_bn1.bias", 18),
    "timm convnext_atto": ("network.stem.0.weight", "network.stages.3.blocks.1.mlp.fc2.bias", 13),
    "timm vit_tiny_patch16_224": ("network.cls_token", "network.norm.bias", 13),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_rates_by_depth_fall_from_the_last_block_to_the_first(name):
    first, last, blocks = BLOCKS[name]
    backbone = build_backbone(name, output_stride=None if name.startswith("timm") else 32)
    classifier = MammogramClassifier(backbone, Scorer(backbone.out_channels), torch.nn.Identity())
    groups = parameter_groups(classifier, **RATES, layer_decay=0.5)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    named = dict(backbone.features.named_parameters())
    assert sum(len(g["params"]) for g in groups) == len(rates) == sum(p.requires_grad for p in classifier.parameters())
    assert rates[id(classifier.scorer.weight)] == 1e-2
    assert rates[id(named[last])] == 1e-3
    assert rates[id(named[first])] == pytest.approx(1e-3 * 0.5 ** (blocks - 1))
    assert {g["lr"] for g in groups if g["part"] == "backbone"} == {1e-3 * 0.5**depth for depth in range(blocks)}


def test_blocks_by_hand_and_a_rate_per_block_reaches_the_optimizer(tiny):
    classifier = tiny.make_classifier()  # convolution, normalisation
    assert {g["lr"] for g in parameter_groups(classifier, **RATES, layer_decay=0.1)} == {1e-3, 1e-2}
    layers = [torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))]
    classifier.backbone = torch.nn.Sequential(*layers, torch.nn.Conv2d(1, 1, 1))
    optimizer = build_optimizer(classifier, part_of("optimizer", "adamw", lr_backbone=1.0, layer_decay=0.5))
    rates = [{g["lr"] for g in optimizer.param_groups for p in g["params"] if any(p is q for q in layer.parameters())}
             for layer in classifier.backbone]  # fmt: skip
    assert rates == [{0.25}, {0.25}, {0.5}, {1.0}]


def test_any_optimizer_and_scheduler_of_torch_will_do(tiny):
    rates = {"lr_backbone": 1e-3, "lr_head": 1e-2}
    optimizer = build_optimizer(tiny.make_classifier(), {"_target_": "torch.optim.RMSprop", "alpha": 0.95, **rates})
    assert all(group["alpha"] == 0.95 and group["weight_decay"] == 0 for group in optimizer.param_groups)
    part = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1, "interval": "step"}
    built = build_scheduler(optimizer, part, total_steps=30, epochs=10)
    assert (built["interval"], built["scheduler"].total_steps) == ("step", 30)
    assert (
        build_scheduler(optimizer, {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 8}, 30, 10)["interval"]
        == "epoch"
    )
    with pytest.raises(LemlightError, match=r"optimizer: torch.optim.RMSprop failed in its constructor.*alpha"):
        build_optimizer(tiny.make_classifier(), {"_target_": "torch.optim.RMSprop", "alpha": -1.0, **rates})


STEPS = 100  # of an epoch: fine enough to look at any fraction of one


def schedule_factor(name, epoch, epochs, **arguments):
    """The factor on the rates at a fractional epoch."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}]
    part = part_of("scheduler", name, **arguments)
    built = build_scheduler(torch.optim.SGD(groups), part, total_steps=STEPS * epochs, epochs=epochs)["scheduler"]
    return built.lr_lambdas[0](epoch * STEPS)


STEP = {"every_epochs": 8, "factor": 0.98, "warmup_epochs": 0.0}
COSINE = {"final_fraction": 0.1, "warmup_epochs": 2.0}


@pytest.mark.parametrize(("epoch", "decays"), [(0, 0), (7.99, 0), (8, 1), (15.99, 1), (16, 2), (400, 50)])
def test_step_decays_after_every_eighth_epoch(epoch, decays):
    assert schedule_factor("step", epoch, 400, **STEP) == pytest.approx(0.98**decays)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 0.01), (1, 0.505), (2, 1.0), (6, 0.55), (10, 0.1), (4, 0.1 + 0.45 * (1 + math.sqrt(0.5)))]
)
def test_cosine_by_hand(epoch, factor):
    assert schedule_factor("cosine", epoch, 10, **COSINE) == pytest.approx(factor)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 20), st.floats(0, 19), st.sampled_from(["step", "cosine", "constant"]))
def test_factors_lie_in_0_1_rise_in_the_warm_up_and_never_after(epoch, warmup, name):
    more = {"step": {"every_epochs": 3, "factor": 0.5}, "cosine": {"final_fraction": 0.0}, "constant": {}}
    options = {**more[name], "warmup_epochs": warmup}
    here, later = (schedule_factor(name, at, 20, **options) for at in (epoch, min(epoch + 0.01, 20)))
    assert 0 <= here <= 1
    if epoch >= warmup:
        assert later <= here + 1e-12  # the epoch is a float
    if name == "constant":
        rise = 1.0 if epoch >= warmup else WARMUP_START + (1 - WARMUP_START) * epoch / warmup
        assert here == pytest.approx(rise)


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(LemlightError, match=r"scheduler.warmup_epochs=4.* must stay below trainer.max_epochs=3"):
        schedule_factor("constant", 0, 3, warmup_epochs=4.0)


def test_under_accumulation_a_schedule_counts_optimizer_steps_not_batches(tiny, tmp_path):
    seen = []

    class Rates(tiny.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append((trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"]))

    schedule = part_of("scheduler", "step", every_epochs=2, factor=0.5, warmup_epochs=0.0)
    module = tiny.make_module(schedule=schedule)
    trainer = tiny.make_trainer(tmp_path, epochs=4, accumulate_grad_batches=4, more=[Rates()])
    tiny.fit(trainer, module, tiny.make_data(train=22, batch_size=4), None)  # 6 batches, so 2 steps an epoch
    assert seen == [(2, 0.01), (4, 0.005), (6, 0.005), (8, 0.0025)]

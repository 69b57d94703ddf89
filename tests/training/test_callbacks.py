"""The ramp of lambda, what may be watched, and fine-tuning: freezing at first, averaged weights, mixed images."""

import csv
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Callback

from lemlight.building import build
from lemlight.errors import LemlightError
from lemlight.training.callbacks import (
    FreezeAtFirst,
    LambdaRamp,
    MixUp,
    ReseedEveryEpoch,
    Shape,
    build_callbacks,
    check_monitors,
    ramp_value,
)
from lemlight.training.checkpoint import load_checkpoint
from tests.composing import values_of
from tests.parts import combined_loss, part_of

GIVEN = {"start_value": 0.1, "end_value": 0.9, "start_at": 0.2, "end_at": 0.6}


@pytest.mark.parametrize(
    ("shape", "share", "value"),
    [
        ("linear", 0.0, 0.1),
        ("linear", 0.2, 0.1),
        ("linear", 0.3, 0.3),
        ("linear", 0.4, 0.5),
        ("linear", 0.6, 0.9),
        ("linear", 1.0, 0.9),
        ("cosine", 0.3, 0.1 + 0.8 * (1 - 0.5**0.5) / 2),
        ("cosine", 0.4, 0.5),
        ("step", 0.59, 0.1),
        ("step", 0.61, 0.9),
    ],
)
def test_values_by_hand(shape, share, value):
    assert ramp_value(shape, share, **GIVEN) == pytest.approx(value)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(get_args(Shape)), st.floats(0, 1), st.floats(0, 1))
def test_a_rising_ramp_never_falls_and_keeps_its_ends(shape, one, other):
    low, high = sorted((one, other))
    assert 0.1 <= ramp_value(shape, low, **GIVEN) <= ramp_value(shape, high, **GIVEN) <= 0.9
    assert (ramp_value(shape, 0, **GIVEN), ramp_value(shape, 1, **GIVEN)) == (0.1, 0.9)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(LemlightError) as caught:
        LambdaRamp("square", start_value=-0.1, end_value=1.5, start_at=0.5, end_at=0.6)
    for part in ("shape=square", "start_value=-0.1", "end_value=1.5"):
        assert part in str(caught.value)
    with pytest.raises(LemlightError, match=r"start_at=0.5 below end_at=0.5"):
        LambdaRamp("linear", start_value=0.0, end_value=1.0, start_at=0.5, end_at=0.5)


@pytest.mark.parametrize(("pooling", "every", "lam"), [("lem", False, 0.5), ("gmp", False, 1.0), ("gmp", True, 0.5)])
def test_lambda_ramps_for_lem_alone_unless_all_are_to(tiny, tmp_path, pooling, every, lam):
    ramp = {"shape": "linear", "start_value": 0.5, "end_value": 0.5, "start_at": 0.0, "end_at": 1.0}
    module = tiny.make_module(tiny.make_classifier(pooling=pooling))
    module.config["loss"]["ramp_all_poolings"] = every
    trainer = tiny.make_trainer(tmp_path, epochs=1, ramp=ramp)
    tiny.fit(trainer, module, tiny.make_data(), None)
    assert (module.lam, "lambda" in trainer.callback_metrics) == (lam, lam < 1)


def test_the_module_gets_lambda_before_every_batch_and_the_last_step_its_end(tiny, tmp_path):
    seen = []

    class Look(tiny.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(pl_module.lam)

    ramp = {"shape": "linear", "start_value": 0.0, "end_value": 1.0, "start_at": 0.0, "end_at": 1.0}
    trainer = tiny.make_trainer(tmp_path, epochs=2, ramp=ramp, more=[Look()])
    tiny.fit(trainer, tiny.make_module(), tiny.make_data(train=16), None)  # 4 batches, 2 steps an epoch
    assert seen == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        logged = [float(row["lambda"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([1 / 3, 1])


def watch(monitor, mode=None, name="checkpoint", target="lemlight.training.callbacks.FolderCheckpoint"):
    return {name: {"_target_": target, "monitor": monitor, "mode": mode}}


@pytest.mark.parametrize("monitor", ["val/loss", "val/auroc", "train/loss"])
def test_two_classes_allow_everything_that_is_logged(monitor):
    check_monitors(watch(monitor), [0, 1, 1])


@pytest.mark.parametrize(
    ("parts", "labels", "message"),
    [
        (
            watch("val/auroc", name="early_stopping"),
            [1, 1],
            r"one class only.*callbacks.early_stopping.monitor=val/los",
        ),
        (watch("val/loss"), [], "no image"),
        (watch("val/dice"), [0, 1], r"val/dice is not logged.*choose one of val/loss"),
        (watch("val/auroc", "min"), [0, 1], r"better at its max; set callbacks.checkpoint.mode=max"),
    ],
)
def test_what_cannot_be_watched_names_the_remedy(parts, labels, message):
    with pytest.raises(LemlightError, match=message):
        check_monitors(parts, labels)


def test_a_callback_from_outside_may_log_what_is_watched():
    check_monitors(watch("val/dice") | {"mine": {"_target_": "own.Dice"}}, [0, 1])


def test_without_checkpoints_nothing_would_be_left():
    with pytest.raises(
        LemlightError, match=r"checkpoint, last_checkpoint, epoch_table is missing.*defaults: \[default"
    ):
        build_callbacks({"mine": part_of("callbacks", "default")["reseed"]})


class StopAfter(Callback):
    """End a training early, as the same one would be cut off."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def fitted(tiny, folder, callback, epochs=3):
    """Train to an epoch of three, from where the folder stands; random numbers are seeded before the callback draws."""
    module, last = tiny.make_module(), folder / "checkpoints" / "last.ckpt"
    trainer = tiny.make_trainer(folder, epochs=3, more=[ReseedEveryEpoch(0), callback, StopAfter(epochs)])
    tiny.fit(trainer, module, tiny.make_data(), last if last.is_file() else None)
    return module


def assert_same(one, other):
    for name in ("best", "last"):
        first, second = weights_of(one, name), weights_of(other, name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert (one / "logs" / "metrics.csv").read_text() == (other / "logs" / "metrics.csv").read_text()


def weights_of(folder, name="last"):
    return load_checkpoint(folder / "checkpoints" / f"{name}.ckpt").state_dict


def test_frozen_at_first_the_backbone_is_trained_later_and_resuming_changes_nothing(tiny, tmp_path):
    start = tiny.make_module().classifier.state_dict()
    fitted(tiny, tmp_path / "two", FreezeAtFirst(2), epochs=2)
    frozen = weights_of(tmp_path / "two")
    for name, value in start.items():  # statistics of the normalisation included
        assert torch.equal(frozen[name], value) == name.startswith("backbone."), name
    module = fitted(tiny, tmp_path / "two", FreezeAtFirst(2))
    assert not module.classifier.frozen
    assert all(weight.requires_grad for weight in module.classifier.parameters())
    fitted(tiny, tmp_path / "straight", FreezeAtFirst(2))
    assert not torch.equal(weights_of(tmp_path / "straight")["backbone.0.weight"], start["backbone.0.weight"])
    assert_same(tmp_path / "straight", tmp_path / "two")


def test_freezing_is_refused_where_nothing_or_everything_waits_for_the_backbone():
    with pytest.raises(LemlightError, match=r"backbone.frozen=true never trains the backbone"):
        FreezeAtFirst(2, run_config={"backbone": {"frozen": True}})
    trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(_ddp_kwargs={}))
    with pytest.raises(LemlightError, match=r"trainer.strategy=ddp_find_unused_parameters_true"):
        FreezeAtFirst(2).setup(trainer, None, "fit")
    trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
    FreezeAtFirst(2).setup(trainer, None, "fit")


def ema():
    return build({"_target_": "pytorch_lightning.callbacks.EMAWeightAveraging", "decay": 0.8}, "callbacks.ema")


def test_the_checkpoint_holds_the_average_of_the_weights_and_resuming_is_exact(tiny, tmp_path):
    steps = []

    class Watch(tiny.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step > len(steps):
                steps.append(module.classifier.scorer.weight.detach().clone())

    module, folder = tiny.make_module(), tmp_path / "straight"
    trainer = tiny.make_trainer(folder, epochs=3, more=[Watch(), ema()])
    tiny.fit(trainer, module, tiny.make_data(), None)
    average = steps[0]
    for weight in steps[1:]:
        average = 0.8 * average + 0.2 * weight
    torch.testing.assert_close(weights_of(folder)["scorer.weight"], average)
    torch.testing.assert_close(module.classifier.scorer.weight.detach(), average)
    assert not torch.allclose(steps[-1], average)
    fitted(tiny, tmp_path / "resumed", ema(), epochs=2)
    fitted(tiny, tmp_path / "resumed", ema())
    assert_same(folder, tmp_path / "resumed")


def test_mixed_images_have_mixed_labels():
    images = torch.zeros(4, 1, 2, 3, dtype=torch.uint16)
    images[1] = 65535
    batch = {"image": images, "label": torch.tensor([0.0, 1.0, 0.0, 1.0]), "index": torch.arange(4)}
    torch.manual_seed(0)
    MixUp(0.4).on_train_batch_start(None, None, batch, 0)
    fraction = float(batch["image"][1, 0, 0, 0])
    assert 0 < fraction < 1
    assert batch["image"][:, 0, 0, 0].tolist() == pytest.approx([0, fraction, 1 - fraction, 0])
    assert batch["label"].tolist() == pytest.approx([1 - fraction, fraction, 1 - fraction, fraction])


def test_the_loss_of_a_mixed_label_is_the_mixed_loss_also_with_lem(tiny, tmp_path):
    classifier, images = tiny.make_classifier().eval(), torch.rand(3, 1, 20, 14)
    scores = classifier(images)

    def loss(label):
        return combined_loss(scores, label, 0.7, 0.1, positive_weight=3.0)["total"]

    one, other = torch.tensor([0.0, 1, 1]), torch.tensor([1.0, 1, 0])
    torch.testing.assert_close(loss(0.3 * one + 0.7 * other), 0.3 * loss(one) + 0.7 * loss(other))
    fitted(tiny, tmp_path / "straight", MixUp(0.4))
    fitted(tiny, tmp_path / "resumed", MixUp(0.4), epochs=2)
    fitted(tiny, tmp_path / "resumed", MixUp(0.4))
    assert_same(tmp_path / "straight", tmp_path / "resumed")


@pytest.mark.parametrize(
    ("config", "message"),
    [({"level": "breast", "backbone": {}}, "unlike numbers of views"),
     ({"backbone": {"frozen": True}, "feature_versions": 4}, "feature_versions=null")],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused(config, message):
    with pytest.raises(LemlightError, match=message):
        MixUp(run_config=config)
    MixUp(run_config={"level": "image", "backbone": {"frozen": True}, "feature_versions": None})


def test_callbacks_are_given_the_run_and_can_be_combined():
    config = values_of("callbacks=[ema,freeze,mixup,early_stopping]", "dataset.root=x", "backbone.frozen=true")
    parts = config["callbacks"]
    assert {"ema", "freeze", "mixup", "early_stopping", "checkpoint", "last_checkpoint"} <= parts.keys()
    with pytest.raises(LemlightError, match="never trains the backbone"):
        build_callbacks(parts, config)
    with pytest.raises(LemlightError, match=r"callbacks.ema.*decay"):
        build_callbacks({**parts, "ema": parts["ema"] | {"decay": 2.0}, "freeze": None}, config)


def test_a_log_has_a_line_per_epoch_with_the_time_left(tiny, tmp_path, capfd):
    trainer = tiny.make_trainer(tmp_path, epochs=2, enable_progress_bar=True)
    tiny.fit(trainer, tiny.make_module(), tiny.make_data(), None)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("train/loss" in line and "val/auroc" in line for line in lines)
    assert lines[0].endswith("s left")

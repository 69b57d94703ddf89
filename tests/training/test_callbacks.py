"""The ramp of lambda, and what may be watched."""

import csv
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.training.callbacks import LambdaRamp, Shape, build_callbacks, check_monitors, ramp_value
from tests.parts import part_of

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

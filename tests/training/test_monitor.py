import pytest

from lemlight.errors import LemlightError
from lemlight.training.callbacks import build_callbacks, check_monitors
from tests.parts import part_of


def watch(monitor, mode=None, name="checkpoint", target="lemlight.training.callbacks.FolderCheckpoint"):
    return {name: {"_target_": target, "monitor": monitor, "mode": mode}}


@pytest.mark.parametrize("monitor", ["val/loss", "val/acc", "val/auroc", "train/loss"])
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

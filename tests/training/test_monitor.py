import pytest

from lemlight.errors import LemlightError
from lemlight.training.callbacks import check_monitor


@pytest.mark.parametrize("monitor", ["val/loss", "val/acc", "val/auroc", "train/loss"])
def test_two_classes_allow_everything_that_is_logged(monitor):
    check_monitor(monitor, [0, 1, 1])


def test_one_class_only_names_the_remedy():
    with pytest.raises(LemlightError, match=r"one class only.*callbacks.early_stopping.monitor=val/loss"):
        check_monitor("val/auroc", [1, 1], key="callbacks.early_stopping")
    check_monitor("val/loss", [1, 1])


def test_no_val_image_and_a_name_never_logged_are_refused():
    with pytest.raises(LemlightError, match="no image"):
        check_monitor("val/loss", [])
    check_monitor("train/loss", [])
    with pytest.raises(LemlightError, match=r"val/dice is not logged: choose one of val/loss"):
        check_monitor("val/dice", [0, 1])

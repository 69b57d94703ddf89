"""Refuse to watch a figure that the validation split cannot give, before the training and not after its first epoch."""

from collections.abc import Sequence

from lemlight.errors import LemlightError

VALIDATED = ("val/loss", "val/acc", "val/auroc")
TRAINED = ("train/loss", "train/loss_gap", "train/loss_pool", "train/loss_regularizer")


def check_monitor(monitor: str, val_labels: Sequence[int], key: str = "callbacks.checkpoint") -> None:
    """Raise LemlightError if `monitor` is never logged or is undefined for images with these labels (0 or 1).

    `key` is the section of the config that the monitor stands in. The order of `val_labels` does not matter.
    """
    if monitor not in VALIDATED + TRAINED:
        raise LemlightError(f"{key}.monitor={monitor} is not logged: choose one of {', '.join(VALIDATED + TRAINED)}")
    if monitor in VALIDATED and len(val_labels) == 0:
        raise LemlightError(
            f"{key}.monitor={monitor} needs a val split, which has no image: raise dataset.split.val_share"
        )
    if monitor == "val/auroc" and len(set(val_labels)) < 2:
        raise LemlightError(
            f"the val split has one class only ({next(iter(val_labels))}), so that val/auroc is undefined: "
            f"set {key}.monitor=val/loss and {key}.mode=min"
        )

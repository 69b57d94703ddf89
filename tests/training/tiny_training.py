"""A training of seconds with everything in it: real data module, classifier, callbacks and trainer, dropout included.

As a script (arguments: a folder and a JSON of options) it is the process that the tests kill, or start twice.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback
from torch import nn

from lemlight.data.datamodule import MammogramData
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from lemlight.training.callbacks import build_callbacks
from lemlight.training.checkpoint import FORMAT, load_checkpoint, load_weights
from lemlight.training.module import MammogramModule, leave_process_group, predict
from lemlight.training.trainer import build_trainer, fit

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.parts import build_pooling, part_of

SHAPE = (20, 14)  # not square
RAMP = {"shape": "linear", "start_value": 0.0, "end_value": 1.0, "start_at": 0.0, "end_at": 0.8}
METADATA = {
    "format": FORMAT,
    "versions": {"torch": str(torch.__version__)},
    "trained_on": ["0123abcd"],
    "localization": {},
}
SCHEDULE = part_of("scheduler", "cosine", final_fraction=0.1, warmup_epochs=1.0)
ADAM = part_of("optimizer", "adamw", lr_backbone=0.01, lr_head=0.05, weight_decay=0.01)
CONFIG = {
    "seed": 0,
    "threshold": 0.5,
    "label_names": ["benign", "malignant"],
    "choices": {"backbone": "tiny", "pooling": "lem"},
    "backbone": {"_target_": "tests.tiny"},
    "pooling": part_of("pooling", "lem"),
    "dataset": {"prepare": {"height": 20, "width": 14}, "split": {"scheme": "patient"}},
}


class MemoryStore:
    """Images in memory: a bright square where the label is 1, noise everywhere."""

    def __init__(self, labels, shape=SHAPE):
        generator = np.random.default_rng(0)
        self.image_ids = [f"image{i}" for i in range(len(labels))]
        self.images = generator.integers(0, 30000, size=(len(labels), *shape)).astype(np.uint16)
        for image, label in zip(self.images, labels, strict=True):
            y, x = generator.integers(0, 10, size=2)
            image[y : y + 4, x : x + 4] += np.uint16(20000 * label)

    def index_of(self, image_id):
        return self.image_ids.index(image_id)

    def image(self, i):
        return self.images[i].copy()

    def mask(self, i):
        return None


def make_data(train=22, val=9, test=7, batch_size=4, workers=0, val_label=None, level="image", views=1):
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    labels = [i % 2 for i in range(len(splits))]
    if val_label is not None:
        labels = [val_label if split == "val" else label for label, split in zip(labels, splits, strict=True)]
    store = MemoryStore(labels)
    table = pd.DataFrame({"image_id": store.image_ids, "label": labels, "split": splits})
    table = table.assign(patient_id=[f"p{i // views}" for i in range(len(table))], laterality="L")
    return MammogramData(table, store, batch_size=batch_size, workers=workers, seed=3, level=level)


def make_classifier(channels=4, pooling="lem"):
    torch.manual_seed(5)
    backbone = nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2)
    )
    return MammogramClassifier(backbone, Scorer(channels), build_pooling(pooling, channels))


def make_module(classifier=None, schedule=SCHEDULE, optimizer=ADAM, metadata=METADATA, positive_weight=None):
    loss = part_of("loss", "combined", beta=0.1, positive_weight=positive_weight)
    config = CONFIG | {"optimizer": optimizer, "scheduler": schedule, "loss": loss}
    module = MammogramModule(config, None, classifier if classifier is not None else make_classifier())
    module.metadata = metadata
    return module


def make_trainer(folder, epochs=4, ramp=RAMP, early_stopping=None, monitor="val/loss", more=(), loggers=(), **options):
    parts = part_of("callbacks", "default")
    parts["reseed"]["seed"] = 0
    parts["epoch_table"]["path"] = str(folder / "logs" / "metrics.csv")
    for name in ("checkpoint", "last_checkpoint"):
        parts[name]["folder"] = str(folder / "checkpoints")
    parts["checkpoint"] |= {"monitor": monitor, "mode": "min" if monitor.endswith("loss") else "max"}
    parts["lambda_ramp"] = parts["lambda_ramp"] | ramp if ramp else None
    if early_stopping is not None:
        parts["early_stopping"] = part_of("callbacks", "early_stopping")["early_stopping"] | early_stopping
    settings = part_of("trainer", "default", accelerator="cpu", max_epochs=epochs, accumulate_grad_batches=2)
    settings |= {"limit_predict_batches": 1.0, "enable_progress_bar": False}
    return build_trainer(settings | options, folder, [*more, *build_callbacks(parts)], loggers)


class Kill(Callback):
    """The power goes off in the middle of an epoch."""

    def __init__(self, epoch, batch):
        self.epoch, self.batch = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            os.kill(os.getpid(), signal.SIGKILL)


def train_tiny(folder, resume=None, workers=0, kill=None, **options):
    module, data = make_module(), make_data(workers=workers)
    trainer = make_trainer(folder, more=[Kill(*kill)] if kill else [], **options)
    fit(trainer, module, data, resume)
    return trainer, module, data


def two_devices(folder, strategy):
    """Train two epochs on two processes, then predict with the last checkpoint."""
    trainer, module, data = train_tiny(folder, devices=2, strategy=strategy, epochs=2)
    load_weights(module.classifier, load_checkpoint(folder / "checkpoints" / "last.ckpt"))
    table = predict(trainer, module, data.test_dataloader())
    if trainer.is_global_zero:
        table.to_csv(folder / "predictions.csv", index=False)
    leave_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(sys.argv[2])
    {"train": train_tiny, "two": two_devices}[given.pop("what")](Path(sys.argv[1]), **given)

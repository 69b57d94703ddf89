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
from lemlight.models.pooling import Scorer, build_pooling
from lemlight.training.callbacks import build_callbacks
from lemlight.training.checkpoint import load_checkpoint, load_weights
from lemlight.training.module import MammogramModule, leave_process_group, predict
from lemlight.training.trainer import build_trainer, fit

SHAPE = (20, 14)  # not square
RAMP = {"shape": "linear", "start_value": 0.0, "end_value": 1.0, "start_at": 0.0, "end_at": 0.8}
CARD = {
    "config": {"seed": 0, "backbone": {"name": "tiny"}},
    "label_names": ["benign", "malignant"],
    "preprocessing": {"height": 20, "width": 14},
    "versions": {"torch": str(torch.__version__)},
    "trained_on": ["0123abcd"],
    "localization": {},
}
SCHEDULE = {"name": "cosine", "final_share": 0.1, "warmup_epochs": 1.0}
ADAM = {"name": "adamw", "lr_backbone": 0.01, "lr_head": 0.05, "weight_decay": 0.01}


class MemoryStore:
    """Images in memory: a bright square where the label is 1, noise everywhere."""

    def __init__(self, labels, seed=0):
        generator = np.random.default_rng(seed)
        self.image_ids = [f"image{i}" for i in range(len(labels))]
        self.images = generator.integers(0, 30000, size=(len(labels), *SHAPE)).astype(np.uint16)
        for image, label in zip(self.images, labels, strict=True):
            y, x = generator.integers(0, 10, size=2)
            image[y : y + 4, x : x + 4] += np.uint16(20000 * label)

    def index_of(self, image_id):
        return self.image_ids.index(image_id)

    def image(self, i):
        return self.images[i].copy()

    def mask(self, i):
        return None


def make_data(train=22, val=9, test=7, batch_size=4, workers=0, val_label=None):
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    labels = [i % 2 for i in range(len(splits))]
    if val_label is not None:
        labels = [val_label if split == "val" else label for label, split in zip(labels, splits, strict=True)]
    store = MemoryStore(labels)
    table = pd.DataFrame({"image_id": store.image_ids, "label": labels, "split": splits})
    return MammogramData(table, store, batch_size=batch_size, workers=workers, seed=3)


def make_classifier(channels=4, pooling="lem"):
    torch.manual_seed(5)
    backbone = nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2)
    )
    return MammogramClassifier(backbone, Scorer(channels), build_pooling(pooling, channels))


def make_module(classifier=None, schedule=SCHEDULE, optimizer=ADAM, card=CARD, positive_weight=None):
    return MammogramModule(
        classifier if classifier is not None else make_classifier(),
        beta=0.1,
        positive_weight=positive_weight,
        optimizer=optimizer,
        schedule=schedule,
        card=card,
    )


def make_trainer(folder, epochs=4, ramp=RAMP, early_stopping=None, monitor="val/loss", more=(), loggers=(), **options):
    mode = "min" if monitor.endswith("loss") else "max"
    callbacks = build_callbacks(
        folder,
        seed=0,
        checkpoint={"monitor": monitor, "mode": mode},
        ramp=ramp,
        early_stopping=early_stopping,
        progress_bar=False,
    )
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "strategy": "auto",
        "precision": "32-true",
        "max_epochs": epochs,
        "accumulate": 2,
        "gradient_clip": 1.0,
        "deterministic": True,
        "limit_train_batches": 1.0,
        "limit_val_batches": 1.0,
        "limit_test_batches": 1.0,
        "overfit_batches": 0,
        "detect_anomaly": False,
        "num_nodes": 1,
    }
    return build_trainer(folder, callbacks=[*more, *callbacks], loggers=loggers, **(settings | options))


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

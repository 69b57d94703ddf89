"""A step of lemlight's training loop against a step of a bare PyTorch loop: same network, same images in memory.

The two loops take turns step by step: a callback runs one step of the bare loop after every step of the Trainer, and
lemlight's time of a step is all that passes between two of those, so batches, callbacks, logging and Lightning count.
What both would do in the same way is switched off (validation); what comes once an epoch is timed apart.
"""

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback

from lemlight.data.datamodule import MammogramData
from lemlight.training.callbacks import build_callbacks
from lemlight.training.module import MammogramModule
from lemlight.training.trainer import build_trainer, fit
from tests.bench.measure import Ratio, clocks, seconds
from tests.bench.networks import BETA, build_classifier
from tests.composing import values_of
from tests.parts import combined_loss
from tests.training.tiny_training import MemoryStore

SHAPE = (320, 256)
BATCH = 8
EPOCHS = 3
LIMIT = 1.05
CLIP = 1.0
RATES = {"lr_backbone": 2e-4, "lr_head": 1e-3, "weight_decay": 0.0}
OPTIMIZER = {"_target_": "torch.optim.Adam", "betas": [0.9, 0.999], **RATES}
SCHEDULE = {"warmup_epochs": 0}
TRAINER = ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", f"trainer.gradient_clip_val={CLIP}"]
TRAINER += ["trainer.enable_progress_bar=false", "trainer.limit_val_batches=0"]


class BareLoop:
    """What one writes by hand: shuffled float32 images, forward, backward, clipping, Adam; nothing is logged."""

    def __init__(self, store, labels):
        self.images = torch.from_numpy(store.images.astype(np.float32) / 65535)[:, None]
        self.labels = torch.tensor(labels, dtype=torch.float32)
        self.network = build_classifier("resnet18", "lem").to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.order = torch.empty(0, dtype=torch.int64)

    def step(self):
        if not len(self.order):
            self.order = torch.randperm(len(self.labels))
        chosen, self.order = self.order[:BATCH], self.order[BATCH:]
        self.optimizer.zero_grad()
        scores = self.network(self.images[chosen])
        combined_loss(scores, self.labels[chosen], 0.5, BETA)["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()


class TakeTurns(Callback):
    """After every step of the Trainer one of the bare loop; `steps`: (first of an epoch, lemlight's s, the bare s)."""

    def __init__(self, bare):
        self.bare, self.steps = bare, []

    def on_fit_start(self, trainer, pl_module):
        self.bare.step()  # warm-up
        self.start = clocks()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        own = clocks() - self.start
        torch.use_deterministic_algorithms(False)  # the Trainer's switch, not part of a bare loop
        bare = seconds(self.bare.step)
        torch.use_deterministic_algorithms(True)
        self.steps.append((batch_idx == 0, own, bare))
        self.start = clocks()


def measure(pairs, folder):
    steps = pairs + 2  # an epoch; the first step of each is not among the pairs
    labels = [number % 2 for number in range(steps * BATCH)]
    store = MemoryStore(labels, shape=SHAPE)
    table = pd.DataFrame({"image_id": store.image_ids, "label": labels, "split": "train"})
    config = values_of("optimizer=adam", "scheduler=constant", f"loss.beta={BETA}", f"output={folder}", *TRAINER)
    for group, part in (("optimizer", OPTIMIZER), ("scheduler", SCHEDULE)):
        config[group] |= part
    config["callbacks"]["checkpoint"] |= {"monitor": "train/loss", "mode": "min"}
    module = MammogramModule(config, None, build_classifier("resnet18", "lem"))
    clock = TakeTurns(BareLoop(store, labels))
    trainer = build_trainer(config["trainer"], folder, [*build_callbacks(config["callbacks"]), clock], [])
    fit(trainer, module, MammogramData(table, store, BATCH, seed=0), None)
    first, own, bare = map(np.array, zip(*clock.steps, strict=True))
    ends = own[first, 0] - np.median(own[~first, 0])
    note = (
        f"ResNet-18, batch {BATCH}. Not in the ratio: what comes between two epochs (a row of metrics.csv, best and "
        f"last checkpoint), {np.median(ends[1:]):.1f} s"
    )
    yield Ratio("lemlight's training loop", "a bare PyTorch loop", own[~first], bare[~first], LIMIT, note)

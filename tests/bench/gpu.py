"""`make bench-gpu`: what a training, its maps and `localize` reach on a GPU, in at most eight minutes.

The training loop against the same network on one batch that stays on the GPU (the bound), the GPU's busy share and its
memory; a step of every pooling on every backbone, with deterministic algorithms and without; the maps of all methods
against those of the CPU; images per second of `localize`; whether the commands come to their end. What there is
no time left for is named. Arguments like `compile=true` or `backbone.gradient_checkpointing=true` change the trainings
that are measured.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback

from lemlight.building import build
from lemlight.data.datamodule import MammogramData, MammogramFiles, unit_range
from lemlight.files import cores
from lemlight.localization.choice import build_methods
from lemlight.localize import localize
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from lemlight.settings import LocalizeSettings
from lemlight.training.callbacks import build_callbacks
from lemlight.training.checkpoint import metadata_of
from lemlight.training.module import MammogramModule
from lemlight.training.trainer import build_trainer, fit, versions
from tests.composing import values_of
from tests.parts import POOLINGS, build_backbone, build_pooling, combined_loss

SECONDS = 480
GOAL = 0.95  # of the bound
BATCH, WARM, STEPS = 32, 6, 24
TRAINED, SIZES = ("resnet18", "resnet50", "densenet169"), ((800, 800), (1152, 896))
EVERY = (*TRAINED, "resnet101", "densenet121", "efficientnet_lite0", "convnext_tiny")
MAPPED = ("resnet18", "densenet121", "efficientnet_lite0")
PATIENTS, SCALE, SHAPE, FILES = 12, 0.5, (256, 192), (16, 400)
CLOSE = 1e-3  # norm of the difference of two maps over the norm of one
KINKED = ("gradient", "smooth_grad")  # a ReLU near 0 that rounding turns over changes these, as much as it likes
TINY = {"TRAINED": TRAINED[:1], "SIZES": ((96, 64),), "EVERY": TRAINED[:1], "MAPPED": TRAINED[:1], "BATCH": 2}
TINY |= {"WARM": 1, "STEPS": 2, "PATIENTS": 4, "SCALE": 0.25, "SHAPE": (64, 48)}
TINY |= {"FILES": (2, 4)}


class Busy:
    """The GPU's busy share, in percent, as nvidia-smi samples it every 200 ms; NaN without it."""

    def __enter__(self):
        call = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
        there = shutil.which(call[0]) is not None
        self.process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True) if there else None
        self.share = float("nan")
        return self

    def __exit__(self, *error):
        if self.process is not None:
            self.process.terminate()
            lines = [line.split()[0] for line in self.process.communicate()[0].splitlines() if line.strip()]
            self.share = statistics.fmean(map(float, filter(str.isdigit, lines))) if lines else self.share


class Steps(Callback):
    """Seconds and busy share of the steps behind the first ones, in which workers start and algorithms are tried."""

    def __init__(self, device):
        self.device, self.busy = device, Busy()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == WARM:
            wait(self.device)
            self.busy.__enter__()
            self.start = time.perf_counter()
        elif batch_idx + 1 == WARM + STEPS:
            wait(self.device)
            self.seconds = time.perf_counter() - self.start
            self.busy.__exit__()


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def train(backbone, size, device, folder, workers, more):
    """Images/s of lemlight's loop and of the bound, GB at most, busy share; and the checkpoint."""
    on = "gpu" if device.type == "cuda" else "cpu"
    words = [
        f"trainer={on}",
        f"backbone={backbone}",
        "backbone.weights=none",
        "trainer.max_epochs=1",
        "+trainer.logger=false",
    ]
    words += [f"dataset.prepare.height={size[0]}", f"dataset.prepare.width={size[1]}", f"output={folder}"]
    words += [
        f"trainer.limit_train_batches={WARM + STEPS}",
        "trainer.limit_val_batches=0",
        f"dataset.patients={PATIENTS}",
    ]
    words += ["trainer.enable_progress_bar=false", "callbacks.checkpoint.monitor=train/loss", f"dataset.scale={SCALE}"]
    config = values_of(*words, "callbacks.checkpoint.mode=min", f"dataset.root={folder / 'phantom'}", *more)
    config["trainer"].pop("logger")
    preparing = {"prepare_workers": min(16, cores()), "split": False, "batch_size": BATCH}
    files = MammogramFiles(config["dataset"], str(folder / "store"), **preparing)
    files.setup()
    images = (WARM + STEPS) * BATCH
    rows = pd.concat([files.table] * -(-images // len(files.table)))[:images].reset_index(drop=True)
    augmentation = build(config["augmentation"], "augmentation")
    data = MammogramData(rows.assign(split="train"), files.store, BATCH, workers, augmentation)
    module, clock = MammogramModule(config, None), Steps(device)
    module.metadata = metadata_of(versions(), [])
    trainer = build_trainer(config["trainer"], folder, [*build_callbacks(config["callbacks"]), clock], [])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    fit(trainer, module, data, None)
    loop = STEPS * BATCH / clock.seconds
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    return loop, bound(module, next(iter(data.train_dataloader())), device), memory, clock.busy.share


def bound(module, batch, device):
    """Images/s of the same network on one batch that stays where it is: forward, backward, clipping, Adam."""
    module, images = module.to(device).train(), unit_range(batch["image"].to(device))
    label, optimizer = batch["label"].to(device), torch.optim.Adam(module.classifier.parameters(), lr=1e-5)
    half, start = device.type == "cuda", 0.0
    for number in range(WARM + STEPS):
        if number == WARM:
            wait(device)
            start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = module.loss(module.classifier(images), label, 0.5)["total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.classifier.parameters(), 1.0)
        optimizer.step()
    wait(device)
    return STEPS * BATCH / (time.perf_counter() - start)


def every_step(device):
    """A step of every pooling on every backbone; which of them fail, with the operation that PyTorch names."""
    label = torch.tensor([0.0, 1.0], device=device)
    for name in EVERY:
        backbone, failed = build_backbone(name).to(device), []
        for pooling in POOLINGS:
            head = build_pooling(pooling, backbone.out_channels)
            classifier = MammogramClassifier(backbone, Scorer(backbone.out_channels), head).to(device)
            for exact in (True, False):
                torch.use_deterministic_algorithms(exact)
                try:
                    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                        scores = classifier(torch.rand(2, 1, *SHAPE, device=device))
                        loss = combined_loss(scores, label, 0.5, 0.001)["total"]
                    loss.backward()
                except RuntimeError as error:
                    failed.append(f"{pooling}{', deterministic' * exact}: {str(error).splitlines()[0][:120]}")
                finally:
                    torch.use_deterministic_algorithms(False)
        yield f"a step of {len(POOLINGS)} poolings on {name}: {'; '.join(failed) or 'all run, deterministic or not'}"


def shading(device):
    """How far brightness, contrast and noise on the device are from those on the CPU, of the full range."""
    stored = torch.randint(1, 65536, (4, 1, *SHAPE), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    augmentation, seeds = build(values_of()["augmentation"], "augmentation"), torch.arange(4)
    there = augmentation.on_device(stored.to(device), seeds.to(device)).cpu()
    difference = float((there - augmentation.on_device(stored, seeds)).abs().max())
    yield f"augmentation against the CPU's: {difference:.0e}{'' if difference < 1e-6 else ' DIFFERS'}"


def maps(device):
    """How far the maps of each method on the device are from those on the CPU, in norm."""
    chosen = values_of()["localization"]["methods"]
    methods = build_methods({name: chosen[name] for name in chosen if name != "rollout"})  # that of vision transformers
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    breast = torch.from_numpy(((y / SHAPE[0] - 0.5) / 0.45) ** 2 + (x / (0.9 * SHAPE[1])) ** 2 < 1)
    images = torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0)) * breast
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name in MAPPED:
        torch.manual_seed(0)
        backbone = build_backbone(name)
        classifier = MammogramClassifier(
            backbone, Scorer(backbone.out_channels), build_pooling("lem", backbone.out_channels)
        )
        malignant = classifier.eval()(images).logit > 0
        here = {key: method(classifier, images, malignant) for key, method in methods.items()}
        classifier.to(device)
        found = []
        for key, method in methods.items():
            there = method(classifier, images.to(device), malignant.to(device)).cpu()
            difference = float((there - here[key]).norm() / here[key].norm().clamp(min=1e-12))
            held = difference < (1e-1 if key in KINKED else CLOSE)
            found.append(f"{key} {difference:.0e}{'' if held else ' DIFFERS'}")
        yield f"maps of {name} against the CPU's: {', '.join(found)}"


def folder_of_files(device, folder, workers):
    """Images/s of `localize` behind its start, which is the time that a few files take."""
    files, taken = sorted((folder / "phantom").rglob("*.dcm")), {}
    words = [f"checkpoint={folder / 'checkpoints' / 'last.ckpt'}", "threshold=0.5", f"workers={workers}"]
    for count in FILES:
        here = folder / f"files_{count}"
        here.mkdir()
        for number in range(count):
            shutil.copy(files[number % len(files)], here / f"{number}.dcm")
        more = [f"input={here}", f"output={folder / f'localized_{count}'}", f"batch_size={min(16, BATCH)}"]
        start = time.perf_counter()
        localize(LocalizeSettings(**values_of(*words, *more, command="localize")))
        wait(device)
        taken[count] = time.perf_counter() - start
    rate = (FILES[1] - FILES[0]) / (taken[FILES[1]] - taken[FILES[0]])
    yield f"localize: {rate:.1f} images/s, {workers} workers; the first {FILES[0]} took {taken[FILES[0]]:.0f} s"


def commands(folder, accelerator):
    """The commands that must come to their end on a device, by name, with what follows `python -m lemlight.`."""
    at = [f"dataset.root={folder / 'small'}", f"store={folder / 'small_store'}", "bootstrap=100"]
    net = ["+scale=small", "dataset.patients=24", f"trainer.accelerator={accelerator}", "trainer.max_epochs=2"]
    net += ["callbacks.checkpoint.monitor=val/loss", "callbacks.checkpoint.mode=min", *at]
    both = ",".join(str(folder / "whole" / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    maps = ["localization.compare=[cam,grad_cam]", "localization.faithfulness=4", "calibration=temperature"]
    tested = ["dataset=phantom", "dataset.patients=24", "dataset.difficulty=0.0", "dataset.scale=0.5", *at]
    tested += [f"accelerator={accelerator}", "test_time_augmentation=[flip]"]
    return {
        "train": ["train", *net, *maps, f"output={folder / 'whole'}"],
        "train on kept features": ["train", *net, "backbone.frozen=true", f"output={folder / 'frozen'}"],
        "train on breasts": ["train", *net, "level=breast", f"output={folder / 'breasts'}"],
        "evaluate two networks": ["evaluate", f"checkpoint=[{both}]", *tested, f"output={folder / 'evaluated'}"],
    }


def ends_of_commands(device, folder):
    for name, (command, *words) in commands(folder, "gpu").items() if device.type == "cuda" else ():
        call = [sys.executable, "-m", f"lemlight.{command}", *words]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        yield f"{name}: {'ends as it should' if done.returncode == 0 else f'FAILS: {done.stderr.strip()[-500:]}'}"


def measure(device, folder, workers, more, until):
    for size in SIZES:
        for backbone in TRAINED:
            what = f"{backbone} at {size[0]}x{size[1]}, batch {BATCH}"
            if time.monotonic() > until:
                yield f"{what}: no time left"
                continue
            try:
                loop, alone, memory, busy = train(backbone, size, device, folder, workers, more)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                yield f"{what}: out of memory; try backbone.gradient_checkpointing=true"
                continue
            held = "" if loop >= GOAL * alone else f", below the goal of {GOAL}"
            yield (
                f"{what}: {loop:.0f} images/s, {loop / alone:.3f} of the bound of {alone:.0f}{held}; "
                f"{memory:.1f} GB, busy {busy:.0f} %"
            )
    after = (folder_of_files(device, folder, workers), ends_of_commands(device, folder))
    for part in (*after, shading(device), maps(device), every_step(device)):
        if time.monotonic() > until:
            yield f"{part.__name__}: no time left"
        else:
            yield from part


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument(
        "--tiny", action="store_true", help="the whole script on a CPU in seconds: its figures say nothing"
    )
    parser.add_argument("--workers", type=int, default=min(16, cores()))
    parser.add_argument("overrides", nargs="*", help="of the trainings, as on the command line of lemlight.train")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        print("no GPU here: not run")
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms want it
    device, workers = torch.device("cpu" if given.tiny else "cuda"), 0 if given.tiny else given.workers
    if given.tiny:
        globals().update(TINY)
    name = "a CPU (tiny)" if given.tiny else torch.cuda.get_device_name()
    print(
        f"{name}, {cores()} cores, {workers} workers, torch {torch.__version__} {' '.join(given.overrides)}", flush=True
    )
    until = time.monotonic() + SECONDS - 60  # what was begun may end
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(device, Path(folder), workers, given.overrides, until):
            print(line, flush=True)


if __name__ == "__main__":
    main()

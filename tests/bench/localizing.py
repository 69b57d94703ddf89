"""Localizing a folder of DICOM: against decoding it and asking the network alone, and by two workers against none.

And several methods on one image, which share a forward pass, against one of them.
"""

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import torch

from lemlight.data.reading import isolated
from lemlight.data.reading.io import find_images
from lemlight.localization.attribution import ForwardPass, Importance, explain
from lemlight.localize import _rows
from lemlight.predictor import as_batch, build_predictor, read_images
from lemlight.settings import LocalizeSettings
from lemlight.training.checkpoint import metadata_of
from lemlight.training.module import MammogramModule
from lemlight.training.trainer import build_trainer, versions
from tests.bench.data import PREPARED, write_files
from tests.bench.measure import Ratio, turns
from tests.bench.networks import ONE_PASS, SIZE, build_classifier
from tests.composing import values_of

LIMIT, WORKERS, WORKERS_LIMIT = 1.5, 2, 0.6
APART_LIMIT = 1.1  # of processes that share nothing, the most that the machine gives
COMPARED_LIMIT = 1.2  # importance and three baselines against importance alone
TRAINED = ("trainer=cpu", "backbone=resnet18", "backbone.weights=none")
TRAINED += (f"dataset.prepare.height={PREPARED.height}", f"dataset.prepare.width={PREPARED.width}")
ASKED = ("keep=0.5", "smoothing=8", "cutoff=0.3", "threshold=0.5")


def checkpoint_of(folder: Path) -> Path:
    """The checkpoint of a network with random weights: what it says costs what a trained one's says."""
    torch.manual_seed(0)
    config = values_of(*TRAINED, f"output={folder}")
    module = MammogramModule(config, None)
    module.metadata = metadata_of(versions(), [])
    trainer = build_trainer(config["trainer"] | {"enable_progress_bar": False}, folder, [], [])
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "network.ckpt")
    return folder / "network.ckpt"


def measure(pairs, folder):
    yield compared(pairs)
    files = folder / "files"
    files.mkdir()
    paths = write_files(files)
    (files / "small.dcm").unlink()
    given = (f"checkpoint={checkpoint_of(folder)}", f"input={files}", f"output={folder}", *ASKED)
    config = LocalizeSettings(**values_of(*given, command="localize"))
    predictor, found = build_predictor(config), find_images(files)
    with mock.patch.object(isolated, "_working", True):  # read in this process
        batches = [as_batch(read[2]) for read in read_images(paths, predictor.preprocessing)]

    def here(items=found):
        with mock.patch.object(isolated, "_working", True), isolated.Processes(1) as none:
            list(_rows(items, predictor, config.model_copy(update={"workers": 0}), folder, none))

    def by_workers():
        torch.set_num_threads(WORKERS)  # as many cores for the network, which is most of the work, as for the files
        list(_rows(found, predictor, config.model_copy(update={"workers": WORKERS}), folder, processes))
        torch.set_num_threads(1)

    def apart():
        """What the machine gives: as many processes that share nothing, each with its part of the files."""
        children = []
        for part in range(WORKERS):
            if not (child := os.fork()):
                here(found[part::WORKERS])
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    def alone():
        for path, batch in zip(paths, batches, strict=True):
            pydicom.dcmread(path).pixel_array  # noqa: B018
            predictor.explain(batch)

    with isolated.Processes(WORKERS) as processes:
        by_workers()  # the command starts them while it loads the network: they are ready
        times = turns([here, by_workers, alone, apart], pairs, warm_up=0)
    yield Ratio("localizing a folder of DICOM, one process", "decoding and network", times[:, 0], times[:, 2], LIMIT)
    # the CPU time of processes that go on is not to be had: the wall clock stands for both
    walls = np.repeat(times[:, :, :1], 2, axis=2)
    note = f"{len(found)} files; one process predicts as many images at once as there are workers, on the CPU."
    what = f"localizing a folder of DICOM, {WORKERS} workers, wall clock"
    yield Ratio(what, "one process", walls[:, 1], walls[:, 0], WORKERS_LIMIT, note)
    yield Ratio(what, f"{WORKERS} processes with half of the files each", walls[:, 1], walls[:, 3], APART_LIMIT, note)


def compared(pairs):
    """Importance, CAM, Grad-CAM and Grad-CAM++ of one image against importance alone."""
    images = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    classifier, methods = build_classifier("resnet18", "lem").eval(), [Importance(), *ONE_PASS.values()]

    def several():
        seen = ForwardPass(classifier, images, methods, 0.5)
        for method in methods:
            seen.explain(method, [0.5], "predicted")

    times = turns([several, lambda: explain(classifier, images, methods[0])], 2 * pairs, warm_up=1)
    what = f"importance and {len(ONE_PASS)} baselines, resnet18"
    return Ratio(what, "importance alone", times[:, 0], times[:, 1], COMPARED_LIMIT)

"""Preparing mammograms of full size on all cores against decoding them alone on all cores."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from lemlight.data.phantom.files import write_dicom
from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.store import PrepareSettings, map_in_processes, prepare
from lemlight.files import cores
from tests.bench.measure import Ratio, turns

HEIGHT, WIDTH = 3328, 2560
SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)
COPIES = 4  # of each file
LIMIT = 1.3
PREPARED = PrepareSettings(1152, 896)


def decode(path: Path) -> int:
    """What pydicom alone does; only a number goes back to the parent."""
    return pydicom.dcmread(path).pixel_array.nbytes


def nothing(path: Path) -> int:
    return 0


def write_files(folder):
    """Synthetic mammograms, enlarged, then with the noise of a detector, without which they would decode too fast."""
    noise = np.random.default_rng(0)
    phantom = PhantomSettings(patients=len(SYNTAXES))
    paths = []
    for number, syntax in enumerate(SYNTAXES):
        small = folder / "small.dcm"
        write_dicom(small, render(phantom, number, "L", "CC"), phantom, number, "L", "CC")
        dataset = pydicom.dcmread(small)
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            dataset.decompress()
        top = 2**dataset.BitsStored - 1
        large = cv2.resize(dataset.pixel_array.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        large += 0.004 * top * noise.standard_normal(large.shape, dtype=np.float32)
        dataset.Rows, dataset.Columns = HEIGHT, WIDTH
        dataset.PixelData = np.clip(np.rint(large), 0, top).astype("<u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        if syntax.is_encapsulated:
            dataset.compress(syntax, generate_instance_uid=False)
        first = folder / f"{number}-0.dcm"
        dataset.save_as(first, enforce_file_format=True)
        paths += [first, *(Path(shutil.copy(first, folder / f"{number}-{copy}.dcm")) for copy in range(1, COPIES))]
    # in turn, so that both cores have the same to do
    return sorted(paths, key=lambda path: path.stem.split("-")[::-1])


def measure(pairs, folder):
    paths = write_files(folder)
    workers = cores()
    table = pd.DataFrame(
        {"image_id": path.stem, "path": str(path), "label": 0, "lesions": (), "lesions_known": False} for path in paths
    )

    def run(function):
        return lambda: list(map_in_processes(function, paths, workers))

    def preparing():
        shutil.rmtree(folder / "store", ignore_errors=True)
        store = prepare(table, PREPARED, folder / "store", workers, progress=False)
        assert len(store) == len(paths), store.left_out

    times = turns([preparing, run(decode), run(nothing)], pairs, warm_up=0)
    start = np.median(times[:, 2], axis=0)
    kinds = ", ".join(
        f"{COPIES} {syntax.name.removesuffix(' Image Compression (Lossless Only)')}" for syntax in SYNTAXES
    )
    note = (
        f"{len(paths)} files of {HEIGHT}x{WIDTH} ({kinds}). "
        f"The start of the {workers} processes, {start[0]:.1f} s, is taken off both"
    )
    own, alone = times[:, 0] - start, times[:, 1] - start
    yield Ratio("preparing, all cores", "decoding alone, all cores", own, alone, LIMIT, note)

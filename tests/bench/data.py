"""Reading, augmenting and preparing mammograms against copying, warping and decoding them."""

import shutil
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pandas as pd
import PIL.Image
import pydicom
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.render import render
from lemlight.data.phantom.writer import write_dicom
from lemlight.data.preparing.store import IMAGES, PrepareSettings, prepare
from lemlight.data.reading.isolated import end_resting, map_isolated
from lemlight.files import cores
from tests.bench.measure import Ratio, paired, turns

HEIGHT, WIDTH = 3328, 2560
SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)
COPIES = 4  # of each file
PREPARED = PrepareSettings(1152, 896)
IMAGES_HELD, BATCH = 64, 16
READING_LIMIT = PREPARING_LIMIT = 1.3
ISOLATING_LIMIT = 1.05
AUGMENTING_LIMIT = 3


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


def preparing_against_decoding(pairs, folder):
    paths = write_files(folder)
    workers = cores()
    table = pd.DataFrame(
        {"image_id": path.stem, "path": str(path), "label": 0, "lesions": (), "lesions_known": False} for path in paths
    )

    def run(function):
        def action():
            list(map_isolated(function, paths, workers))
            end_resting()  # the CPU time of a child counts once it has ended

        return action

    def pool(function):
        def action():
            Parallel(workers, batch_size=1)(delayed(function)(path) for path in paths)
            get_reusable_executor().shutdown()

        return action

    def preparing():
        shutil.rmtree(folder / "store", ignore_errors=True)
        store = prepare(table, PREPARED, folder / "store", workers)
        end_resting()
        assert len(store) == len(paths), store.left_out

    times = turns([preparing, run(decode), run(nothing), pool(decode), pool(nothing)], pairs, warm_up=0)
    start = np.median(times[:, 2], axis=0)
    note = (
        f"{COPIES} files of {HEIGHT}x{WIDTH} in each of {len(SYNTAXES)} transfer syntaxes. "
        f"The start of the {workers} processes, {start[0]:.1f} s, is taken off both"
    )
    own, alone = times[:, 0] - start, times[:, 1] - start
    yield Ratio("preparing, all cores", "decoding alone, all cores", own, alone, PREPARING_LIMIT, note)
    pooled = times[:, 3] - np.median(times[:, 4], axis=0)
    yield Ratio("decoding in processes that may die", "in those of joblib", alone, pooled, ISOLATING_LIMIT, note)


def noise_on_a_breast(folder):
    """An image table of 64 drawings; what is on them does not matter for reading."""
    y, x = np.mgrid[: PREPARED.height, : PREPARED.width]
    breast = ((y / PREPARED.height - 0.5) / 0.45) ** 2 + (x / (0.9 * PREPARED.width)) ** 2 < 1
    rows = []
    for number in range(IMAGES_HELD):
        noise = np.random.default_rng(number).integers(20000, 60000, breast.shape)
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.where(breast, noise, 0).astype(np.uint16), [cv2.IMWRITE_PNG_COMPRESSION, 0])
        rows.append({"image_id": str(number), "path": str(path), "label": number % 2, "lesions": ()})
    return pd.DataFrame(rows).assign(lesions_known=False)


def batches(pairs, folder):
    # here, since it brings torch: workers that decode import this file, and those that prepare need no torch
    from lemlight.building import build
    from lemlight.data.datamodule import MammogramData
    from tests.parts import part_of

    table = noise_on_a_breast(folder)
    store = prepare(table, PREPARED, folder / "store", workers=1)
    yield reading(pairs, table, store)
    data = MammogramData(
        table.assign(split="train"),
        store,
        BATCH,
        augmentation=build(part_of("augmentation", "standard"), "augmentation"),
    )
    batches, way = iter(()), cv2.getRotationMatrix2D((PREPARED.width / 2, PREPARED.height / 2), 17, 1)

    def augment():
        """A batch from the store to the floats that the network gets, its conversion to floats included."""
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(data.train_dataloader())
            batch = next(batches)
        data.on_after_batch_transfer(batch, 0)

    def warp():
        for number in range(BATCH):
            cv2.warpAffine(store.image(number), way, (PREPARED.width, PREPARED.height))

    more = {"limit": AUGMENTING_LIMIT, "pairs": 8 * pairs, "warm_up": 2}
    yield paired("reading and augmenting batches", "warping their images once", augment, warp, **more)


def reading(pairs, table, store):
    from lemlight.data.datamodule import MammogramDataset

    dataset = MammogramDataset(table, range(len(table)), store)
    images = np.load(store.folder / IMAGES, mmap_mode="r")
    batches = [range(start, start + BATCH) for start in range(0, len(table), BATCH)]

    def read():
        for batch in batches:
            dataset.__getitems__(list(batch))

    def copy():
        for batch in batches:
            np.copy(images[batch.start : batch.stop])

    return paired(
        "reading prepared batches", "np.copy of the same bytes", read, copy,
        limit=READING_LIMIT, pairs=4 * pairs, warm_up=2,
    )  # fmt: skip


def at_half_the_resolution(pairs, folder):
    """JPEG 2000 decoded one level down, which lemlight does not do, with what it would change in a prepared image."""
    pixels = pydicom.dcmread(write_files(folder)[0]).pixel_array
    path, shape = folder / "image.j2k", (PREPARED.width, PREPARED.height)
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="J2K"))

    def decoded(levels):
        with PIL.Image.open(path) as image:
            image.reduce = levels
            return np.asarray(image)

    half, full = (cv2.resize(decoded(levels), shape, interpolation=cv2.INTER_AREA).astype(float) for levels in (1, 0))
    difference = np.abs(half - full)[full > 0] / full.max()
    note = f"Prepared pixels differ by {difference.mean():.2%} of the range in the mean, {difference.max():.0%} at most"
    times = turns([lambda: decoded(1), lambda: decoded(0)], pairs, warm_up=1)
    yield Ratio("JPEG 2000 at half the resolution", "at the full", times[:, 0], times[:, 1], 1.0, note)


def measure(pairs, folder):
    for name in ("reading", "preparing", "halved"):
        (folder / name).mkdir()
    yield from batches(pairs, folder / "reading")
    yield from preparing_against_decoding(pairs, folder / "preparing")
    yield from at_half_the_resolution(pairs, folder / "halved")

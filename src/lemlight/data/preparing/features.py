"""The feature store: what a frozen backbone makes of prepared images and of augmented versions, computed once."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemlight.data.datamodule import MammogramData, MammogramDataset
from lemlight.data.loading import Batch
from lemlight.data.preparing.store import MappedArrays, PreparedStore, read_lines
from lemlight.errors import LemlightError
from lemlight.files import allocate, locked, write_json, write_slot
from lemlight.terminal import Progress

FORMAT = 2  # raise it with every change that alters a feature or its place
FEATURES, RECORDS, CONFIG = "features.npy", "done.jsonl", "config.json"
Compute = Callable[[Tensor], Tensor]
Version = tuple[str, int]  # image_id; 0: as prepared, k: its k-th augmented version


class FeatureStore(MappedArrays):
    """Features float32 `(C, h, w)` of the images of a prepared store, in a folder that `fill_features` filled.

    Attributes:
        folder: where it is.
        versions: augmented ones of each training image.
    """

    def __init__(self, folder: Path, images: PreparedStore, versions: int) -> None:
        super().__init__(folder)
        self.images, self.versions = images, versions

    def slot(self, place: int, version: int = 0) -> int:
        """Where the features of the image at a place of the prepared store stand: 0 as prepared, k its k-th version."""
        return self.images.slot(place) * (1 + self.versions) + version

    def features(self, slot: int) -> NDArray[np.float32]:
        """The features `(C, h, w)` at a slot, a read-only view of the file."""
        features: NDArray[np.float32] = self._array(FEATURES)[slot]
        return features

    def done(self) -> dict[Version, str]:
        """What is there, with the fingerprint of the image it is of."""
        lines = read_lines(self.folder / RECORDS)
        return {(image_id, version): fingerprint for image_id, version, fingerprint in lines}


class FeatureDataset(MammogramDataset):
    """Rows of a table as batches with features `(N, C, h, w)` float32 in place of the images.

    A key with an augmentation seed is given one of the augmented versions, by that seed.
    """

    def __init__(self, images: MammogramDataset, features: FeatureStore) -> None:
        vars(self).update(vars(images))
        self.features = features

    @property
    def bytes_of_an_image(self) -> int:
        """Bytes of the features of one image in a batch."""
        return self.features.features(0).nbytes

    def _read(self, positions: Sequence[int], seeds: Sequence[int]) -> Batch:
        versions = self.features.versions
        chosen = [1 + seed % versions for seed in seeds] if seeds and versions else [0] * len(positions)
        slots = [self.features.slot(self.places[at], version) for at, version in zip(positions, chosen, strict=True)]
        return {"features": torch.from_numpy(np.stack([self.features.features(slot) for slot in slots]))}


def fill_features(
    data: MammogramData,
    compute: Compute,
    stamp: Mapping[str, Any],
    versions: int,
) -> FeatureStore:
    """Compute the features that the store of this stamp lacks, and let `data` give them in place of images.

    The store lies beside the images; another stamp makes another one. Killed at any moment it goes on where it was; a
    second process waits for the first. What is there of an image that has been prepared anew is computed anew.

    Args:
        data: with its table and store; images of the train split are augmented, too.
        compute: images `(N, 1, H, W)` as the batches hold them -> features `(N, C, h, w)`, the same at every call.
        stamp: plain values of all that decides the features beside the images: weights, settings, versions.
        versions: augmented ones of each training image; 0: as prepared alone.

    Raises:
        LemlightError: a store of another stamp in its place, or no space on the disk.
    """
    images = data.store
    assert isinstance(images, PreparedStore)
    text = json.dumps({"format": FORMAT, "augmented": versions, **stamp}, sort_keys=True)
    folder = images.folder / "features" / hashlib.sha256(text.encode()).hexdigest()[:12]
    store = FeatureStore(folder, images, versions)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", f"computing features in {folder}"):
            _check_stamp(folder, text)
            _fill(data, compute, store)
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
        raise LemlightError(
            f"cannot write the feature store in {folder}: {why} ({shutil.disk_usage(images.folder).free / 1e9:.1f} GB "
            "free); free some space, lower feature_versions, or set feature_versions=null, which keeps no features"
        ) from error
    data.in_place_of_images = partial(FeatureDataset, features=store)
    return store


def _check_stamp(folder: Path, text: str) -> None:
    if not (folder / CONFIG).is_file():
        write_json({"stamp": json.loads(text)}, folder / CONFIG)
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["stamp"]
    except (ValueError, KeyError, TypeError) as error:
        raise LemlightError(f"{folder} is no feature store ({error}): remove that folder") from error
    expected = json.loads(text)
    if differing := [key for key in expected | found if expected.get(key) != found.get(key)]:
        raise LemlightError(
            f"the feature store {folder} is of other {', '.join(differing)} than this training: remove that folder, "
            "it is computed anew"
        )


def _fill(data: MammogramData, compute: Compute, store: FeatureStore) -> None:
    done, images = store.done(), store.images
    ids = [str(image_id) for image_id in data.table["image_id"]]
    prints = [images.fingerprint(images.index_of(image_id)) for image_id in ids]
    trained = np.flatnonzero(data.table["split"] == "train").tolist()
    wanted = [(row, 0) for row in range(len(ids))]
    wanted += [(row, version) for version in range(1, store.versions + 1) for row in trained]
    missing = [(row, version) for row, version in wanted if done.get((ids[row], version)) != prints[row]]
    bar = Progress("computing features", len(wanted), done=len(wanted) - len(missing))
    with bar, (store.folder / RECORDS).open("a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")  # a half line of a kill gets its end
        for augmented in (False, True):
            places = [place for place in missing if (place[1] > 0) is augmented]
            for chosen, features in _computed(data, compute, ids, places, augmented):
                allocate(
                    store.folder / FEATURES, (images.capacity * (1 + store.versions), *features.shape[1:]), np.float32
                )
                for (row, version), one in zip(chosen, features, strict=True):
                    write_slot(store.folder / FEATURES, store.slot(images.index_of(ids[row]), version), one)
                    file.write(json.dumps([ids[row], version, prints[row]]) + "\n")
                file.flush()
                bar.update(len(chosen))


def _computed(
    data: MammogramData, compute: Compute, ids: Sequence[str], places: Sequence[tuple[int, int]], augmented: bool
) -> Iterator[tuple[Sequence[tuple[int, int]], NDArray[np.float32]]]:
    """Rows and versions in batches, with their features."""
    rows = list(range(len(ids)))
    images = MammogramDataset(data.table, rows, data.store, data.augmentation if augmented else None)
    parts = [places[start : start + data.batch_size] for start in range(0, len(places), data.batch_size)]
    keys = [[(row, seed_of(ids[row], version)) if augmented else row for row, version in part] for part in parts]
    for part, batch in zip(parts, data.loader(images, batch_sampler=keys) if parts else (), strict=True):
        yield part, compute(data.on_after_batch_transfer(batch, 0)["image"]).cpu().numpy()


def seed_of(image_id: str, version: int) -> int:
    """The augmentation seed of a version of an image, the same in every training."""
    return int.from_bytes(hashlib.sha256(f"{image_id}\0{version}".encode()).digest()[:4]) % 2**31

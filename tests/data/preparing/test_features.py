"""The feature store: what it holds, what is computed again and what is not, what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from lemlight.data.augment import FULL
from lemlight.data.datamodule import MammogramData
from lemlight.data.preparing.features import fill_features, seed_of
from lemlight.data.preparing.store import PreparedStore, PrepareSettings, prepare
from lemlight.errors import LemlightError

STAMP = {"weights": "0123", "backbone": {"name": "tiny"}}


class Shift:
    """An augmentation that can be told from its seed."""

    def __call__(self, image, seed):
        return np.minimum(image // 2 + np.uint16(seed % 1000), np.uint16(FULL))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Seven small images, prepared."""
    from PIL import Image

    folder, rows = tmp_path_factory.mktemp("images"), []
    generator = np.random.default_rng(0)
    for n in range(7):
        pixels = np.zeros((64, 48), np.uint8)
        pixels[8:56, :30] = generator.integers(60, 250, (48, 30))
        Image.fromarray(pixels).save(folder / f"{n}.png")
        rows.append({"image_id": f"i{n}", "path": folder / f"{n}.png", "label": n % 2, "patient_id": f"p{n}"})
    table = pd.DataFrame(rows).assign(
        split=["train"] * 4 + ["val"] * 2 + ["test"], lesions=[()] * 7, lesions_known=False, laterality="L", view="MLO"
    )
    return table, prepare(table, PrepareSettings(64, 48), folder / "store", 1)


class Computing:
    """A network of one layer that counts the images it sees, and dies at one of them."""

    def __init__(self, dies_at=None):
        self.seen, self.dies_at = 0, dies_at

    def __call__(self, images):
        self.seen += len(images)
        if self.dies_at is not None and self.seen > self.dies_at:
            raise KeyboardInterrupt
        return torch.nn.functional.avg_pool2d(images.float() / FULL, 16).repeat(1, 3, 1, 1)


def fill(written, versions=2, stamp=STAMP, computing=None, folder=None):
    table, store = written
    data = MammogramData(table, store, batch_size=2, augmentation=Shift(), seed=1)
    computing = computing or Computing()
    return data, fill_features(data, computing, stamp, versions), computing


def test_batches_hold_the_features_of_their_images_and_of_versions_in_training(written):
    table, images = written
    data, _, computing = fill(written)
    assert computing.seen == 7 + 2 * 4
    network = Computing()
    for split in ("train", "val", "test"):
        for batch in data.eval_dataloader(split):
            ids = table["image_id"].iloc[batch["index"].tolist()]
            pixels = np.stack([images.image(images.index_of(one)) for one in ids])[:, None]
            torch.testing.assert_close(batch["features"], network(torch.from_numpy(pixels)), rtol=0, atol=0)
            assert batch["label"].tolist() == [int(one[1:]) % 2 for one in ids]
    drawn = set()
    loader = data.train_dataloader()
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            assert "seed" not in batch
            for index, features in zip(batch["index"].tolist(), batch["features"], strict=True):
                one = table["image_id"].iloc[index]
                pixels = images.image(images.index_of(one))
                for version in (1, 2):
                    moved = torch.from_numpy(Shift()(pixels, seed_of(one, version)))[None, None]
                    if torch.equal(features, network(moved)[0]):
                        drawn.add((one, version))
    assert drawn == {(f"i{n}", version) for n in range(4) for version in (1, 2)}


def test_what_is_there_is_not_computed_again_and_a_kill_costs_a_batch(written):
    stamp = STAMP | {"weights": "killed"}
    with pytest.raises(KeyboardInterrupt):
        fill(written, stamp=stamp, computing=Computing(dies_at=8))
    _, store, again = fill(written, stamp=stamp)
    assert again.seen == 15 - 7 - 0  # the batches before the kill, of 2, 2, 2 and 1, are there
    whole = np.load(store.folder / "features.npy")
    _, expected, _ = fill(written, stamp=STAMP | {"weights": "whole"})
    np.testing.assert_array_equal(whole, np.load(expected.folder / "features.npy"))
    with (store.folder / "done.jsonl").open("a") as file:
        file.write('["i0", 0, "ab')  # half a line
    assert fill(written, stamp=stamp)[2].seen == 0


def test_an_image_that_was_left_out_at_first_moves_no_other(written, tmp_path):
    table, images = written
    shutil.copytree(images.folder, tmp_path / "store", ignore=shutil.ignore_patterns("features"))
    path = tmp_path / "store" / "done.jsonl"
    lines = path.read_text()
    path.write_text(
        "".join(line + "\n" for line in lines.splitlines() if line and json.loads(line)["image_id"] != "i2")
    )
    first = PreparedStore(tmp_path / "store")
    fill((table[table["image_id"] != "i2"].reset_index(drop=True), first))
    path.write_text(lines)
    data, _, computing = fill((table, PreparedStore(tmp_path / "store")))
    assert computing.seen == 3  # i2 and its two versions
    for batch in data.eval_dataloader("test"):
        pixels = images.image(images.index_of("i6"))[None, None]
        torch.testing.assert_close(batch["features"], Computing()(torch.from_numpy(pixels)), rtol=0, atol=0)


def test_images_prepared_anew_are_computed_anew(written):
    stamp = STAMP | {"weights": "anew"}
    _, store, _ = fill(written, stamp=stamp)
    lines = [json.loads(line) for line in (store.folder / "done.jsonl").read_text().splitlines() if line]
    other = [[one, version, "another" if one == "i5" else print_] for one, version, print_ in lines]
    (store.folder / "done.jsonl").write_text("".join(json.dumps(line) + "\n" for line in other))
    assert fill(written, stamp=stamp)[2].seen == 1


def test_a_store_of_other_weights_is_another_one_or_refused(written):
    _, one, _ = fill(written)
    _, other, computing = fill(written, stamp=STAMP | {"weights": "4567"})
    assert one.folder != other.folder
    assert computing.seen == 15
    (other.folder / "config.json").write_bytes((one.folder / "config.json").read_bytes())
    with pytest.raises(LemlightError, match=r"is of other weights than this training: remove that folder"):
        fill(written, stamp=STAMP | {"weights": "4567"})
    (other.folder / "config.json").write_text("{}")
    with pytest.raises(LemlightError, match="is no feature store"):
        fill(written, stamp=STAMP | {"weights": "4567"})
    (other.folder / "config.json").unlink()


def test_no_space_ends_with_a_sentence(written, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lemlight.data.preparing.features.allocate", full)
    with pytest.raises(LemlightError, match=r"the disk is full .* lower feature_versions"):
        fill(written, stamp=STAMP | {"weights": "full"})

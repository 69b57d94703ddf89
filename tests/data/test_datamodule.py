import json
import os
import pickle
import time

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import distributed, multiprocessing

from lemlight.building import build
from lemlight.data import loading
from lemlight.data.datamodule import MammogramData, drop_left_out, unit_range
from lemlight.data.loading import TrainSampler
from lemlight.data.table import check_table
from lemlight.errors import LemlightError
from tests.parts import part_of

AUGMENT = build(part_of("augmentation", "standard", rotate=1.0, noise=1.0), "augmentation")
SHAPE = (37, 23)


class ArrayStore:
    """A prepared store in memory: every third image has no mask."""

    def __init__(self, image_ids):
        self.image_ids = list(image_ids)
        random = np.random.default_rng(0)
        self.images = random.integers(1, 65536, (len(self.image_ids), *SHAPE)).astype(np.uint16)
        self.images[:, :, 15:] = 0
        self.masks = random.integers(0, 2, self.images.shape).astype(np.uint8)

    def index_of(self, image_id):
        return self.image_ids.index(image_id)

    def image(self, i):
        return self.images[i].copy()

    def mask(self, i):
        return None if i % 3 == 0 else self.masks[i].copy()


def table_of(images, train=None):
    train = images - 4 if train is None else train
    splits = ["train"] * train + ["val", "test"] * ((images - train) // 2)
    ids = [f"i{n}" for n in range(images)]
    rows = {"image_id": ids, "path": [f"/x/{i}" for i in ids], "label": [n % 2 for n in range(images)]}
    table = pd.DataFrame(rows).assign(patient_id=ids, split=splits, laterality="", view="")
    return check_table(table.assign(lesions=pd.Series([()] * images, dtype=object), lesions_known=False))


@pytest.fixture
def table():
    return table_of(15)


@pytest.fixture
def store(table):
    return ArrayStore(table["image_id"][::-1])


def epochs(data, count=2):
    """Batches of train as the network gets them."""
    loader = data.train_dataloader()
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        yield [data.on_after_batch_transfer(batch, 0) for batch in loader]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_batch_has_the_promised_shapes_types_and_contents(table, store):
    batch = next(iter(MammogramData(table, store, batch_size=4).train_dataloader()))
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert kinds == {
        "image": ((4, 1, *SHAPE), torch.uint16),
        "label": ((4,), torch.float32),
        "index": ((4,), torch.int64),
    }
    for n, row in enumerate(batch["index"].tolist()):
        place = store.index_of(table.loc[row, "image_id"])
        np.testing.assert_array_equal(batch["image"][n, 0], store.images[place])
        assert batch["label"][n] == table.loc[row, "label"]


def test_every_uint16_lands_in_the_unit_interval(table, store):
    images = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    np.testing.assert_allclose(unit_range(images), np.arange(65536) / 65535, rtol=1e-6)
    assert unit_range(images)[[0, -1]].tolist() == [0.0, 1.0]
    store.images[:] = 65535
    data = MammogramData(table, store, 4, augmentation=AUGMENT)
    assert unit_range(next(iter(data.val_dataloader()))["image"]).unique().tolist() == [1.0]
    assert unit_range(data.dataset("train", AUGMENT)[0]["image"]).unique().tolist() == [1.0]


def test_floats_are_left_as_they_are():
    images = torch.rand(2, 1, 3, 5)
    assert unit_range(images) is images


def test_batches_travel_as_uint16_and_are_augmented_to_floats_where_the_network_is(table, store):
    data = MammogramData(table, store, 4, augmentation=AUGMENT)
    travels = next(iter(data.train_dataloader()))
    assert travels["image"].dtype == torch.uint16
    batch = data.on_after_batch_transfer(travels, 0)
    assert batch["image"].dtype == torch.float32
    assert batch["image"].max() <= 1
    assert torch.equal(batch["image"] == 0, travels["image"] == 0)
    assert batch.keys() == {"image", "label", "index"}
    of_val = next(iter(data.val_dataloader()))
    assert data.on_after_batch_transfer(of_val, 0) is of_val


def test_an_augmentation_of_ones_own_needs_no_stage_on_the_device_and_must_keep_uint16(table, store):
    data = MammogramData(table, store, 4, augmentation=lambda image, seed: image[::-1])
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    row = int(batch["index"][0])
    expected = store.images[store.index_of(table.loc[row, "image_id"])][::-1]
    np.testing.assert_array_equal(batch["image"][0, 0], expected)
    for wrong in (lambda image, seed: image / 65535, lambda image, seed: image[1:]):
        with pytest.raises(LemlightError, match="an augmentation keeps both"):
            next(iter(MammogramData(table, store, 4, augmentation=wrong).train_dataloader()))


def test_batches_do_not_depend_on_the_number_of_workers(table, store):
    expected = list(epochs(MammogramData(table, store, 4, workers=0, augmentation=AUGMENT)))
    for workers in (1, 2):
        found = list(epochs(MammogramData(table, store, 4, workers=workers, augmentation=AUGMENT)))
        for one, other in zip(expected, found, strict=True):
            assert_same(one, other)


def by_row(batches):
    return {row: batch["image"][n] for batch in batches for n, row in enumerate(batch["index"].tolist())}


def test_epochs_and_seeds_differ_and_repeat(table, store):
    first, second = epochs(MammogramData(table, store, 4, augmentation=AUGMENT))
    again, _ = epochs(MammogramData(table, store, 4, augmentation=AUGMENT))
    (other_seed,) = epochs(MammogramData(table, store, 4, augmentation=AUGMENT, seed=1), 1)
    assert_same(first, again)
    for other in (second, other_seed):
        pairs = [(by_row(first)[row], image) for row, image in by_row(other).items()]
        assert len(pairs) == 11
        assert not any(torch.equal(one, two) for one, two in pairs)


def test_val_and_test_keep_their_order_and_are_not_augmented(table, store):
    data = MammogramData(table, store, 4, augmentation=AUGMENT)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        (batch,) = list(loader)
        assert batch["index"].tolist() == table.index[table["split"] == split].tolist()
        row = int(batch["index"][0])
        expected = store.images[store.index_of(table.loc[row, "image_id"])] / 65535
        np.testing.assert_allclose(unit_range(batch["image"])[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1] * 3)],
)
def test_only_a_last_batch_of_one_is_dropped_in_training(images, batch_size, sizes):
    table = table_of(images + 10, images)
    data = MammogramData(table, ArrayStore(table["image_id"]), batch_size)
    assert [len(batch["label"]) for batch in data.train_dataloader()] == sizes
    assert sum(len(batch["label"]) for batch in data.val_dataloader()) == 5


def test_loaders_leave_the_global_generator_alone(table, store):
    data = MammogramData(table, store, 4, augmentation=AUGMENT)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.rand(3), expected)


def test_data_set_survives_pickling_as_a_spawned_worker_needs_it(table, store):
    dataset = MammogramData(table, store, 4).dataset("train", AUGMENT)
    copy = pickle.loads(pickle.dumps(dataset))
    assert_same([dataset.__getitems__([(0, 5), (2, 6)])], [copy.__getitems__([(0, 5), (2, 6)])])
    assert torch.equal(dataset[(2, 6)]["image"], copy.__getitems__([(0, 5), (2, 6)])["image"][1])
    plain = MammogramData(table, store, 4).dataset("train")
    assert torch.equal(dataset[2]["image"], plain[(2, 6)]["image"])


def test_workers_start_as_asked_and_stay(table, store):
    loader = MammogramData(table, store, 4, workers=2, start_method="spawn").train_dataloader()
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    assert loader.persistent_workers
    assert MammogramData(table, store, 4, start_method="spawn").train_dataloader().multiprocessing_context is None


BATCH = 4 * SHAPE[0] * SHAPE[1] * 2  # bytes


@pytest.mark.parametrize(
    ("batches", "workers", "ahead"), [(0.5, 0, None), (4, 1, 1), (8, 2, 1), (9, 2, 1), (10, 2, 2), (999, 2, 2)]
)
def test_a_small_shared_memory_is_found_at_the_start_and_fewer_batches_are_in_flight(
    table, store, monkeypatch, capsys, batches, workers, ahead
):
    monkeypatch.setattr(loading, "_free_shared_memory", lambda: int(batches * BATCH))
    data = MammogramData(table, store, 4, workers=2)
    loaders = [data.train_dataloader(), data.val_dataloader()]
    assert [(loader.num_workers, loader.prefetch_factor) for loader in loaders] == [(workers, ahead)] * 2
    said = capsys.readouterr().out
    assert said.count("--shm-size=8g") == (batches < 10)
    assert ("no worker" in said) == (workers == 0)
    assert len(next(iter(loaders[0]))["label"]) == 4


class Stuck(ArrayStore):
    """A store that gives images in the process that made it, and waits for ever in any other."""

    def __init__(self, image_ids):
        super().__init__(image_ids)
        self.process = os.getpid()

    def image(self, i):
        while os.getpid() != self.process:
            time.sleep(1)
        return super().image(i)


def test_workers_that_give_nothing_end_with_a_sentence(table, monkeypatch):
    monkeypatch.setattr(loading, "PATIENCE", 1)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # so long torch waits for its end
    data = MammogramData(table, Stuck(table["image_id"]), 4, workers=1, start_method="fork")
    with pytest.raises(LemlightError, match=r"gave none .*--shm-size=8g or --ipc=host, or set workers=0"):
        next(iter(data.train_dataloader()))


def test_images_left_out_are_dropped_and_rows_numbered_anew(table, store):
    store.image_ids = [image_id for image_id in store.image_ids if image_id not in ("i1", "i12")]
    with pytest.raises(LemlightError, match="2 images are not in the prepared store: i1, i12"):
        MammogramData(table, store, 4)
    kept = drop_left_out(table, store)
    assert kept["image_id"].tolist() == [f"i{n}" for n in range(15) if n not in (1, 12)]
    assert kept.index.tolist() == list(range(13))
    assert next(iter(MammogramData(kept, store, 4).test_dataloader()))["index"].tolist() == [12]
    store.image_ids = []
    with pytest.raises(LemlightError, match="none of the 15 images"):
        drop_left_out(table, store)


def test_an_empty_split_is_one_clear_error(table, store):
    data = MammogramData(table.assign(split="train"), store, 4)
    with pytest.raises(LemlightError, match="the val split holds no image"):
        data.val_dataloader()


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {}

    def training_step(self, batch, _):
        self.seen.setdefault(self.current_epoch, []).extend(batch["index"].tolist())
        return (self.weight * unit_range(batch["image"]).mean()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_sets_the_epoch_of_the_sampler(table, store, tmp_path):
    model = Recorder()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, use_distributed_sampler=False, **options
    )
    data = MammogramData(table, store, 4, seed=3)
    trainer.fit(model, train_dataloaders=data.train_dataloader())
    for epoch in range(2):
        sampler = TrainSampler(11, 3)
        sampler.set_epoch(epoch)
        assert model.seen[epoch] == [index for index, _ in sampler]


def read_as_rank(rank, folder, table, store):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = MammogramData(table, store, 4, augmentation=AUGMENT)
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader()}
    rows = {name: [row for batch in loader for row in batch["index"].tolist()] for name, loader in loaders.items()}
    (folder / f"{rank}.json").write_text(json.dumps(rows))
    distributed.destroy_process_group()


def test_two_processes_share_the_images(tmp_path):
    table = table_of(18, 12)
    store = ArrayStore(table["image_id"])
    multiprocessing.start_processes(read_as_rank, (tmp_path, table, store), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert not set(first["train"]) & set(second["train"])
    assert sorted(first["train"] + second["train"]) == list(range(12))
    assert first["val"] + second["val"] == [12, 16, 14, 12]


def woman(views, store_of=ArrayStore):
    """A table of one patient per row of `views`: (side, labels), the first half in train, the rest in val."""
    rows = [(f"p{n}", side, label) for n, (side, labels) in enumerate(views) for label in labels]
    table = table_of(len(rows), len(rows)).assign(
        patient_id=[patient for patient, _, _ in rows],
        laterality=[side for _, side, _ in rows],
        label=[label for _, _, label in rows],
    )
    return table, store_of(table["image_id"])


def test_batches_of_whole_breasts_with_the_label_of_any_view():
    table, store = woman([("L", [0, 1]), ("", [0, 1]), ("R", [0] * 7), ("L", [1])])
    data = MammogramData(table, store, batch_size=8, level="breast")
    batches = list(data.train_dataloader())
    found = {}
    for batch in batches:
        assert 2 <= len(batch["image"]) <= 8
        for number, label in enumerate(batch["label"].tolist()):
            found[tuple(batch["index"][batch["bag"] == number].tolist())] = label
        torch.testing.assert_close(batch["image"][:, 0].numpy(), store.images[batch["index"]])
    # without a side each image is a breast of its own, with its own label
    assert found == {(0, 1): 1, (2,): 0, (3,): 1, (4, 5, 6, 7, 8, 9, 10): 0, (11,): 1}
    assert data.labels("train") == [1, 0, 1, 0, 1]
    in_order = [row for batch in data.eval_dataloader("train") for row in batch["index"].tolist()]
    assert sorted(in_order) == list(range(12))


def test_a_breast_that_no_batch_holds_is_told_before_anything_is_read(capsys):
    table, store = woman([("L", [0] * 7), ("", [1])])
    with pytest.raises(LemlightError, match=r"has 7 views, and batch_size=4 .* set batch_size=7 or more"):
        MammogramData(table, store, batch_size=4, level="breast")
    MammogramData(table, store, batch_size=7, level="breast")
    assert "1 of 8 images name no side: each of them counts as a breast of its own" in capsys.readouterr().out

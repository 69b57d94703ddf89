"""The LightningModule: its metrics against sklearn, its losses, its predictions; on one device and on two."""

import csv
import os
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import distributed
from torch.multiprocessing import start_processes
from torch.nn.functional import binary_cross_entropy_with_logits

from lemlight.data.datamodule import unit_range
from lemlight.errors import LemlightError
from lemlight.models.lem import local_extrema
from lemlight.training.checkpoint import load_weights
from lemlight.training.module import gather_rows, predict, score_maps
from tests.parts import part_of


def all_scores(tiny, module, loader):
    module.eval()
    with torch.no_grad():
        parts = [(batch["index"], batch["label"], module(batch["image"])) for batch in loader]
    index, label = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    return index, label, torch.cat([part[2].logit for part in parts]), torch.cat([part[2].score_map for part in parts])


def test_validation_metrics_equal_sklearn_on_the_whole_split(tiny, tmp_path):
    module, data = tiny.make_module(), tiny.make_data(val=23, batch_size=3)
    module.classifier.scorer.weight.data.mul_(400)  # logits beyond +-1, on which torchmetrics would apply a sigmoid
    metrics = tiny.make_trainer(tmp_path).validate(module, data, verbose=False)[0]
    tested = tiny.make_trainer(tmp_path).test(module, data, verbose=False)[0]
    assert set(tested) == {"test/auroc", "test/acc", "test/loss"}
    _, label, logit, _ = all_scores(tiny, module, data.val_dataloader())
    probability = logit.double().sigmoid().numpy()
    assert logit.abs().max() > 1
    assert metrics["val/auroc"] == pytest.approx(roc_auc_score(label, probability))
    assert metrics["val/acc"] == pytest.approx(accuracy_score(label, probability > 0.5))
    assert metrics["val/loss"] == pytest.approx(log_loss(label, probability), rel=1e-5)


def test_with_one_class_val_auroc_is_undefined_and_not_0_and_the_training_goes_on(tiny, tmp_path):
    stop = {"monitor": "val/auroc", "mode": "max", "patience": 9, "min_delta": 0.0}
    trainer = tiny.make_trainer(tmp_path, epochs=2, monitor="val/auroc", early_stopping=stop)
    tiny.fit(trainer, tiny.make_module(), tiny.make_data(val_label=1), None)
    assert torch.isnan(trainer.callback_metrics["val/auroc"])
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        assert [(row["val/auroc"], row["val/loss"] != "") for row in csv.DictReader(file)] == [("", True)] * 2
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_the_logged_loss_is_the_mean_over_images_of_batches_of_different_sizes(tiny, tmp_path):
    class Freeze(tiny.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.classifier.eval()

    still = part_of("optimizer", "sgd", lr_backbone=0.0, lr_head=0.0, weight_decay=0.0, momentum=0.0, nesterov=False)
    module = tiny.make_module(tiny.make_classifier(pooling="gap"), optimizer=still, positive_weight=3.0)
    data = tiny.make_data(train=22, batch_size=4)
    trainer = tiny.make_trainer(tmp_path, epochs=1, ramp=None, more=[Freeze()])
    tiny.fit(trainer, module, data, None)
    _, label, logit, _ = all_scores(tiny, module, data.train_dataloader())
    expected = binary_cross_entropy_with_logits(logit, label, pos_weight=torch.tensor(3.0), reduction="none")
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_training_learns_what_is_easy(tiny, tmp_path):
    trainer = tiny.make_trainer(tmp_path, epochs=12, accumulate_grad_batches=1)
    tiny.fit(trainer, tiny.make_module(tiny.make_classifier(pooling="gmp")), tiny.make_data(train=64, val=40), None)
    assert trainer.callback_metrics["val/auroc"] > 0.8


def test_a_loss_that_is_no_number_names_epoch_and_step_and_spares_the_checkpoints(tiny, tmp_path):
    class Poison(tiny.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 1 and batch_idx == 4:
                pl_module.classifier.scorer.weight.data.fill_(torch.nan)

    trainer = tiny.make_trainer(tmp_path, more=[Poison()])
    with pytest.raises(LemlightError, match=r"epoch 1, step 5: lower.*trainer.precision=32-true.*gradient_clip"):
        tiny.fit(trainer, tiny.make_module(), tiny.make_data(), None)  # 3 steps of 2 batches an epoch
    for name in ("best", "last"):
        checkpoint = tiny.load_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt")
        assert checkpoint.epoch == 0
        assert all(value.isfinite().all() for value in checkpoint.state_dict.values())
    assert pd.read_csv(tmp_path / "logs" / "metrics.csv")["epoch"].tolist() == [0]


def test_a_compiled_training_is_the_same_training_and_leaves_the_same_checkpoint(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # no machine code: seconds
    checkpoints = []
    for compiled in (False, True):
        module = tiny.make_module()
        module.config["compile"] = compiled
        tiny.fit(tiny.make_trainer(tmp_path / str(compiled), epochs=1), module, tiny.make_data(), None)
        assert (module.compiled is not None) == compiled
        checkpoints.append(torch.load(tmp_path / str(compiled) / "checkpoints" / "last.ckpt", weights_only=True))
    plain, other = (checkpoint["state_dict"] for checkpoint in checkpoints)
    assert list(other) == list(plain)
    assert all(torch.equal(other[name], plain[name]) for name in plain)


def test_what_cannot_be_compiled_ends_in_a_sentence(tiny, tmp_path, monkeypatch):
    def fails(graph, example):
        raise RuntimeError("there is no compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fails))
    module = tiny.make_module()
    module.config["compile"] = True
    with pytest.raises(LemlightError, match=r"(?s)compile=true: .* set compile=false"):
        tiny.fit(tiny.make_trainer(tmp_path, epochs=1), module, tiny.make_data(), None)


def test_predictions_are_one_row_per_image_in_order_with_extrema(tiny, tmp_path):
    module, data = tiny.make_module(tiny.make_classifier(pooling="gap")), tiny.make_data()
    table = predict(tiny.make_trainer(tmp_path), module, data.test_dataloader())
    index, _, logit, maps = all_scores(tiny, module, data.test_dataloader())
    assert list(table.columns) == ["index", "probability", "n_maxima", "n_minima"]
    np.testing.assert_array_equal(table["index"], index)
    np.testing.assert_allclose(table["probability"], logit.double().sigmoid())
    maxima, minima = local_extrema(maps)
    np.testing.assert_array_equal(table["n_maxima"], maxima.flatten(1).sum(1))
    np.testing.assert_array_equal(table["n_minima"], minima.flatten(1).sum(1))


def test_extrema_are_counted_as_the_pooling_tells_them(tiny, tmp_path):
    module, data = tiny.make_module(), tiny.make_data()
    module.classifier.scorer.weight.data.zero_()  # a flat map: every cell equals its neighbours
    batches = data.test_dataloader()
    assert predict(tiny.make_trainer(tmp_path), module, batches)["n_maxima"].eq(0).all()
    module.classifier.pooling.ties = "all"
    assert predict(tiny.make_trainer(tmp_path), module, batches)["n_maxima"].gt(1).all()


def test_prediction_of_a_network_that_gives_no_number_is_an_error(tiny, tmp_path):
    module, data = tiny.make_module(), tiny.make_data()
    module.classifier.scorer.weight.data.fill_(torch.inf)
    with pytest.raises(LemlightError, match="no number for 7 of 7 images"):
        predict(tiny.make_trainer(tmp_path), module, data.test_dataloader())


def test_score_maps_are_those_of_evaluation(tiny):
    module, data = tiny.make_module(), tiny.make_data(batch_size=7)
    maps, _ = score_maps(module.classifier.train(), unit_range(next(iter(data.test_dataloader()))["image"]))
    assert maps.shape == (7, 10, 7)
    assert not maps.requires_grad
    torch.testing.assert_close(maps, all_scores(tiny, module, data.test_dataloader())[3])


def test_a_training_on_breasts_of_one_view_is_one_on_images_to_the_last_digit(tiny, tmp_path):
    found = []
    for level in ("image", "breast"):
        trainer, module = tiny.make_trainer(tmp_path / level, epochs=2), tiny.make_module()
        data = tiny.make_data(level=level)
        tiny.fit(trainer, module, data, None)
        figures = {name: value for name, value in trainer.callback_metrics.items() if value.isfinite()}
        found.append((module.state_dict(), figures, predict(trainer, module, data.test_dataloader())))
    (weights, metrics, images), (own_weights, own_metrics, breasts) = found
    assert all(torch.equal(value, own_weights[name]) for name, value in weights.items())
    assert metrics == own_metrics
    pd.testing.assert_frame_equal(breasts.drop(columns="breast_probability"), images, check_exact=True)
    assert (breasts["breast_probability"] == breasts["probability"]).all()


def test_breasts_are_validated_and_predicted_as_one_by_one(tiny, tmp_path):
    module = tiny.make_module()
    data = tiny.make_data(val=12, test=7, batch_size=4, level="breast", views=3)  # the splits cut through breasts
    trainer = tiny.make_trainer(tmp_path, epochs=1)
    tiny.fit(trainer, module, data, None)
    metrics = trainer.validate(module, data, verbose=False)[0]
    classifier, logits, labels = module.classifier.eval(), {}, []
    with torch.no_grad():
        for split in ("val", "test"):
            for _, rows in data.table[data.table["split"] == split].groupby("patient_id"):
                stored = np.stack([data.store.image(n) for n in rows.index])[:, None]
                images = torch.from_numpy(stored).float() / 65535
                wide = torch.zeros(1, 10, 8 * len(rows) - 1)  # a column between two maps is nobody's neighbour
                inside = wide.bool()
                for n, own in enumerate(classifier(images).score_map):
                    wide[0, :, 8 * n : 8 * n + 7], inside[0, :, 8 * n : 8 * n + 7] = own, True
                logit = classifier.pooling(wide, None, None, valid=inside)
                logits |= dict.fromkeys(rows.index, logit.double().sigmoid().item())
                labels += [(logit.double().sigmoid().item(), int(rows["label"].max()))] if split == "val" else []
    probability, label = (np.array(column) for column in zip(*labels, strict=True))
    assert metrics["val/loss"] == pytest.approx(log_loss(label, probability, labels=[0, 1]), rel=1e-5)
    table = predict(trainer, module, data.test_dataloader())
    assert table["index"].tolist() == list(range(34, 41))
    np.testing.assert_allclose(table["breast_probability"], [logits[n] for n in range(34, 41)], rtol=1e-5)
    alone = predict(trainer, module, tiny.make_data(val=12, test=7).test_dataloader())
    np.testing.assert_allclose(table["probability"], alone["probability"], rtol=1e-5)


def judged_breasts(tiny):
    module, data = tiny.make_module().eval(), tiny.make_data(val=13, test=8, batch_size=4, level="breast", views=3)
    columns = []
    with torch.no_grad():
        for split, step in (("val", module.validation_step), ("test", module.predict_step)):
            for batch in data.eval_dataloader(split):
                step(batch, 0)
            columns += module._gathered()
    return columns


def judge_as_rank(rank, folder, tiny):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(judged_breasts(tiny), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_judge_breasts_as_one(tiny, tmp_path):  # an odd number of breasts, of one to three views
    start_processes(judge_as_rank, (tmp_path, tiny), nprocs=2, start_method="fork")
    alone = judged_breasts(tiny)
    assert [len(column) for column in alone] == [5] * 3 + [8] * 5  # of breasts, then of images
    for rank in range(2):
        for found, expected in zip(torch.load(tmp_path / f"{rank}.pt"), alone, strict=True):
            torch.testing.assert_close(found, expected)


def test_gathered_rows_are_sorted_and_each_index_stays_once():
    index, value, pair = gather_rows(
        torch.tensor([4, 1, 3, 1, 4]), torch.tensor([40.0, 10, 30, 11, 41]), torch.arange(10).view(5, 2)
    )
    assert index.tolist() == [1, 3, 4]
    assert value.tolist() == [10, 30, 40]
    assert pair.tolist() == [[2, 3], [4, 5], [0, 1]]


def test_two_devices_give_the_metrics_and_predictions_of_one(tiny, tmp_path, capfd):  # ddp: commands/test_sweeps.py
    two = tmp_path / "two"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "LOCAL_RANK"))}
    environment["GLOO_SOCKET_IFNAME"] = "lo"  # a machine may not know its own name
    with mock.patch.dict(os.environ, environment, clear=True):
        tiny.two_devices(two, "ddp_spawn")
    assert "arn" not in capfd.readouterr().err  # nothing to warn of

    module, data = tiny.make_module(), tiny.make_data()
    load_weights(module.classifier, tiny.load_checkpoint(two / "checkpoints" / "last.ckpt"))
    trainer = tiny.make_trainer(tmp_path / "one")
    alone = trainer.validate(module, data, verbose=False)[0]
    with (two / "logs" / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    both = {name: float(last[name]) for name in alone}
    assert both == pytest.approx(alone, rel=1e-6)
    assert (both["val/auroc"], both["val/acc"]) == pytest.approx((alone["val/auroc"], alone["val/acc"]), abs=1e-9)

    table = predict(trainer, module, data.test_dataloader())
    assert len(data.test_dataloader().dataset) % 2 == 1
    assert list(table["index"]) == list(range(31, 38))
    pd.testing.assert_frame_equal(pd.read_csv(two / "predictions.csv"), table, rtol=1e-6)

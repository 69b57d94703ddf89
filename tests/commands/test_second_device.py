"""With a pretended GPU: what is of one device meets nothing of the other, from a tensor to whole commands."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn

import lemlight
from lemlight.data.datamodule import unit_range
from lemlight.localization.attribution import explain
from lemlight.predictor import phantom_as_prepared
from lemlight.training.callbacks import FreezeAtFirst, MixUp
from lemlight.training.module import predict, score_maps
from tests.localization.test_baselines import METHODS, with_pooling
from tests.parts import POOLINGS, combined_loss
from tests.second_device import GPU, second_device
from tests.training import tiny_training

ON_GPU = ["trainer=gpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]


@pytest.fixture
def gpu():
    with second_device():
        yield GPU


@pytest.fixture
def on_gpu(lemlight_run):
    def run(*arguments, **options):
        with second_device():
            return lemlight_run(*arguments, **options)

    return run


def test_tensors_of_two_devices_do_not_meet(gpu):
    here, there = torch.zeros(3), torch.ones(3, device=gpu)
    for meet in (
        lambda: here + there,
        lambda: there.add_(here),
        lambda: torch.cat([here, there]),
        lambda: here[torch.zeros(1, dtype=torch.int64, device=gpu)],
        lambda: torch.where(there > 0, there, here),
        lambda: nn.Conv2d(1, 2, 3).to(gpu)(torch.zeros(1, 1, 5, 5)),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            meet()
    for wrong in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="tensor to numpy"):
            wrong()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device=gpu, generator=torch.Generator())


def test_what_is_made_of_a_tensor_is_on_its_device(gpu):
    there, index = torch.ones(3).to(gpu), torch.tensor([0])
    for made in (
        there * 2 + torch.tensor(1.0),
        there[index],
        there.new_zeros(2),
        torch.quantile(there, 0.5),
        torch.nn.functional.one_hot(there.long()),
        copy.deepcopy(there),
        here := torch.zeros(3).copy_(there).to(there),
    ):
        assert made.device == gpu
    assert (here.cpu().device, there.cpu().numpy().tolist(), there.sum().item()) == (torch.device("cpu"), [1, 1, 1], 3)
    assert {one.device for one in nn.BatchNorm2d(2).to(gpu).cpu().state_dict().values()} == {torch.device("cpu")}


def test_a_gradient_goes_back_to_the_device_that_it_is_of(gpu):
    seen, image = [], torch.rand(1, 1, 6, 6, requires_grad=True)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(gpu)
    network[0].register_full_backward_hook(lambda module, *gradients: seen.append(gradients[1][0].device))
    network(image.to(gpu)).square().sum().cpu().backward()
    assert (image.grad.device, network[0].weight.grad.device, seen) == (torch.device("cpu"), gpu, [gpu])
    torch.optim.AdamW(network.parameters()).step()


@pytest.mark.parametrize("inside_breast", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_and_methods(pooling, inside_breast, gpu):
    classifier, images = with_pooling(pooling).to(gpu), torch.rand(3, 1, 97, 130).to(gpu)
    classifier.inside_breast, images[:, :, :40] = inside_breast, 0
    bag, label = torch.tensor([0, 0, 1], device=gpu), torch.tensor([0.0, 1], device=gpu)
    combined_loss(classifier(images, bag), label, 0.5, 0.1, positive_weight=2.0)["total"].backward()
    for method in METHODS.values() if pooling in ("lem", "gap") else ():
        found = explain(classifier, images, method, follow="both")
        assert found.maps.device == found.probability.device == gpu


@pytest.mark.parametrize("callback", [EMAWeightAveraging(decay=0.8), FreezeAtFirst(1), MixUp()])
def test_a_training_that_is_resumed(callback, gpu, tmp_path):
    part = {"accelerator": "gpu", "precision": "bf16-mixed", "more": [callback]}
    for epochs, resume in ((1, None), (2, tmp_path / "checkpoints" / "last.ckpt")):
        module, data = tiny_training.make_module(positive_weight="balanced"), tiny_training.make_data()
        trainer = tiny_training.make_trainer(tmp_path, epochs, **part)
        tiny_training.fit(trainer, module, data, resume)
    assert predict(trainer, module, data.test_dataloader())["probability"].notna().all()
    module.to(trainer.strategy.root_device)
    images = unit_range(next(iter(data.test_dataloader()))["image"])
    assert score_maps(module.classifier, images)[0].device.type == "cpu"


def test_a_training_to_its_end(on_gpu, phantom):
    words = ["examples=1", "calibration=temperature", "threshold=youden", "level=breast"]
    done = on_gpu("train", *phantom, *ON_GPU, *words)
    assert pd.read_csv(done.folder / "predictions.csv")["probability"].notna().all()
    assert (done.folder / "figures" / "sheet.png").is_file()


def test_a_training_on_kept_features(on_gpu, phantom):
    words = ["backbone.frozen=true", "feature_versions=1", "inside_breast=true", "examples=0"]
    assert "AUC" in on_gpu("train", *phantom, *ON_GPU, *words, "backbone=resnet18", "backbone.weights=none").out


@pytest.fixture(scope="module")
def two(best, tmp_path_factory):
    """The override that names two checkpoints."""
    other = tmp_path_factory.mktemp("other") / "best.ckpt"
    shutil.copy(best.partition("=")[2], other)
    return f"checkpoint=[{best.partition('=')[2]},{other}]"


def test_an_ensemble_with_moved_copies(on_gpu, phantom, two):
    words = ["dataset=phantom", *phantom, "examples=1", "accelerator=gpu", "test_time_augmentation=[flip]"]
    assert "AUC" in on_gpu("evaluate", two, *words, "localization.compare=[cam]").out


def test_files_are_localized(on_gpu, two, best, dicoms):
    whole = f"input={dicoms[0].parent}"
    for words in ([two, "test_time_augmentation=[flip]", f"input={dicoms[0]}"], [best, "batch_size=3", whole]):
        found = on_gpu("localize", *words)
        assert pd.read_csv(found.folder / "predictions.csv")["probability"].notna().all()


def test_a_network_that_is_loaded(gpu, best, dicoms):
    model = lemlight.load(Path(best.partition("=")[2]))
    pixels = torch.from_numpy(phantom_as_prepared(model.preprocessing).astype(np.float32) / 65535)
    for given in (dicoms[0], pixels, pixels.to(gpu)):
        found = model.predict(given)
        assert {one.device.type for one in found.explanation if one is not None} == {"cpu"}  # of any number of images
        assert 0 < found.probability < 1
        assert found.location_map.shape == found.image.pixels.shape

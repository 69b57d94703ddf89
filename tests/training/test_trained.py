"""Several checkpoints as one: who judges which image, the mean of logits, what does not go together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from lemlight.errors import LemlightError
from lemlight.training.module import predict
from lemlight.training.trained import Network, Preprocessing, Trained, open_networks


@pytest.fixture
def checkpoint(tiny, tmp_path):
    tiny.train_tiny(tmp_path / "run", epochs=1)
    return tiny.load_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")


PREPARE = Preprocessing(height=64, width=32, crop=True, flip=True)


def knowing(checkpoint, *seen):
    """Networks that were trained on some images and chosen by others: `("abc", "d")`."""
    return [
        Network(replace(checkpoint, trained_on=list(trained), selected_on=list(chosen)), None)
        for trained, chosen in seen
    ]


def together(networks, *augmented):
    return Trained(networks, PREPARE, augmented)


def judged(networks, images):
    return together(networks).who_judges(list(images)).astype(int).tolist()


def test_fingerprints_decide_who_judges_which_image(checkpoint):
    folds = knowing(checkpoint, ("cd", "b"), ("ad", "c"), ("ab", "d"), ("bc", "a"))
    assert judged(folds, "abcd") == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert judged(folds, "xyz") == [[1, 1, 1]] * 4  # new data: all of them
    assert judged(folds[:1], "cx") == [[1, 1]]  # one network judges everything
    seeds = knowing(checkpoint, ("ab", "c"), ("ab", "c"))
    assert judged(seeds, "de") == judged(seeds, "c?") == [[1, 1]] * 2
    twice = knowing(checkpoint, ("b", ""), ("a", ""), ("b", ""), ("a", ""))  # two seeds of two folds
    assert judged(twice, "ab") == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_a_mix_and_images_that_all_have_seen_are_refused_by_name(checkpoint):
    folds = knowing(checkpoint, ("b", ""), ("a", ""))
    with pytest.raises(LemlightError, match=r"1 of 3 images are new to all networks .*lem-tiny-seed0"):
        together(folds).who_judges(["a", "b", "x"])
    with pytest.raises(LemlightError, match="1 of 2 images are training or validation images of every one of the 2"):
        together(knowing(checkpoint, ("b", "a"), ("a", ""))).who_judges(["a", "b"])


def test_networks_of_other_preprocessing_or_labels_are_refused(checkpoint, tmp_path):
    other = tmp_path / "other.ckpt"
    content = torch.load(checkpoint.path, weights_only=True)
    content["hyper_parameters"]["config"]["dataset"]["prepare"]["height"] = 32
    torch.save(content, other)
    with pytest.raises(LemlightError, match=r"other.ckpt has dataset.prepare=.*32.*best.ckpt has .*20.*preprocessing"):
        open_networks([str(checkpoint.path), str(other)], ["tests"])
    content["hyper_parameters"]["config"] |= {"label_names": ["no", "yes"], "dataset": checkpoint.config["dataset"]}
    torch.save(content, other)
    with pytest.raises(LemlightError, match="label_names"):
        open_networks([str(checkpoint.path), str(other)], ["tests"])
    with pytest.raises(LemlightError, match="each once"):
        open_networks([str(checkpoint.path)] * 2, ["tests"])
    with pytest.raises(LemlightError, match=r"holds no run with a checkpoints/best.ckpt"):
        open_networks(str(other.parent / "run" / "logs"), ["tests"])


def test_the_mean_of_logits_over_those_that_judge(tiny, checkpoint, tmp_path):
    networks = [Network(checkpoint, tiny.make_classifier()) for _ in range(3)]
    for number, network in enumerate(networks):
        torch.manual_seed(number)
        network.classifier.scorer.weight.data.normal_(std=3)
        network.classifier.temperature = 1.0 + number
    data, trainer = tiny.make_data(), tiny.make_trainer(tmp_path)
    batches = data.test_dataloader()
    judging = np.array([[1, 1, 0, 1, 0, 0, 1], [1, 0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 1, 1]], dtype=bool)
    predicted, each = together(networks).predict(trainer, batches, judging)
    alone = [predict(trainer, tiny.make_module(network.classifier), batches) for network in networks]
    for n in range(7):
        own = [logit(table["probability"][n]) for table, judges in zip(alone, judging[:, n], strict=True) if judges]
        assert predicted["probability"][n] == pytest.approx(expit(np.mean(own)), rel=1e-9)
    assert [len(table) for table in each] == judging.sum(axis=1).tolist()
    flipped, _ = together(networks[:1], "flip").predict(trainer, batches, judging[:1])
    assert (flipped["probability"] - alone[0]["probability"]).abs().max() > 1e-6


def test_names_and_thresholds(checkpoint):
    networks = [Network(checkpoint, None)] * 5
    assert together(networks[:1]).name == "lem-tiny-seed0"
    assert together(networks).name.startswith("5 networks as one (lem-tiny-seed0, ")
    assert together(networks[:1]).operating(None) == checkpoint.operating
    assert together(networks).operating(None).drawn == 0.5
    assert together(networks, "flip").operating(0.3).drawn == 0.3

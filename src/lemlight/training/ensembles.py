"""Several checkpoints as one: which go together, which network judges which image, and the mean of their logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from scipy.special import expit
from torch.utils.data import DataLoader

from lemlight.data.datamodule import say
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError
from lemlight.localization.choice import Chosen, LocalizationSettings, build_settings, settings_of
from lemlight.localization.mean_strength import MeanStrength, settings_together
from lemlight.metrics.calibration import log_odds
from lemlight.metrics.operating import Operating
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.ensemble import Augmented, Ensemble, moves_of
from lemlight.training.checkpoint import Checkpoint, load_checkpoint, load_classifier
from lemlight.training.module import MammogramModule, predict

ALIKE = ("dataset.prepare", "label_names", "level")


@dataclass(frozen=True)
class Network:
    """A checkpoint and its network on the CPU in eval mode."""

    checkpoint: Checkpoint
    classifier: MammogramClassifier


@dataclass(frozen=True)
class Fold:
    """Images, the networks as one that have seen none of them, and how those localize."""

    image_ids: Sequence[str]
    classifier: MammogramClassifier
    localization: LocalizationSettings


def files_of(given: str | Sequence[str]) -> list[Path]:
    """The files that a setting `checkpoint` means: one, several, or those of all runs in a folder."""
    places = [Path(one) for one in ([given] if isinstance(given, str) else given)]
    return [path for place in places for path in (_runs_in(place) if place.is_dir() else [place])]


def open_networks(given: str | Sequence[str], trust: Sequence[str]) -> list[Network]:
    """Open a checkpoint, several, or those of all runs in a folder; LemlightError where they do not go together."""
    paths = files_of(given)
    if len(set(paths)) < len(paths) or not paths:
        raise LemlightError("checkpoint: give one checkpoint or several, each once")
    checkpoints = [load_checkpoint(path) for path in paths]
    first = _settings(checkpoints[0])
    for checkpoint in checkpoints[1:]:
        own = _settings(checkpoint)
        for key in ALIKE:
            if own[key] != first[key]:
                raise LemlightError(
                    f"{checkpoint.path} has {key}={own[key]}, {checkpoints[0].path} has {first[key]}: networks of one "
                    "ensemble have the same preprocessing, label names and level"
                )
    return [Network(checkpoint, load_classifier(checkpoint, trust)) for checkpoint in checkpoints]


def _runs_in(folder: Path) -> list[Path]:
    if found := sorted(folder.rglob("checkpoints/best.ckpt")):
        return found
    raise LemlightError(f"{folder} holds no run with a checkpoints/best.ckpt: give the folder of a sweep, or files")


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    level = checkpoint.config.get("level", "image")
    return dict(zip(ALIKE, (checkpoint.preprocessing, checkpoint.label_names, level), strict=True))


def who_judges(networks: Sequence[Network], fingerprints: Sequence[str]) -> NDArray[np.bool_]:
    """Tell for each network and image, (networks, images), whether it judges it: all do, or those that never saw it.

    The fingerprints of training and validation images in the checkpoints decide. One network judges everything.

    Raises:
        LemlightError: some images are new and some are not, or an image is known to all networks.
    """
    trained = _holding([network.checkpoint.trained_on for network in networks], fingerprints)
    if len(networks) == 1 or not trained.any():
        return np.ones_like(trained)
    new = ~(trained | _holding([network.checkpoint.selected_on for network in networks], fingerprints))
    judges = new.sum(axis=0)
    if (judges == 0).any():
        raise LemlightError(
            f"{(judges == 0).sum()} of {len(fingerprints)} images are training or validation images of every one of "
            f"the {len(networks)} networks: give the networks of all folds, or images that are new to them (split=test)"
        )
    if (judges == len(networks)).any():
        runs = ", ".join(network.checkpoint.run_name for network in networks)
        raise LemlightError(
            f"{(judges == len(networks)).sum()} of {len(fingerprints)} images are new to all networks ({runs}), the "
            "others were seen by some of them: evaluate new images and those of the training apart"
        )
    return new


def _holding(known: Sequence[Sequence[str]], fingerprints: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the images each list holds: (lists, images)."""
    return np.array([[image in held for image in fingerprints] for held in map(set, known)])


def name_of(networks: Sequence[Network]) -> str:
    """What an ensemble is called: by its networks, up to three of them."""
    names = [network.checkpoint.run_name for network in networks]
    return names[0] if len(names) == 1 else f"{len(names)} networks as one ({first_ten(names, most=3)})"


def say_cost(networks: Sequence[Network], augmented: Sequence[Augmented]) -> None:
    """Say how often each image passes a network."""
    moves = len(moves_of(augmented, 32))
    say(f"{len(networks) * moves} passes for each image: {len(networks)} networks, {moves} positions of the image")


def as_one(network: MammogramClassifier, augmented: Sequence[Augmented]) -> MammogramClassifier:
    """A network that looks at moved copies as well; the network itself where nothing is asked for."""
    return Ensemble([network], moves_of(augmented, network.output_stride)) if augmented else network


def ensemble_of(networks: Sequence[Network], augmented: Sequence[Augmented]) -> MammogramClassifier:
    """The networks as one; the network itself where it is one, not augmented."""
    if len(networks) == 1:
        return as_one(networks[0].classifier, augmented)
    stride = networks[0].classifier.output_stride
    return Ensemble([network.classifier for network in networks], moves_of(augmented, stride))


def predict_together(
    trainer: Trainer,
    networks: Sequence[Network],
    augmented: Sequence[Augmented],
    batches: DataLoader[Any],
    judging: NDArray[np.bool_],
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Predict as `predict` does by each network, and together: the mean of the logits of those that judge an image.

    Numbers of extrema are those of the first network. The tables of the networks hold the images that they judge.
    """
    each = [
        predict(trainer, MammogramModule(one.checkpoint.config, None, as_one(one.classifier, augmented)), batches)
        for one in networks
    ]
    if len(each) == 1:
        return each[0], each
    together = each[0].copy()
    for column in together.columns.intersection(["probability", "breast_probability"]):
        logits = np.stack([log_odds(table[column]) for table in each])
        together[column] = expit((logits * judging).sum(axis=0) / judging.sum(axis=0))
    return together, [table[own] for table, own in zip(each, judging, strict=True)]


def operating_together(
    networks: Sequence[Network], threshold: float | None, augmented: Sequence[Augmented]
) -> Operating:
    """The operating point: that of the one network; of several, or with moved copies, the mean of their thresholds."""
    found = [network.checkpoint.operating.with_threshold(threshold) for network in networks]
    if len(found) == 1 and not augmented:
        return found[0]
    return Operating(rule=threshold if threshold is not None else float(np.mean([one.drawn for one in found])))


def localization_together(
    networks: Sequence[Network], chosen: Sequence[dict[str, Chosen]], settings: LocalizationSettings
) -> tuple[LocalizationSettings, dict[str, Chosen]]:
    """The settings by which an ensemble localizes: every method becomes its `MeanStrength`, cut off as they are."""
    together: dict[str, Chosen] = {}
    for name, method in list(settings.methods.items()):
        own = [
            settings_of(name, one, settings.given, network.classifier.output_stride, settings.cutoff_by)
            for network, one in zip(networks, chosen, strict=True)
        ]
        settings.methods[name] = MeanStrength(method, own, settings.follow)
        if all(name in one for one in chosen):
            dice = float(np.mean([one[name].dsc for one in chosen]))
            images = min(one[name].images for one in chosen)
            regions = settings_together(own).model_dump()
            together[name] = Chosen(**regions, dsc=dice, images=images, split=chosen[0][name].split)
    settings.given |= {"keep": 0.0, "smoothing": 0.0}
    return settings, together


def folds_of(
    networks: Sequence[Network],
    augmented: Sequence[Augmented],
    chosen: Sequence[dict[str, Chosen]],
    localization: Mapping[str, Any],
    judging: NDArray[np.bool_],
    image_ids: Sequence[str],
) -> list[Fold]:
    """Who judges which images where not all networks judge all of them; nothing where they do.

    Args:
        networks: of the ensemble.
        augmented: moved copies that each looks at.
        chosen: what each training chose for localizing.
        localization: the section of the config.
        judging: (networks, images), see `who_judges`.
        image_ids: of its images.
    """
    folds = []
    for judges in [] if judging.all() else np.unique(judging, axis=1).T:
        own = list(compress(networks, judges))
        settings, _ = localization_together(own, list(compress(chosen, judges)), build_settings(localization))
        together = Ensemble([one.classifier for one in own], moves_of(augmented, own[0].classifier.output_stride))
        here = (judging == judges[:, None]).all(axis=0)
        folds.append(Fold(list(compress(image_ids, here)), together, settings))
    return folds

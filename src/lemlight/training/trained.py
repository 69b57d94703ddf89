"""What checkpoints open to: one trained network, or several as one, and which of them judges which image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from pytorch_lightning import Trainer
from scipy.special import expit
from torch.utils.data import DataLoader

from lemlight.building import Settings, check_settings
from lemlight.data.datamodule import say
from lemlight.data.preparing.store import LEAST_SIDE, MOST_SIDE
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError
from lemlight.localization.attribution import MeanStrength, Method, try_methods
from lemlight.localization.choice import (
    Chosen,
    CutoffBy,
    LocalizationSettings,
    RegionSettings,
    build_settings,
    chosen_settings,
    settings_of,
    settings_together,
)
from lemlight.metrics.calibration import log_odds
from lemlight.metrics.operating import Operating
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.ensemble import Augmented, Ensemble, moves_of
from lemlight.training.checkpoint import Checkpoint, load_checkpoint, load_classifier
from lemlight.training.module import MammogramModule, predict


class Preprocessing(Settings):
    """How images are prepared for a network, as its file says: size in px, cropped to the breast, turned or not."""

    height: Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
    width: Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)]
    crop: bool
    flip: bool


@dataclass(frozen=True)
class Network:
    """A checkpoint, its network on the CPU in eval mode, and what its training chose for localizing, by method."""

    checkpoint: Checkpoint
    classifier: MammogramClassifier
    chosen: Mapping[str, Chosen] = field(default_factory=dict)

    def regions(self, method: str, given: Mapping[str, float | None], cutoff_by: CutoffBy | None) -> RegionSettings:
        """How maps of a method become regions: as given, else as its training chose, else a default."""
        return settings_of(method, self.chosen, given, self.classifier.output_stride, cutoff_by)


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


def _runs_in(folder: Path) -> list[Path]:
    if found := sorted(folder.rglob("checkpoints/best.ckpt")):
        return found
    raise LemlightError(f"{folder} holds no run with a checkpoints/best.ckpt: give the folder of a sweep, or files")


def open_networks(
    given: str | Sequence[str], trust: Sequence[str] = (), augmented: Sequence[Augmented] = ()
) -> "Trained":
    """Open a checkpoint, several, or those of all runs in a folder.

    Raises:
        LemlightError: a file that cannot be used, or networks that do not go together.
    """
    paths = files_of(given)
    if len(set(paths)) < len(paths) or not paths:
        raise LemlightError("checkpoint: give one checkpoint or several, each once")
    checkpoints = [load_checkpoint(path) for path in paths]
    first = _alike(checkpoints[0])
    for checkpoint in checkpoints[1:]:
        for key, own in _alike(checkpoint).items():
            if own != first[key]:
                raise LemlightError(
                    f"{checkpoint.path} has {key}={own}, {checkpoints[0].path} has {first[key]}: networks of one "
                    "ensemble have the same preprocessing, label names and level"
                )
    networks = [
        Network(one, load_classifier(one, trust), chosen_settings(one.localization, one.path)) for one in checkpoints
    ]
    where = f"the preprocessing in {paths[0]}"
    return Trained(networks, check_settings(checkpoints[0].preprocessing, Preprocessing, where=where), augmented)


def _alike(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the networks of one ensemble share."""
    level = checkpoint.config.get("level", "image")
    return {"dataset.prepare": checkpoint.preprocessing, "label_names": checkpoint.label_names, "level": level}


@dataclass(frozen=True)
class Trained:
    """One trained network, or several, or moved copies of an image, as one: the mean of their logits.

    `lemlight.evaluate`, `localize` and `export` and `lemlight.load` all begin with it.
    """

    networks: Sequence[Network]
    preprocessing: Preprocessing
    augmented: Sequence[Augmented] = ()

    @property
    def first(self) -> Checkpoint:
        """The checkpoint of the first network: what all of them share is in it."""
        return self.networks[0].checkpoint

    @property
    def is_one(self) -> bool:
        """Whether it is a single network that looks at the image alone."""
        return len(self.networks) == 1 and not self.augmented

    @property
    def name(self) -> str:
        """What it is called: by its networks, up to three of them."""
        names = [network.checkpoint.run_name for network in self.networks]
        return names[0] if len(names) == 1 else f"{len(names)} networks as one ({first_ten(names, most=3)})"

    @cached_property
    def classifier(self) -> MammogramClassifier:
        """The networks as one; the network itself where it is one."""
        return self.networks[0].classifier if self.is_one else self._together(self.networks)

    def _together(self, networks: Sequence[Network]) -> Ensemble:
        moves = moves_of(self.augmented, networks[0].classifier.output_stride)
        return Ensemble([network.classifier for network in networks], moves)

    def say_cost(self) -> None:
        """Say how often each image passes a network, where that is more than once."""
        if not self.is_one:
            count, moves = len(self.networks), len(moves_of(self.augmented, 32))
            say(f"{count * moves} passes for each image: {count} networks, {moves} positions of the image")

    def try_methods(self, methods: Iterable[Method]) -> None:
        """Refuse before any work what a network does not allow, see `lemlight.localization.attribution`."""
        methods = list(methods)
        for network in self.networks:
            try_methods(network.classifier, methods, (self.preprocessing.height, self.preprocessing.width))

    def operating(self, threshold: float | None) -> Operating:
        """The operating point: that of the one network; of several, or with moved copies, their mean threshold."""
        found = [network.checkpoint.operating.with_threshold(threshold) for network in self.networks]
        if self.is_one:
            return found[0]
        return Operating(rule=threshold if threshold is not None else float(np.mean([one.drawn for one in found])))

    def who_judges(self, fingerprints: Sequence[str]) -> NDArray[np.bool_]:
        """Tell for each network and image, (networks, images), whether it judges it: all, or those that never saw it.

        The fingerprints of training and validation images in the checkpoints decide. One network judges everything.

        Raises:
            LemlightError: some images are new and some are not, or an image is known to all networks.
        """
        networks = [network.checkpoint for network in self.networks]
        trained = _holding([one.trained_on for one in networks], fingerprints)
        if len(networks) == 1 or not trained.any():
            return np.ones_like(trained)
        new = ~(trained | _holding([one.selected_on for one in networks], fingerprints))
        judges = new.sum(axis=0)
        if (judges == 0).any():
            raise LemlightError(
                f"{(judges == 0).sum()} of {len(fingerprints)} images are training or validation images of every one "
                f"of the {len(networks)} networks: give the networks of all folds, or images that are new to them "
                "(split=test)"
            )
        if (judges == len(networks)).any():
            runs = ", ".join(one.run_name for one in networks)
            raise LemlightError(
                f"{(judges == len(networks)).sum()} of {len(fingerprints)} images are new to all networks ({runs}), "
                "the others were seen by some of them: evaluate new images and those of the training apart"
            )
        return new

    def predict(
        self, trainer: Trainer, batches: DataLoader[Any], judging: NDArray[np.bool_]
    ) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
        """Predict as `predict` does by each network, and together: the mean of the logits of those that judge an image.

        Numbers of extrema are those of the first network. The tables of the networks hold the images that they judge.
        """
        each = []
        for one in self.networks:
            classifier = self._together([one]) if self.augmented else one.classifier
            each.append(predict(trainer, MammogramModule(one.checkpoint.config, None, classifier), batches))
        if len(each) == 1:
            return each[0], each
        together = each[0].copy()
        for column in together.columns.intersection(["probability", "breast_probability"]):
            logits = np.stack([log_odds(table[column]) for table in each])
            together[column] = expit((logits * judging).sum(axis=0) / judging.sum(axis=0))
        return together, [table[own] for table, own in zip(each, judging, strict=True)]

    def localization(self, settings: LocalizationSettings) -> tuple[LocalizationSettings, dict[str, Chosen]]:
        """How it localizes, and what its trainings chose: of several every method becomes its `MeanStrength`."""
        if self.is_one:
            return settings, dict(self.networks[0].chosen)
        return self._localization(settings, self.networks)

    def _localization(
        self, settings: LocalizationSettings, networks: Sequence[Network]
    ) -> tuple[LocalizationSettings, dict[str, Chosen]]:
        together: dict[str, Chosen] = {}
        chosen = [network.chosen for network in networks]
        for name, method in list(settings.methods.items()):
            own = [network.regions(name, settings.given, settings.cutoff_by) for network in networks]
            settings.methods[name] = MeanStrength(method, own, settings.follow)
            if all(name in one for one in chosen):
                dice = float(np.mean([one[name].dsc for one in chosen]))
                images = min(one[name].images for one in chosen)
                regions = settings_together(own).model_dump()
                together[name] = Chosen(**regions, dsc=dice, images=images, split=chosen[0][name].split)
        settings.given |= {"keep": 0.0, "smoothing": 0.0}
        return settings, together

    def folds(
        self, localization: Mapping[str, Any], judging: NDArray[np.bool_], image_ids: Sequence[str]
    ) -> list[Fold]:
        """Who judges which images where not all networks judge all of them; nothing where they do.

        Args:
            localization: the section of the config.
            judging: (networks, images), see `who_judges`.
            image_ids: of its images.
        """
        folds = []
        for judges in [] if judging.all() else np.unique(judging, axis=1).T:
            own = list(compress(self.networks, judges))
            settings, _ = self._localization(build_settings(localization), own)
            here = (judging == judges[:, None]).all(axis=0)
            folds.append(Fold(list(compress(image_ids, here)), self._together(own), settings))
        return folds


def _holding(known: Sequence[Sequence[str]], fingerprints: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the images each list holds: (lists, images)."""
    return np.array([[image in held for image in fingerprints] for held in map(set, known)])

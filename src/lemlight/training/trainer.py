"""The Trainer of a run, what this machine can be asked for, and training from the start or from a checkpoint.

A run that goes on has the configuration of its checkpoint: nothing that changes a figure may differ.
"""

import hashlib
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint as CheckpointCallback
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

import lemlight
from lemlight.building import TARGET, argument_problems, build, check_settings, check_trust
from lemlight.cli import conf_dir
from lemlight.data.datamodule import MammogramData, MammogramFiles, say, unit_range
from lemlight.data.preparing.features import fill_features
from lemlight.data.preparing.store import PrepareSettings
from lemlight.errors import LemlightError
from lemlight.localization.attribution import try_methods
from lemlight.localization.choice import build_settings
from lemlight.models.backbones import Backbone
from lemlight.models.classifier import MammogramClassifier, breast_cells
from lemlight.settings import TrainSettings, names_a_path, public_config
from lemlight.sweeps.names import WITHOUT_EFFECT
from lemlight.sweeps.state import within
from lemlight.terminal import on_a_terminal
from lemlight.training.callbacks import TrainingBar, TrainingLines, check_monitors
from lemlight.training.checkpoint import AtomicCheckpointIO, Checkpoint, load_checkpoint, load_weights, plain
from lemlight.training.module import MammogramModule, build_loss, quiet
from lemlight.training.optimizers import build_optimizer, build_scheduler


def build_trainer(
    part: Mapping[str, Any], folder: Path, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> Trainer:
    """Build the Trainer of a run in `folder` from `trainer` of the config: arguments of Lightning's under their names.

    Checkpoints are written whole or not at all. `deterministic: null` is true on a CPU, where it costs nothing.
    """
    quiet()
    if part.get("enable_progress_bar", True) and not any(isinstance(one, ProgressBar) for one in callbacks):
        callbacks = [*callbacks, TrainingBar() if on_a_terminal() else TrainingLines()]
    more = {"enable_checkpointing": any(isinstance(one, CheckpointCallback) for one in callbacks)} | dict(part)
    if more.get("deterministic") is None:
        accelerator = more.get("accelerator", "auto")
        more["deterministic"] = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    trainer: Trainer = build(
        more,
        "trainer",
        callbacks=list(callbacks),
        logger=list(loggers),
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
    )
    return trainer


def evaluation_trainer(accelerator: str, folder: Path) -> Trainer:
    """One device, full precision and every image, whatever the training had."""
    part = {
        "_target_": "pytorch_lightning.Trainer",
        "accelerator": accelerator,
        "devices": 1,
        "precision": "32-true",
        "inference_mode": False,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
    }
    return build_trainer(part, folder, [], [])


def dataset_to_test(
    checkpoint: Checkpoint, given: Mapping[str, Any] | None, name: str | None
) -> tuple[str, dict[str, Any]]:
    """The data set that a checkpoint is tested on, with its name, in the geometry of the checkpoint.

    Where none is given it is the one of the training, in the place that this machine's own config has for it: where
    files are, a checkpoint does not decide. LemlightError where the config has none.
    """
    wrong = argument_problems(PrepareSettings, checkpoint.preprocessing, "dataset.prepare")
    if wrong:
        raise LemlightError(f"the preprocessing in {checkpoint.path} cannot be used: {'; '.join(wrong)}")
    if given is not None:
        return str(name), {**given, "prepare": checkpoint.preprocessing}
    stored, trained_on = public_config(checkpoint.config["dataset"]), str(checkpoint.choices.get("dataset"))
    file = Path(conf_dir(), "dataset", f"{trained_on}.yaml")
    known = OmegaConf.load(file) if re.fullmatch(r"\w+", trained_on) and file.is_file() else OmegaConf.create()
    here: dict[str, Any] = OmegaConf.to_container(known, resolve=True)  # type: ignore[assignment]
    places = {key: value for key, value in here.items() if names_a_path(key)}
    if here.get(TARGET) != stored.get(TARGET) or "???" in places.values():
        plain_name = trained_on if re.fullmatch(r"\w+", trained_on) else "..."
        usual = {**OmegaConf.load(Path(conf_dir(), "shared", "dataset.yaml")).split, **(here.get("split") or {})}
        other = [f" dataset.split.{key}={value}" for key, value in stored["split"].items() if usual.get(key) != value]
        same = "".join(word for word in other if re.fullmatch(r" [\w.=]+", word))
        raise LemlightError(
            f"where the images are, a checkpoint does not say: give dataset={plain_name} dataset.root=DIR"
            + (f", and for the split of its training{same}" if same else "")
        )
    return trained_on, stored | places


def say_known(fingerprints: Sequence[str], checkpoint: Checkpoint) -> int:
    """Count the images that the network was trained on, and warn of them: their figures say nothing of new images."""
    known = len(set(checkpoint.trained_on).intersection(fingerprints))
    if known:
        say(
            f"warning: the network was trained on {known} of these {len(fingerprints)} images: their figures flatter it"
        )
    return known


def try_parts(config: Mapping[str, Any], classifier: MammogramClassifier) -> None:
    """Build trainer, loss, optimizer, scheduler and localization once and forget them: what they refuse comes early.

    Raises:
        LemlightError: as their constructors; a device that is not there, or half precision on a CPU; a network that
            does not take images of the prepared size, or that importance has no rules for.
    """
    quiet()
    try:
        trainer: Trainer = build(config["trainer"], "trainer", logger=False)
    except LemlightError as error:
        raise LemlightError(f"{error}; trainer=default and trainer=cpu run on any machine") from error
    if trainer.strategy.root_device.type == "cpu" and "16" in str(trainer.precision):
        raise LemlightError(
            f"trainer.precision={trainer.precision} trains many times slower on a CPU; on this machine use "
            "trainer.precision=32-true"
        )
    if trainer.strategy.root_device.type == "cpu" and config["trainer"].get("sync_batchnorm"):
        raise LemlightError("trainer.sync_batchnorm=true: PyTorch has it on GPUs only; set it to false")
    build_loss(config["loss"], [0, 1])
    prepare = config["dataset"]["prepare"]
    shape = int(prepare["height"]), int(prepare["width"])
    if isinstance(classifier.backbone, Backbone):
        classifier.backbone.check_size(*shape)
    try_methods(classifier, build_settings(config["localization"]).methods.values(), shape)
    optimizer, epochs = build_optimizer(classifier, config["optimizer"]), config["trainer"].get("max_epochs") or 1
    build_scheduler(optimizer, config["scheduler"], total_steps=max(epochs, 1), epochs=max(epochs, 1))


def check_labels(
    data: MammogramData, callbacks: Mapping[str, Any], threshold: float | str = 0.5, calibration: str = "none"
) -> None:
    """Refuse a training without both classes, or one that watches or chooses what its val split cannot give.

    Images that were left out can leave a split without a class.
    """
    if set(data.labels("train")) != {0, 1}:
        raise LemlightError(
            "the images that are left do not hold both classes in the train split: see the images left out, "
            "or change dataset.split"
        )
    if data.breasts is not None and not data.table["laterality"].ne("").any():
        raise LemlightError(
            "level=breast: no image of the data set names its side (laterality, L or R), so no breast is known: use "
            "level=image, or give the column"
        )
    check_monitors(callbacks, data.labels("val"))
    asked = [f"threshold={threshold}"] * isinstance(threshold, str)
    asked += [f"calibration={calibration}"] * (calibration != "none")
    if asked and len(set(data.labels("val"))) < 2:
        raise LemlightError(
            f"{' and '.join(asked)}: chosen on the val split, which does not hold both classes; raise "
            "dataset.split.val_fraction, or set threshold=0.5 and calibration=none"
        )


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "lemlight": lemlight.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "pytorch-lightning": version("pytorch-lightning"),
        "numpy": np.__version__,
    }


def keep_features(
    trainer: Trainer, module: MammogramModule, data: MammogramFiles, versions: int, resume: Path | None
) -> None:
    """Let `data` give the features of a frozen backbone, each computed once, in place of images, see `fill_features`.

    The last channel holds 1 in the cells that the breast covers, for `inside_breast`.
    """
    classifier, device = module.classifier, trainer.strategy.root_device
    if resume is not None:
        load_weights(classifier, load_checkpoint(resume))
    backbone = classifier.backbone.to(device)

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        images = unit_range(images.to(device))
        features = backbone(images).float()
        return torch.cat(
            [features, breast_cells(images, (features.shape[2], features.shape[3])).unsqueeze(1).float()], dim=1
        )

    without = ("weights", "weights_file", "gradient_checkpointing")  # which change no feature, or are in the digest
    part = {key: value for key, value in module.config["backbone"].items() if key not in without}
    stamp = {
        "weights": weights_digest(backbone),
        "backbone": part,
        "preprocessing": data.store.settings,
        "augmentation": module.config["augmentation"] if versions else None,
        "versions": versions_of(part),
    }
    fill_features(data, compute, plain(stamp), versions)


def weights_digest(network: nn.Module) -> str:
    """A hash of all weights and statistics of a network."""
    digest = hashlib.blake2b(digest_size=16)
    for name, values in sorted(network.state_dict().items()):
        digest.update(name.encode() + values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def versions_of(part: Mapping[str, Any]) -> dict[str, str]:
    """The versions of what computes features."""
    found = {name: value for name, value in versions().items() if name in ("lemlight", "torch", "torchvision")}
    return found | ({"timm": version("timm")} if "timm" in str(part["_target_"]) else {})


def fit(trainer: Trainer, module: MammogramModule, data: MammogramData, resume: Path | None) -> None:
    """Train, from the start or from the end of the epoch in which the checkpoint `resume` was written.

    On a CPU the resumed training gives, bit for bit, the weights and the metrics.csv of one that was not interrupted.
    A checkpoint of another run folder brings its best.ckpt and its curves along. Raises LemlightError for an unusable
    checkpoint, before any work.
    """
    if resume is not None:
        checkpoint = load_checkpoint(resume)
        load_weights(module.classifier, checkpoint)
        data.start_at(checkpoint.epoch + 1)
        adopt_run(resume, Path(trainer.default_root_dir))
        known = set(checkpoint.trained_on)
        if known and known != set(module.metadata.get("trained_on", known)):
            raise LemlightError(
                f"the training images are not those of {resume}: it was trained on {len(known)} images; give the same "
                "data set (dataset.root), or leave out resume"
            )
    done = checkpoint.step if resume is not None else -1
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit) as cut:
        last = Path(trainer.default_root_dir, "checkpoints", "last.ckpt")
        if last.is_file():
            cut.add_note(f"the same command with resume={last} goes on")
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if trainer.global_step > done or isinstance(error, torch.OutOfMemoryError):
            raise
        raise LemlightError(
            f"{resume} cannot be gone on from ({type(error).__name__}): the state of its optimizer or of its loops is "
            "damaged, or of another lemlight; train anew, or use another checkpoint"
        ) from error


@rank_zero_only
def adopt_run(resume: Path, folder: Path) -> None:
    """Copy best.ckpt and logs/metrics.csv from the run that `resume` belongs to, where `folder` has none yet.

    What the kill left half-written in `folder` is removed.
    """
    for half in (folder / "checkpoints").glob(".*.ckpt"):
        half.unlink()
    old = resume.resolve().parent.parent
    for name in ("checkpoints/best.ckpt", "logs/metrics.csv"):
        target = folder / name
        if (old / name).is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old / name, target)


# taken from the command line: where things are, what this machine is, and how long to train
OF_THE_COMMAND = (
    *WITHOUT_EFFECT,
    "resume",
    "trust",
    "output",
    "dataset.root",
    "dataset.tables",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.profiler",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
)
WHOLE_SETS = ("recipe", "experiment", "debug", "scale", "set")  # files that set keys of every group


def resumed(settings: TrainSettings, overrides: Sequence[str]) -> TrainSettings:
    """Give the settings of the run that `settings.resume` belongs to, with what the command may change.

    Args:
        settings: as the command line composed them.
        overrides: of the command line, `key=value`.

    Raises:
        LemlightError: an override that would change a figure, by name; fewer epochs than are done; a checkpoint with
            parts from outside whose modules are not trusted.
    """
    checkpoint = load_checkpoint(Path(str(settings.resume)))
    check_trust(checkpoint.config, settings.trust, str(checkpoint.path))
    asked, stored = settings.model_dump(mode="json"), checkpoint.config
    changed = [line for override in overrides if (line := difference(override, asked, stored))]
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise LemlightError(
            f"{checkpoint.path} was trained with other settings, which a resumed run keeps:\n{lines}\n"
            "leave these out to go on with that run, or leave out resume to train anew"
        )
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    values = merged(stored, asked, given)
    epochs = _at(values, "trainer.max_epochs")
    if isinstance(epochs, int) and epochs <= checkpoint.epoch:
        raise LemlightError(
            f"trainer.max_epochs={epochs}: {checkpoint.path} has {checkpoint.epoch + 1} epochs behind it; ask for more"
        )
    return check_settings(values, TrainSettings, where=f"the configuration in {checkpoint.path}")


def difference(override: str, asked: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """What an override would change of the run, in words; empty where it changes no figure."""
    key, _, value = override.lstrip("+~").partition("=")
    if within(key, OF_THE_COMMAND):
        return ""
    choices = stored.get("choices") or {}
    if "." not in key and (key in WHOLE_SETS or key in choices or "/" in key):  # a choice of a file
        chosen = choices.get(key)
        return "" if str(chosen) == value else f"{key}={value}: the run has {key}={chosen}"
    here, there = _at(asked, key), _at(stored, key)
    return "" if here == there else f"{key}={here}: the run has {key}={there}"


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def merged(stored: Mapping[str, Any], asked: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """The run's own values, and the command's where it may decide.

    Where files are, the command alone says: a checkpoint carries no path, and one of a stranger's is not followed.
    LemlightError where it cannot, as it has another data set.
    """
    values = public_config(stored)
    values |= {key: asked[key] for key in (*WITHOUT_EFFECT, "output", "resume", "trust") if key in asked}
    for key in given:
        if "." in key and within(key, OF_THE_COMMAND) and _at(asked, key) is not None:
            group, _, name = key.partition(".")
            if "." not in name and isinstance(values.get(group), dict):
                values[group][name] = _at(asked, key)
    ours, theirs = (str(_at(config, "choices.dataset")) for config in (asked, stored))
    if ours != theirs:
        raise LemlightError(f"a checkpoint does not say where its images are: give dataset={theirs} dataset.root=DIR")
    return _with_paths(values, asked)


def _with_paths(values: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Take the files and folders that the checkpoint left out from the command, in the parts that it has as well."""
    if values.get(TARGET) != asked.get(TARGET):
        return values
    for key, value in asked.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _with_paths(values[key], value)
        elif key not in values and names_a_path(key) and not isinstance(value, int | float):
            values[key] = value
    return values

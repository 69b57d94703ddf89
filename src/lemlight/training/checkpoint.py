"""Checkpoints: what they hold beside the weights, reading one that may come from a stranger, writing them whole."""

import json
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import torch
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from lemlight.building import check_trust
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError
from lemlight.files import check_plain, open_file, written_aside
from lemlight.metrics import Level, LevelRule
from lemlight.metrics.operating import Operating, read_operating
from lemlight.models.backbones import weight_differences
from lemlight.models.classifier import MammogramClassifier, build_classifier
from lemlight.models.exported import is_exported

METADATA = "lemlight"  # the key of what lemlight puts into a checkpoint beside Lightning's own
FORMAT = 2
MOST_BYTES = 20 * 10**9
PREFIX = "classifier."
COMPILED = "_orig_mod."
LEVEL_CHOICES = {"primary_level": get_args(Level), "level_rule": get_args(LevelRule), "level": ("image", "breast")}
LEVEL_DEFAULTS = {"primary_level": "image", "level_rule": "mean_logit"}


def metadata_of(
    versions: Mapping[str, str], trained_on: Sequence[str], selected_on: Sequence[str] = (), place: str = ""
) -> dict[str, Any]:
    """The metadata of a training that begins: versions, fingerprints of its prepared images, a mark of their folder.

    `localization` is filled after it with what was chosen on the validation split, by method.
    """
    seen = {"trained_on": list(trained_on), "selected_on": list(selected_on), "place": place}
    return {"format": FORMAT, "versions": dict(versions), **seen, "localization": {}}


def plain(value: Any) -> Any:
    """Copy `value` into dicts with string keys, lists, strings, numbers, booleans and None; paths become strings.

    Raises TypeError for anything else: `torch.load(weights_only=True)` would refuse it.
    """
    return json.loads(json.dumps(value, default=os.fspath))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read; `config` is plain data that nothing has acted upon.

    config: the whole configuration of the training. versions: of lemlight, torch, ... . trained_on: fingerprints of the
    prepared training images. localization: what was chosen on the validation split, by method. lam: lambda of the loss
    at the end of the epoch. operating: thresholds and temperature that the validation split chose. selected_on:
    fingerprints of the prepared validation images; none in checkpoints of earlier versions.
    """

    path: Path
    config: dict[str, Any]
    versions: dict[str, str]
    trained_on: list[str]
    localization: dict[str, Any]
    lam: float
    state_dict: dict[str, Tensor]
    epoch: int
    step: int
    operating: Operating
    selected_on: list[str]
    place: str = ""  # see `lemlight.settings.place_of`

    @property
    def label_names(self) -> list[str]:
        """Of the two classes, benign first."""
        return [str(name) for name in self.config["label_names"]]

    @property
    def threshold(self) -> float:
        """Probability above which an image is predicted malignant; LemlightError where the training reached none."""
        point = self.operating.point("image")
        if point.threshold is None:
            raise LemlightError(f"{self.path} has no threshold ({point.reason}): give threshold=NUMBER")
        return point.threshold

    @property
    def levels(self) -> dict[str, Any]:
        """The primary level and the rule of the levels; the defaults for a checkpoint from before there were any."""
        return {name: self.config.get(name) or value for name, value in LEVEL_DEFAULTS.items()}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How images were prepared: height, width, crop, flip."""
        return dict(self.config["dataset"]["prepare"])

    @property
    def choices(self) -> dict[str, Any]:
        """The chosen YAML file of each group of the config."""
        return dict(self.config.get("choices") or {})

    @property
    def run_name(self) -> str:
        """Pooling, backbone and seed."""
        return run_name(self.config)


class Metadata(BaseModel, strict=True):
    """What lemlight puts into a checkpoint beside Lightning's own, see `Checkpoint`; it may come from a stranger."""

    versions: dict[str, str]
    trained_on: list[str]
    localization: dict[str, dict[str, Any]]
    lam: FiniteFloat = Field(alias="lambda")
    operating: dict[str, Any] | None = None
    selected_on: list[str] = []
    place: str = ""


def run_name(config: Mapping[str, Any]) -> str:
    """A name for dashboards and headings: pooling, backbone, seed, and the fold of a cross-validation."""
    choices, split = config["choices"], config["dataset"]["split"]
    fold = f"-fold{split.get('fold')}" if split.get("scheme") == "kfold" else ""
    return f"{choices.get('pooling')}-{choices.get('backbone')}-seed{config.get('seed')}{fold}"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code that it may carry.

    Raises LemlightError for a file that is missing, truncated, no checkpoint, of another format, without lemlight's
    metadata, or that holds anything but tensors and plain values.
    """
    content = _read(path)
    if not isinstance(content, dict) or not isinstance(content.get(METADATA), dict):
        raise LemlightError(f"{path} is not a checkpoint of lemlight (no metadata): give one that lemlight.train wrote")
    metadata = content[METADATA]
    number = metadata.get("format")
    if not isinstance(number, int):
        raise LemlightError(f"{path} is a damaged checkpoint: its metadata has no format number")
    if number != FORMAT:
        remedy = "upgrade lemlight" if number > FORMAT else "train again, or use the lemlight that wrote it"
        raise LemlightError(f"{path} has checkpoint format {number}, this lemlight reads {FORMAT}: {remedy}")
    told: Metadata | None = None
    wrong: list[str] = []
    try:
        told = Metadata.model_validate(metadata)
    except ValidationError as error:
        wrong = sorted({str(one["loc"][0]) for one in error.errors(include_url=False)})
    parameters = content.get("hyper_parameters")
    config: Any = parameters.get("config") if isinstance(parameters, dict) else None
    if not isinstance(config, dict) or not _is_config(config):
        wrong.append("hyper_parameters")
    weights = content.get("state_dict")
    if not isinstance(weights, dict) or not all(map(_is_weight, weights.values())):
        wrong.append("state_dict")
    wrong += [name for name in ("epoch", "global_step") if not isinstance(content.get(name), int)]
    if wrong or told is None or not isinstance(weights, dict):
        raise LemlightError(f"{path} is a damaged checkpoint: {', '.join(wrong)} missing or of a wrong type")
    named = {str(key).replace(COMPILED, ""): value for key, value in weights.items()}
    return Checkpoint(
        path=path,
        config=config,
        **told.model_dump(exclude={"operating"}),
        state_dict={key.removeprefix(PREFIX): value for key, value in named.items() if key.startswith(PREFIX)},
        epoch=content["epoch"],
        step=content["global_step"],
        operating=read_operating(told.operating or {"rule": config["threshold"]}, str(path)),
    )


def _is_weight(value: Any) -> bool:
    """Whether it is a dense tensor of real numbers."""
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_complex() or value.is_quantized)
    )


def _is_config(config: Mapping[str, Any]) -> bool:
    """Whether the sections are there that everything that opens a checkpoint needs, and no more than a config has."""
    with suppress(ValueError):
        check_plain(config)
        return _has_sections(config)
    return False


def _has_sections(config: Mapping[str, Any]) -> bool:
    sections = all(isinstance(config.get(name), dict) for name in ("backbone", "pooling", "dataset", "choices"))
    labels, threshold = config.get("label_names"), config.get("threshold")
    if not (sections and isinstance(labels, list) and len(labels) == 2 and isinstance(threshold, int | float | str)):
        return False
    if not all(isinstance(label, str) for label in labels):
        return False
    if not all(config.get(name) in (None, *known) for name, known in LEVEL_CHOICES.items()):
        return False
    return all(isinstance(config["dataset"].get(name), dict) for name in ("prepare", "split"))


def load_classifier(checkpoint: Checkpoint, trust: Sequence[str] = ()) -> MammogramClassifier:
    """Rebuild the network of a checkpoint with its weights, in eval mode on the CPU.

    Raises:
        LemlightError: it has parts from outside of lemlight whose modules are not in `trust`, or other weights.
    """
    check_trust(checkpoint.config, trust, str(checkpoint.path))
    config = {**checkpoint.config, "scorer_bias": bool(checkpoint.config.get("scorer_bias", True))}
    if (shapes := _shapes_of(config)) is not None:
        _check_shapes(shapes.state_dict(), checkpoint)
    classifier = build_classifier(config, first_weights=False)
    load_weights(classifier, checkpoint)
    classifier.temperature = checkpoint.operating.temperature
    return classifier.eval()


def _shapes_of(config: Mapping[str, Any]) -> MammogramClassifier | None:
    """The network without memory for its weights, whose sizes may be a stranger's; None where a part needs some."""
    with suppress(Exception), torch.device("meta"):
        return build_classifier(config, first_weights=False)
    return None


def _check_shapes(state: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    own = {key.replace(COMPILED, ""): value for key, value in state.items()}
    if differences := weight_differences(own, checkpoint.state_dict):
        raise LemlightError(
            f"{checkpoint.path} holds the weights of another network: {differences}. Use the backbone and the pooling "
            "that it was trained with"
        )


def load_weights(classifier: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the weights of `checkpoint` into `classifier`, all of them or none.

    Raises LemlightError naming keys and shapes that differ when it is the checkpoint of another architecture.
    """
    state = classifier.state_dict()
    own = {key.replace(COMPILED, ""): key for key in state}
    _check_shapes(state, checkpoint)
    if bad := [name for name in own if not checkpoint.state_dict[name].isfinite().all()]:
        raise LemlightError(
            f"{checkpoint.path} holds weights that are NaN or infinite ({first_ten(bad, 3)}): its training has "
            "diverged, or the file is damaged; use another checkpoint"
        )
    classifier.load_state_dict({key: checkpoint.state_dict[name] for name, key in own.items()})


def _read(path: Path) -> Any:
    if not path.is_file():
        raise LemlightError(f"there is no checkpoint at {path}: give the path of a .ckpt file")
    if is_exported(path):
        raise LemlightError(
            f"{path} is an exported network, which only lemlight.localize takes: give the checkpoint (.ckpt) that it "
            "was exported from"
        )
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise LemlightError(f"{path} has {size / 1e9:.1f} GB, more than any checkpoint has: use another one")
        if file.read(4) != b"PK\x03\x04":  # torch.save writes a zip file; older forms are bare pickles, not looked into
            raise LemlightError(f"{path} is not a checkpoint: give a .ckpt file that lemlight.train wrote")
        if not zipfile.is_zipfile(file):
            raise LemlightError(f"{path} is truncated (its end is missing): copy it again or use another checkpoint")
        return _unpacked(file, path)


def _unpacked(file: BinaryIO, path: Path) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > os.fstat(file.fileno()).st_size:
                raise zipfile.BadZipFile("it is packed, or its parts lie in one another: torch.save does neither")
            if damaged := archive.testzip():  # torch.load does not look at the checksums
                raise zipfile.BadZipFile(f"{damaged} is not what was written")
        # mapped: only those weights take memory that a network of their shapes takes over
        return torch.load(f"/dev/fd/{file.fileno()}", weights_only=True, map_location="cpu", mmap=True)
    except pickle.UnpicklingError as error:
        raise LemlightError(
            f"{path} is refused: it holds objects other than tensors and plain values, which could run code on this "
            "machine; use a checkpoint that lemlight.train wrote"
        ) from error
    except Exception as error:  # a damaged or hostile file can make the reader fail in any way
        raise LemlightError(f"{path} cannot be read as a checkpoint, it seems damaged: copy it again") from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write aside in the same folder, flush to the disk, then rename over the old file.

    Lightning's own writer goes through the system's temporary folder, often another disk, from where the file is
    copied: a kill in the middle of that leaves half a checkpoint in place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`; raises LemlightError when the disk is full, the old file left as it was."""
        with written_aside(Path(path)) as aside:
            try:
                with aside.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # torch reports a failed write as one, with the cause behind it
                cause = error.__context__
                raise cause if isinstance(cause, OSError | KeyboardInterrupt | SystemExit) else error from error


def add_to_metadata(path: Path, **fields: Any) -> None:
    """Write plain values into the metadata of a checkpoint of ours, the rest of the file as it was."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    content[METADATA] |= {name: plain(value) for name, value in fields.items()}
    AtomicCheckpointIO().save_checkpoint(content, path)

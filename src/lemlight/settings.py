"""The settings of each command, values that no part's constructor has, and what of them may leave the machine.

Parts are checked against their constructors.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lemlight.arguments import Count, InnerFraction, NotNegativeCount, Probability, Smoothing
from lemlight.building import Part, Settings
from lemlight.limits import Limits
from lemlight.localization.choice import CutoffBy, Follow, check_names
from lemlight.metrics import Group, Level, LevelRule
from lemlight.metrics.operating import Threshold

Parts = dict[str, Part | None]
Accelerator = Literal["auto", "cpu", "gpu", "mps"]
Resamples = Annotated[int, Field(ge=100)]
Augmented = Literal["flip", "shift"]
Checkpoints = str | Annotated[list[str], Field(min_length=1)]
Choices = Annotated[dict[str, str | None], Field(default_factory=dict)]


class Command(Settings):
    """What train and evaluate share."""

    batch_size: Count
    workers: NotNegativeCount
    prepare_workers: Count | None
    store: str
    bootstrap: Resamples
    localization: Part
    examples: NotNegativeCount
    limits: Limits
    prevalence: InnerFraction | None
    subgroups: list[Group]
    output: str
    choices: Choices


class TrainSettings(Command):
    """python -m lemlight.train."""

    backbone: Part
    pooling: Part
    dataset: Part
    loss: Part
    augmentation: Part
    optimizer: Part
    scheduler: Part
    trainer: Part
    callbacks: Parts
    logger: Parts | None = None
    scorer_bias: bool
    feature_versions: NotNegativeCount | None = None  # a default: not in checkpoints of earlier versions
    inside_breast: bool = False  # a default: not in checkpoints of earlier versions
    level: Literal["image", "breast"] = "image"
    compile: bool = False  # a default: not in checkpoints of earlier versions
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threshold: Threshold
    calibration: Literal["none", "temperature"]
    primary_level: Level
    level_rule: LevelRule
    split: Literal["test", "val"]
    label_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    resume: str | None
    trust: list[str]


class EvaluateSettings(Command):
    """python -m lemlight.evaluate."""

    checkpoint: Checkpoints
    test_time_augmentation: list[Augmented]
    dataset: Part | None = None
    split: Literal["train", "val", "test", "all"]
    threshold: Probability | None
    primary_level: Level | None
    level_rule: LevelRule | None
    accelerator: Accelerator
    trust: list[str]


class LocalizeSettings(Settings):
    """python -m lemlight.localize."""

    checkpoint: Checkpoints
    test_time_augmentation: list[Augmented]
    input: str
    trust: list[str]
    localization: Part
    method: str | None
    follow: Follow
    keep: Probability | None
    smoothing: Smoothing | None
    cutoff: InnerFraction | None
    cutoff_by: CutoffBy | None
    threshold: Probability | None
    overlays: bool
    maps: bool
    dicom_seg: bool
    resume: bool
    workers: NotNegativeCount
    batch_size: Count
    accelerator: Accelerator
    limits: Limits
    output: str
    choices: Choices

    @model_validator(mode="after")
    def _known(self) -> "LocalizeSettings":
        check_names([self.method or "importance"], self.localization.get("methods", {}), "method")
        return self


class ExportSettings(Settings):
    """python -m lemlight.export."""

    checkpoint: str
    input: str | None
    trust: list[str]
    limits: Limits
    output: str
    choices: Choices


class PrepareSettings(Settings):
    """python -m lemlight.prepare."""

    dataset: Part
    check_only: bool
    part: Annotated[str, Field(pattern=r"^\d+/\d+$")] | None
    store: str
    prepare_workers: Count | None
    thumbnails: NotNegativeCount
    limits: Limits
    output: str
    choices: Choices

    @field_validator("part")
    @classmethod
    def _among_the_parts(cls, part: str | None) -> str | None:
        if part is not None and not 1 <= int(part.split("/")[0]) <= int(part.split("/")[1]):
            raise ValueError("the parts are 1/N to N/N")
        return part


class DownloadSettings(Settings):
    """python -m lemlight.download."""

    dataset: Part
    source: Part | None = None
    root: str
    patients: Count | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    check_only: bool
    output: str
    choices: Choices


class ReportSettings(Settings):
    """python -m lemlight.report."""

    runs: str
    question: str | None
    resamples: Resamples
    to: Literal["wandb"] | None
    output: str
    choices: Choices


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, for a file."""
    return settings.model_dump(mode="json")


PATH_WORD = re.compile("(root|csv|table|path|file|folder|dir|store|output|resume|checkpoint|input)s?")


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy `config` without anything that names a file or folder: such keys, and under any key absolute paths and `..`.

    A key names one if one of its words (split at underscores) does: root, weights_file, output_dir. A section such as
    callbacks.checkpoint stays: only its own entries are looked at; and so does a number, as in output_stride.
    """
    return {
        str(key): _public(value)
        for key, value in config.items()
        if isinstance(value, Mapping | int | float) or not (names_a_path(str(key)) or _is_a_path(value))
    }


def place_of(dataset: Mapping[str, Any]) -> str:
    """A mark of the folder of a data set, by which it is known again and which does not name it."""
    return hashlib.blake2b(os.path.abspath(str(dataset.get("root"))).encode(), digest_size=4).hexdigest()


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public_config(value)
    if isinstance(value, list | tuple):
        return [_public(member) for member in value if not _is_a_path(member)]
    return value


def names_a_path(key: str) -> bool:
    """Tell whether the value of a key is a file or a folder, by the words of its name."""
    return any(PATH_WORD.fullmatch(word) for word in re.split(r"[^a-z0-9]+", key.lower()))


def _is_a_path(value: Any) -> bool:
    text = str(value)
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return (
        absolute
        or ".." in PurePosixPath(text).parts
        or text.startswith("~")
        or "://" in text
        or isinstance(value, PurePosixPath | PureWindowsPath)
    )


def public_override(override: str) -> bool:
    """Tell whether an override of the command line (`key=value`) may leave the machine: it names no file or folder."""
    key, _, value = override.lstrip("+~").partition("=")
    parts = [part for part in re.split(r"[\s,\[\]{}'\"]+", value) if part]
    return not names_a_path(key.rpartition(".")[2]) and not any(_is_a_path(part) for part in parts)

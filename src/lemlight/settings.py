"""The settings of each command: values that no part's constructor has. Parts are checked against their constructors."""

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

"""The whole configuration of each command."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lemlight.config.base import Count, InnerShare, NotNegative, Section, Share
from lemlight.config.data import AugmentationConfig, DatasetConfig
from lemlight.config.localization import Follow, LocalizationConfig, LocalizationMethods
from lemlight.config.model import BackboneConfig, LossConfig, PoolingConfig
from lemlight.config.training import (
    CallbacksConfig,
    LoggerConfig,
    OptimizerConfig,
    SchedulerConfig,
    TrainerConfig,
)
from lemlight.localization.settings import check_names

Workers = Annotated[int, Field(ge=0)]
Accelerator = Literal["auto", "cpu", "gpu", "mps"]


class Command(Section):
    """What every command has."""

    batch_size: Count
    workers: Workers
    prepare_workers: Count | None
    store: str
    bootstrap: Annotated[int, Field(ge=100)]
    localization: LocalizationConfig
    examples: Workers
    output: str


class TrainConfig(Command):
    """python -m lemlight.train."""

    backbone: BackboneConfig
    pooling: PoolingConfig
    dataset: DatasetConfig
    loss: LossConfig
    augmentation: AugmentationConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    callbacks: CallbacksConfig
    logger: LoggerConfig
    scorer_bias: bool
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threshold: Share
    split: Literal["test", "val"] = "test"  # checkpoints from before it have none
    label_names: Annotated[list[str], Field(min_length=2, max_length=2)]
    resume: str | None

    @model_validator(mode="after")
    def _warm_up_fits(self) -> "TrainConfig":
        if self.scheduler.warmup_epochs >= self.trainer.max_epochs > 1:
            raise ValueError(
                f"scheduler.warmup_epochs={self.scheduler.warmup_epochs} must stay below "
                f"trainer.max_epochs={self.trainer.max_epochs}"
            )
        return self

    @property
    def run_name(self) -> str:
        """A name for dashboards: pooling, backbone, seed, and the fold of a cross-validation."""
        split = self.dataset.split
        fold = f"-fold{split.fold}" if split.scheme == "kfold" else ""
        return f"{self.pooling.name}-{self.backbone.name}-seed{self.seed}{fold}"


class EvaluateConfig(Command):
    """python -m lemlight.evaluate."""

    checkpoint: str
    dataset: DatasetConfig | None = None
    split: Literal["train", "val", "test", "all"]
    threshold: Share | None
    accelerator: Accelerator


class LocalizeConfig(Section):
    """python -m lemlight.localize."""

    checkpoint: str
    input: str
    method: str | None
    localization: LocalizationMethods
    follow: Follow
    keep: Share | None
    smoothing: NotNegative | None
    cutoff: InnerShare | None
    threshold: Share | None
    overlays: bool
    maps: bool
    dicom_seg: bool
    accelerator: Accelerator
    output: str

    @model_validator(mode="after")
    def _known(self) -> "LocalizeConfig":
        check_names([self.method or "importance"], self.localization.methods, "method")
        return self


class ExportConfig(Section):
    """python -m lemlight.export."""

    checkpoint: str
    input: str | None
    output: str


class PrepareCommandConfig(Section):
    """python -m lemlight.prepare."""

    dataset: DatasetConfig
    check_only: bool
    store: str
    prepare_workers: Count | None
    thumbnails: Workers
    output: str


class ReportConfig(Section):
    """python -m lemlight.report."""

    runs: str
    question: str | None
    resamples: Annotated[int, Field(ge=100)]
    to: Literal["wandb"] | None = None
    output: str

"""The sections optimizer, scheduler, trainer, callbacks and logger."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lemlight.config.base import Count, NotNegative, Positive, PositiveShare, Section, Share


class AdamConfig(Section):
    """Adam and AdamW with separate rates for the backbone and for scorer and pooling."""

    name: Literal["adam", "adamw"]
    lr_backbone: NotNegative
    lr_head: Positive
    weight_decay: NotNegative


class SgdConfig(Section):
    """Stochastic gradient descent with the same separate rates."""

    name: Literal["sgd"]
    lr_backbone: NotNegative
    lr_head: Positive
    weight_decay: NotNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SgdConfig":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0: set optimizer.nesterov=false or a momentum")
        return self


OptimizerConfig = Annotated[AdamConfig | SgdConfig, Field(discriminator="name")]


class StepSchedule(Section):
    """Times `factor` every `every_epochs` epochs."""

    name: Literal["step"]
    every_epochs: Count
    factor: PositiveShare
    warmup_epochs: NotNegative


class CosineSchedule(Section):
    """Half a cosine down to `final_share` of the first rate."""

    name: Literal["cosine"]
    final_share: Share
    warmup_epochs: NotNegative


class ConstantSchedule(Section):
    """The same rate throughout."""

    name: Literal["constant"]
    warmup_epochs: NotNegative


SchedulerConfig = Annotated[StepSchedule | CosineSchedule | ConstantSchedule, Field(discriminator="name")]
Limit = Annotated[int, Field(ge=1)] | PositiveShare


class TrainerConfig(Section):
    """What Lightning's Trainer is given."""

    max_epochs: Count
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    devices: Count | Literal["auto"]
    num_nodes: Count
    strategy: Literal["auto", "ddp", "ddp_spawn"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    accumulate: Count
    gradient_clip: Positive | None
    deterministic: bool
    limit_train_batches: Limit
    limit_val_batches: Limit
    limit_test_batches: Limit
    overfit_batches: Annotated[int, Field(ge=0)]
    detect_anomaly: bool

    @model_validator(mode="after")
    def _precision_fits(self) -> "TrainerConfig":
        if self.accelerator == "cpu" and self.precision != "32-true":
            raise ValueError(
                f"precision={self.precision} trains many times slower on a CPU: use trainer.precision=32-true"
            )
        return self


Monitor = Literal["val/auroc", "val/acc", "val/loss"]


class Watched(Section):
    """A logged figure and the direction in which it is better."""

    monitor: Monitor
    mode: Literal["min", "max"]

    @model_validator(mode="after")
    def _direction_fits(self) -> "Watched":
        better = "min" if self.monitor == "val/loss" else "max"
        if self.mode != better:
            raise ValueError(f"{self.monitor} is better at its {better}: set mode={better}")
        return self


class EarlyStoppingConfig(Watched):
    """Stop after `patience` epochs without an improvement of `min_delta`."""

    patience: Count
    min_delta: NotNegative


class RampConfig(Section):
    """How lambda goes from `start_value` to `end_value` between two shares of the training."""

    shape: Literal["linear", "cosine", "step"]
    start_value: Share
    end_value: Share
    start_at: Annotated[float, Field(ge=0, lt=1)]
    end_at: PositiveShare

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> "RampConfig":
        if self.end_at <= self.start_at:
            raise ValueError(
                f"the ramp ends (end_at={self.end_at}) before it starts (start_at={self.start_at}): "
                "set callbacks.lambda_ramp.end_at above start_at"
            )
        return self


class CallbacksConfig(Section):
    """What happens beside the training steps."""

    checkpoint: Watched
    lambda_ramp: RampConfig
    early_stopping: EarlyStoppingConfig | None
    progress_bar: bool


class WandbConfig(Section):
    """One W&B run."""

    project: Annotated[str, Field(min_length=1)]
    mode: Literal["offline", "online", "disabled"]
    group: str | None
    name: str | None
    tags: list[str]


class LoggerConfig(Section):
    """Where the figures of a training go, beside the CSV log that is always written."""

    tensorboard: bool
    wandb: WandbConfig | None

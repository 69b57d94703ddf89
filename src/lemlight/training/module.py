"""The LightningModule around a classifier and the combined loss."""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer
from torchmetrics.functional.classification import binary_accuracy, binary_auroc

from lemlight.data.dataset import unit_range
from lemlight.errors import LemlightError
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.lem import local_extrema
from lemlight.models.loss import combined_loss
from lemlight.training.card import CARD_KEY, seal
from lemlight.training.finite import LossWatch
from lemlight.training.gathering import concatenate, gather_rows
from lemlight.training.optimizers import build_optimizer
from lemlight.training.quiet import quiet
from lemlight.training.schedules import build_schedule


class MammogramModule(LightningModule):
    """Train a classifier (images (N, 1, H, W) in [0, 1] -> Scores) with the combined loss of Zhu et al. 2025, Eq. 8.

    `lam` in [0, 1] is the weight of the pooling's loss against GAP's: 1 unless a LambdaRamp owns it. `beta` weighs the
    regularizer, `positive_weight` the malignant class. `optimizer` and `schedule` are what `build_optimizer` and
    `build_schedule` take; `card` (config, label_names, preprocessing, versions) travels in every checkpoint.
    The classifier is laid out channels-last, which is faster on every device and changes no function.
    """

    lam: float

    def __init__(
        self,
        classifier: MammogramClassifier,
        *,
        beta: float,
        positive_weight: float | None,
        optimizer: Mapping[str, Any],
        schedule: Mapping[str, Any],
        card: Mapping[str, Any],
    ) -> None:
        super().__init__()
        # torch's stub of Module.to lacks the overload for a memory format alone
        self.classifier: MammogramClassifier = classifier.to(memory_format=torch.channels_last)
        self.beta = beta
        self.positive_weight = positive_weight
        self.optimizer_options = dict(optimizer)
        self.schedule_options = dict(schedule)
        self.card = seal(card)
        self.lam = 1.0
        self.loss_watch = LossWatch()
        self.images_seen, self.loss_sums = 0, dict[str, Tensor]()
        self.batches: list[tuple[Tensor, ...]] = []
        self.predictions: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """Quieten this process too, and spare it what determinism does not need."""
        quiet()
        # deterministic algorithms fill every new tensor, for readers of unwritten memory: 5 % of a step for nobody
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set at run time

    def forward(self, images: Tensor) -> Any:
        """Give the Scores of images (N, 1, H, W), in [0, 1] or uint16 as stored (see `unit_range`)."""
        return self.classifier(unit_range(images))

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Give the loss of one batch; raises LemlightError where it is not finite (see LossWatch)."""
        losses = combined_loss(self(batch["image"]), batch["label"], self.lam, self.beta, self.positive_weight)
        self.loss_watch.note(losses["total"], self.trainer, batch_idx)
        self._log_losses(losses, len(batch["label"]))
        return losses["total"]

    def on_train_epoch_start(self) -> None:
        """Log the learning rates that the epoch starts with."""
        self.images_seen, self.loss_sums = 0, {}
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)  # one optimizer, see configure_optimizers
        rates = {f"lr/{group['part']}": group["lr"] for group in optimizer.param_groups}
        self.log_dict(rates, on_step=False, on_epoch=True, sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Let no checkpoint be written after a loss that is not finite."""
        self.loss_watch.check(self.trainer)

    def on_validation_epoch_start(self) -> None:
        """Let nothing be validated after a loss that is not finite (DDP's first forward shares running statistics)."""
        self.loss_watch.check(self.trainer)
        self.batches = []

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep the logits of one batch until the epoch's end."""
        self.batches.append((batch["index"], self(batch["image"]).logit.float(), batch["label"].float()))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss (BCE of the pooling's logit, comparable over lambda), val/acc and val/auroc (NaN: one class)."""
        _, logit, label = gather_rows(*concatenate(self.batches))
        self.batches = []
        probability = self._probability(logit)
        target = label.long()
        whole: dict[str, Any] = {"sync_dist": True, "prog_bar": True}
        both = 0 < target.sum() < len(target)
        auroc = binary_auroc(probability, target) if both else torch.full_like(probability[0], torch.nan)
        self.log("val/loss", binary_cross_entropy_with_logits(logit.double(), label.double()).float(), **whole)
        self.log("val/acc", binary_accuracy(probability, target), **whole)
        self.log("val/auroc", auroc.float(), **whole)

    def on_predict_epoch_start(self) -> None:
        """Forget the predictions of an earlier run."""
        self.batches, self.predictions = [], []

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep logits and numbers of extrema of one batch until the epoch's end."""
        scores = self(batch["image"])
        extrema = local_extrema(scores.score_map, self.classifier.pooling.ties)
        counts = (extrema.maxima.flatten(1).sum(1), extrema.minima.flatten(1).sum(1))
        self.batches.append((batch["index"], scores.logit.float(), *counts))

    def on_predict_epoch_end(self) -> None:
        """Set `predictions`: index, probability, n_maxima, n_minima of every image once, sorted by index."""
        index, logit, n_maxima, n_minima = gather_rows(*concatenate(self.batches))
        self.batches = []
        self.predictions = [index.cpu(), self._probability(logit).cpu(), n_maxima.cpu(), n_minima.cpu()]

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the schedule over the optimizer steps that the trainer expects."""
        optimizer = build_optimizer(self.classifier, self.optimizer_options)
        steps, epochs = int(self.trainer.estimated_stepping_batches), int(self.trainer.max_epochs or 1)
        schedule = build_schedule(optimizer, self.schedule_options, total_steps=steps, epochs=epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the card beside the weights."""
        checkpoint[CARD_KEY] = self.card

    def _log_losses(self, losses: Mapping[str, Tensor], images: int) -> None:
        """Log the epoch's means at its last batch: logging every batch would cost a millisecond each time."""
        self.images_seen += images
        for name, loss in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0) + loss.detach() * images
        if self.trainer.is_last_batch:
            means = {name: total / self.images_seen for name, total in self.loss_sums.items()}
            mean: dict[str, Any] = {
                "on_step": False,
                "on_epoch": True,
                "sync_dist": True,
                "batch_size": self.images_seen,
            }
            self.log("train/loss", means.pop("total"), prog_bar=True, **mean)
            self.log_dict({f"train/loss_{name}": value for name, value in means.items()}, **mean)

    def _probability(self, logit: Tensor) -> Tensor:
        if not logit.isfinite().all():
            bad = int((~logit.isfinite()).sum())
            raise LemlightError(
                f"the network gives no number for {bad} of {len(logit)} images (epoch {self.current_epoch}): lower the "
                "learning rates or set trainer.precision=32-true; a checkpoint with such weights is of no use"
            )
        return logit.double().sigmoid()  # float32 would round confident logits to ties

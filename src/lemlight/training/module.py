"""The LightningModule around a classifier and its loss, and what it gathers over processes."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, distributed, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_accuracy, binary_auroc
from torchmetrics.utilities.distributed import gather_all_tensors

from lemlight.building import build, check_trust
from lemlight.data.datamodule import unit_range
from lemlight.errors import LemlightError
from lemlight.metrics.operating import read_operating
from lemlight.models.classifier import MammogramClassifier, build_classifier
from lemlight.models.lem import Extrema
from lemlight.settings import public_config
from lemlight.training.checkpoint import METADATA, plain
from lemlight.training.optimizers import build_optimizer, build_scheduler

NOISE = (
    r".*LeafSpec.*",  # Lightning 2.6 with torch 2.15
    r".*`srun` command is available.*",
    r".*does not have many workers.*",  # the number of workers is config
    r".*exists and is not empty.*",  # a resumed run
    r"You are using a custom batch sampler.*",  # EvalBags gives every image
    r"Grad strides do not match bucket view strides.*",  # 1x1 weights are both channels-last and not
    r"Found \d+ module\(s\) in eval mode.*",  # a frozen backbone
    r"predict returned None.*",  # predictions are gathered at the end, not returned by batch
)
CHATTER = (
    "Tip:",
    "GPU available",
    "You are using a CUDA device",  # autocast has the tensor cores at work; float32 is meant as it is
    "LOCAL_RANK: ",
    "Automatic Mixed Precision (AMP)",
    "TPU available",
    "`Trainer(limit_",
    "`Trainer.fit` stopped: `max_epochs=",
    "to estimate number of stepping batches",
)


def quiet() -> None:
    """Silence what Lightning says that helps nobody here: advertisements, its own deprecations, hints about srun.

    Called again in every process that is started for a device: filters are not inherited.
    """
    for name in ("utilities.rank_zero", "accelerators.cuda"):
        logging.getLogger(f"pytorch_lightning.{name}").addFilter(_worth_reading)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def _worth_reading(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in CHATTER)


EVERY = 50  # batches between two looks where a look costs a synchronisation


class LossWatch:
    """Remember the first step with a NaN or infinite loss, on the loss's own device.

    On one CPU every step is looked at. On a GPU or with several processes, where a look waits for all that is queued,
    every 50th batch is, and the end of every epoch before anything is validated or saved. The step named in the error
    is the first bad one all the same.
    """

    def __init__(self) -> None:
        self.first_bad: Tensor | None = None

    def note(self, loss: Tensor, trainer: Trainer, batch: int) -> None:
        """Take in the loss of one step and look where that is due; raises LemlightError as `check` does."""
        step = torch.full((), trainer.global_step, device=loss.device)
        bad = torch.where(loss.detach().isfinite(), -1, step)
        self.first_bad = bad if self.first_bad is None else torch.where(self.first_bad < 0, bad, self.first_bad)
        if (loss.device.type == "cpu" and trainer.world_size == 1) or (batch + 1) % EVERY == 0:
            self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Raise LemlightError on all processes together if any of them has met a loss that is not finite."""
        if self.first_bad is None:
            return
        step = int(self.first_bad)
        if trainer.world_size > 1:
            step = int(trainer.strategy.reduce(self.first_bad.float(), reduce_op="max"))
        if step >= 0:
            raise LemlightError(
                f"the training loss became NaN or infinite in epoch {trainer.current_epoch}, step {step}: lower "
                "optimizer.lr_backbone and optimizer.lr_head, set trainer.precision=32-true, or clip the gradient with "
                "trainer.gradient_clip_val=1.0; the checkpoints of the epochs before are untouched"
            )


def gather_rows(index: Tensor, *columns: Tensor) -> list[Tensor]:
    """Gather `index (N,)` and `columns (N, ...)` over all processes, sorted by index, each index once.

    The sampler pads the shards of val and test with images seen elsewhere; only the first row of an index is kept, so
    that what is computed from the rows is the same with any number of processes.
    """
    rows = [index, *columns]
    if distributed.is_available() and distributed.is_initialized():
        rows = [torch.cat(gather_all_tensors(row.contiguous())) for row in rows]
    order = torch.argsort(rows[0], stable=True)
    ordered = [row[order] for row in rows]
    kept = torch.ones_like(ordered[0], dtype=torch.bool)
    kept[1:] = ordered[0][1:] != ordered[0][:-1]
    return [row[kept] for row in ordered]


def leave_process_group() -> None:
    """End what DDP started, once all is done: Lightning leaves it open, and gloo's threads can then crash the exit."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


class MammogramModule(LightningModule):
    """Train a classifier (images (N, 1, H, W) in [0, 1] -> Scores) with a loss (Zhu et al. 2025, Eq. 8, by default).

    `config` holds the parts `backbone`, `pooling`, `loss`, `optimizer`, `scheduler` (each with its `_target_`) and
    `scorer_bias`, as plain values: they are the hyper-parameters of a checkpoint, so that `load_from_checkpoint` works.
    It then builds lemlight's and torch's own parts alone, and others only of the modules in `trust`; `trust=None`
    trusts the config, which is right for one of your own. With a `classifier` that one is trained in place of the
    config's. The classifier is laid out channels-last, which is faster on every device and changes no function. With
    `compile` steps of the training run the backbone as torch.compile makes it; whatever else is asked of it, and its
    checkpoint, are as without.

    Attributes:
        lam: in [0, 1], the weight of the pooling's loss against GAP's: 1 unless a LambdaRamp owns it.
        metadata: plain values that travel in every checkpoint, see `lemlight.training.checkpoint`.
    """

    lam: float

    def __init__(
        self,
        config: Mapping[str, Any],
        trust: Sequence[str] | None = (),
        classifier: MammogramClassifier | None = None,
        first_weights: bool = False,
    ) -> None:
        super().__init__()
        if trust is not None:
            check_trust(config, trust, "the configuration of this module")
        self.config: dict[str, Any] = plain(config)
        self.save_hyperparameters({"config": public_config(self.config)}, logger=False)  # it may be given away
        built = classifier if classifier is not None else build_classifier(self.config, first_weights)
        # torch's stub of Module.to lacks the overload for a memory format alone
        self.classifier: MammogramClassifier = built.to(memory_format=torch.channels_last)
        self.loss: nn.Module | None = None
        self.metadata: dict[str, Any] = {}
        self.lam = 1.0
        self.loss_watch = LossWatch()
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.images_seen, self.loss_sums = 0, dict[str, Tensor]()
        self.batches: list[tuple[Tensor, ...]] = []
        self.predictions: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """Build the loss for the labels of the train split; quieten this process, too."""
        quiet()
        # deterministic algorithms fill every new tensor, for readers of unwritten memory: 5 % of a step for nobody
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set at run time
        if stage == "fit":
            labels = getattr(getattr(self.trainer, "datamodule", None), "labels", None)
            self.loss = build_loss(self.config["loss"], labels("train") if labels else ())
            if self.config.get("compile"):  # of the method: a compiled module is one that holds the backbone again
                self.compiled = torch.compile(self.classifier.backbone.forward)

    def forward(self, images: Tensor, bag: Tensor | None = None) -> Any:
        """Give the Scores of images (N, 1, H, W), in [0, 1] or uint16 as stored (`unit_range`), or of their bags."""
        return self.classifier(unit_range(images), bag)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Give the loss of one batch; raises LemlightError where it is not finite (see LossWatch)."""
        assert self.loss is not None  # see setup
        scores = self._scores(batch, batch.get("bag"))
        losses: dict[str, Tensor] = self.loss(scores, batch["label"], self.lam)
        self.loss_watch.note(losses["total"], self.trainer, batch_idx)
        self._log_losses(losses, len(batch["label"]))
        return losses["total"]

    def _scores(self, batch: Mapping[str, Tensor], *bags: Tensor | None) -> Any:
        """The Scores of a batch, of its images or of features as a store keeps them; a list for several `bags`."""
        classifier = self.classifier
        if "features" in batch:
            features, covered = batch["features"][:, :-1], batch["features"][:, -1]
            valid = covered > 0 if classifier.inside_breast else None
            found = [classifier.judge(features, valid, bag) for bag in bags]
        else:
            images = unit_range(batch["image"])
            features = self._compiled(images) if self.compiled and self.training else classifier.backbone(images)
            found = [classifier.look(images, features, bag) for bag in bags]
        return found[0] if len(bags) == 1 else found

    def _compiled(self, images: Tensor) -> Tensor:
        assert self.compiled is not None
        try:
            return self.compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise LemlightError(
                f"compile=true: torch.compile cannot compile this backbone here ({str(error).splitlines()[0][:200]}); "
                "set compile=false"
            ) from error

    def on_train_epoch_start(self) -> None:
        """Log the learning rates that the epoch starts with; of the backbone that of its last block."""
        self.images_seen, self.loss_sums = 0, {}
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)  # one optimizer, see configure_optimizers
        rates = {f"lr/{group['part']}": group["lr"] for group in sorted(optimizer.param_groups, key=lambda g: g["lr"])}
        self.log_dict(rates, on_step=False, on_epoch=True, sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Let no checkpoint be written after a loss that is not finite."""
        self.loss_watch.check(self.trainer)

    def on_validation_epoch_start(self) -> None:
        """Let nothing be validated after a loss that is not finite (DDP's first forward shares running statistics)."""
        self.loss_watch.check(self.trainer)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep the logits of one batch until the epoch's end; a bag has the index of its first view."""
        index, bag = batch["index"], batch.get("bag")
        logit = self._scores(batch, bag).logit.float()
        if bag is not None:  # the views of a bag stand together
            index = index[torch.cat([bag.new_ones(1), bag.diff()]) > 0]
        self.batches.append((index, logit, batch["label"].float()))

    def on_validation_epoch_end(self) -> None:
        """Log val/loss (BCE of the pooling's logit, comparable over lambda), val/acc and val/auroc (NaN: one class)."""
        self._log_figures("val")

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep the logits of one batch until the epoch's end."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log test/loss, test/acc and test/auroc; figures with intervals are those of the commands."""
        self._log_figures("test")

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Keep logits and numbers of extrema of one batch until the epoch's end."""
        bag = batch.get("bag")
        scores, of_bags = (self._scores(batch, None), None) if bag is None else self._scores(batch, None, bag)
        extrema = self.classifier.extrema(scores)
        columns = [scores.logit.float(), extrema.maxima.flatten(1).sum(1), extrema.minima.flatten(1).sum(1)]
        if of_bags is not None:
            columns.append(of_bags.logit.float()[bag])
        self.batches.append((batch["index"], *columns))

    def on_predict_epoch_end(self) -> None:
        """Set `predictions`: index, probability, n_maxima, n_minima of every image once, sorted by index.

        Of bags the probability of the bag comes last.
        """
        index, logit, n_maxima, n_minima, *of_bag = self._gathered()
        self.predictions = [index.cpu(), self._probability(logit), n_maxima.cpu(), n_minima.cpu()]
        self.predictions += map(self._probability, of_bag)

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the schedule over the steps that the trainer expects."""
        optimizer = build_optimizer(self.classifier, self.config["optimizer"])
        steps, epochs = int(self.trainer.estimated_stepping_batches), int(self.trainer.max_epochs or 1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": build_scheduler(optimizer, self.config["scheduler"], steps, epochs),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the metadata beside the weights."""
        checkpoint[METADATA] = plain(self.metadata) | {"lambda": float(self.lam)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the temperature over, where this is no training that goes on."""
        if self._trainer is None:
            values = checkpoint.get(METADATA, {}).get("operating") or {}
            self.classifier.temperature = read_operating(values, "this checkpoint").temperature

    def _gathered(self) -> list[Tensor]:
        """The columns of the epoch's batches, which are forgotten, see `gather_rows`."""
        columns = [torch.cat(column) for column in zip(*self.batches, strict=True)]
        self.batches = []
        return gather_rows(*columns)

    def _log_figures(self, split: str) -> None:
        _, logit, label = self._gathered()
        probability = self._probability(logit)
        logit, label = logit.cpu().double(), label.cpu()  # there is no float64 on MPS
        target = label.long()
        both = 0 < target.sum() < len(target)
        figures = {
            "loss": binary_cross_entropy_with_logits(logit, label.double()),
            "acc": binary_accuracy(probability, target),
            "auroc": binary_auroc(probability, target) if both else torch.tensor(torch.nan),
        }
        for name, value in figures.items():
            self.log(f"{split}/{name}", value.float().to(self.device), sync_dist=True, prog_bar=True)

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
        """Probabilities on the CPU, float64: float32 would round confident logits to ties."""
        if not logit.isfinite().all():
            bad = int((~logit.isfinite()).sum())
            raise LemlightError(
                f"the network gives no number for {bad} of {len(logit)} images (epoch {self.current_epoch}): lower the "
                "learning rates or set trainer.precision=32-true; a checkpoint with such weights is of no use"
            )
        return logit.cpu().double().sigmoid()


def build_loss(part: Mapping[str, Any], train_labels: Sequence[int]) -> nn.Module:
    """Build a loss for the labels of the train split; LemlightError where it is no module."""
    loss: nn.Module = build(part, "loss", train_labels=list(train_labels), kind=nn.Module)
    return loss


COLUMNS = ("index", "probability", "n_maxima", "n_minima", "breast_probability")


def predict(trainer: Trainer, module: MammogramModule, dataloader: DataLoader) -> pd.DataFrame:  # type: ignore[type-arg]
    """Predict every image of `dataloader` once, on the trainer's running devices, with the weights that `module` has.

    Columns: index (the image's row in the image table), probability (malignant, [0, 1]), n_maxima and n_minima (local
    extrema of the score map by the default rule of `local_extrema`, whatever the pooling); sorted by index. Of batches
    of whole breasts also breast_probability, of all views together. Raises LemlightError where a logit is not finite.
    """
    if trainer.world_size > 1 and not distributed.is_initialized():
        trainer = _one_device(trainer)  # no process is there to share the work with: ddp_spawn has ended its own
    trainer.predict(module, dataloader, return_predictions=False)
    return pd.DataFrame({name: column.numpy() for name, column in zip(COLUMNS, module.predictions, strict=False)})


@torch.no_grad()
def score_maps(classifier: MammogramClassifier, images: Tensor) -> tuple[Tensor, Extrema]:
    """Give the score maps (N, h, w) of images (N, 1, H, W) in [0, 1] and their extrema, on the CPU; eval mode stays."""
    where = next(classifier.parameters()).device  # a module's own says the CPU once its Trainer has ended
    scores = classifier.eval()(images.to(where))
    extrema = classifier.extrema(scores)
    return scores.score_map.float().cpu(), Extrema(extrema.maxima.cpu(), extrema.minima.cpu())


def _one_device(trainer: Trainer) -> Trainer:
    return Trainer(
        accelerator=trainer.accelerator,
        devices=1,
        precision=trainer.precision,
        limit_predict_batches=trainer.limit_predict_batches,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=trainer.progress_bar_callback is not None,
        default_root_dir=trainer.default_root_dir,
    )

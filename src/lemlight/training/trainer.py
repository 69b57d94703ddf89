"""The Trainer with the settings that everything here relies on."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger

from lemlight.data.datamodule import MammogramData
from lemlight.training.checkpoint import AtomicCheckpointIO, load_checkpoint, load_weights
from lemlight.training.module import MammogramModule, quiet


def build_trainer(
    folder: Path,
    *,
    accelerator: str,
    devices: int | str,
    strategy: str,
    precision: str,
    max_epochs: int,
    accumulate: int,
    gradient_clip: float | None,
    deterministic: bool,
    limit_train_batches: int | float,
    limit_val_batches: int | float,
    limit_test_batches: int | float,
    overfit_batches: int,
    detect_anomaly: bool,
    num_nodes: int,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """Build the Trainer of one run in `folder`; `gradient_clip` is the largest norm, limits are batches or shares.

    The data's own samplers shard by process, gradients stay available outside fit (maps need them), checkpoints are
    written whole or not at all.
    """
    quiet()
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        num_nodes=num_nodes,
        precision=precision,  # type: ignore[arg-type]  # Lightning's long list of literals
        max_epochs=max_epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=gradient_clip,
        deterministic=deterministic,
        limit_train_batches=limit_train_batches,
        limit_val_batches=limit_val_batches,
        limit_test_batches=limit_test_batches,
        limit_predict_batches=limit_test_batches,
        overfit_batches=overfit_batches,
        detect_anomaly=detect_anomaly,
        callbacks=list(callbacks),
        logger=list(loggers),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
    )


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
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)


@rank_zero_only
def adopt_run(resume: Path, folder: Path) -> None:
    """Copy best.ckpt and logs/metrics.csv from the run that `resume` belongs to, where `folder` has none yet.

    What the kill left half-written in `folder` is removed.
    """
    for half in (folder / "checkpoints").glob(".*.part"):
        half.unlink()
    old = resume.resolve().parent.parent
    for name in ("checkpoints/best.ckpt", "logs/metrics.csv"):
        target = folder / name
        if (old / name).is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old / name, target)

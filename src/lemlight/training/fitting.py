"""Training from the start, or from where a killed training had got to."""

import shutil
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Trainer

from lemlight.data.module import MammogramData
from lemlight.training.checkpoint import load_checkpoint, load_weights
from lemlight.training.module import MammogramModule


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

"""python -m lemlight.train: prepare what is missing, fit, test the best checkpoint, write the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import TrainSettings, place_of, plain

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from lemlight.data.datamodule import MammogramFiles
    from lemlight.sweeps.names import Sweep
    from lemlight.training.module import MammogramModule


def train(
    settings: TrainSettings,
    overrides: Sequence[str] = (),
    sweep: "Sweep | None" = None,
    trust: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train, test the best checkpoint, write the run folder, and return what metrics.json holds, and `validation`.

    What is tested on is `settings.split`; the other splits are not predicted.

    Args:
        settings: the checked configuration.
        overrides: of the command line, for the report.
        sweep: that this training is a job of, for the dashboard.
        trust: None for a configuration of one's own; modules that may be imported beside lemlight's for another one.

    Raises:
        LemlightError: anything that the user can mend, found as early as it can be.
    """
    from pytorch_lightning import seed_everything

    from lemlight.files import write_yaml
    from lemlight.sweeps.names import labels_of
    from lemlight.training.callbacks import build_callbacks
    from lemlight.training.checkpoint import metadata_of, run_name
    from lemlight.training.logging import build_loggers, finish_loggers
    from lemlight.training.module import MammogramModule
    from lemlight.training.trainer import build_trainer, check_labels, fit, keep_features, try_parts, versions

    hold(settings.limits)
    config, folder = plain(settings), Path(settings.output)
    resume = Path(settings.resume) if settings.resume else None
    write_yaml(config, folder / "config.yaml")
    seed_everything(settings.seed, workers=True, verbose=False)
    module = MammogramModule(config, trust, first_weights=resume is None)
    try_parts(config, module.classifier)  # before the images: mistakes are found in seconds
    callbacks = build_callbacks(settings.callbacks, config)
    data = _data_of(settings)
    data.setup()
    data.record(folder)
    check_labels(data, settings.callbacks, settings.threshold, settings.calibration)
    seen = data.fingerprints("train"), data.fingerprints("val")
    module.metadata = metadata_of(versions(), *seen, place_of(settings.dataset))
    loggers = build_loggers(settings.logger or {}, config, **labels_of(run_name(config), config, overrides, sweep))
    failed = True
    try:
        trainer = build_trainer(settings.trainer, folder, callbacks, loggers)
        if module.classifier.frozen and settings.feature_versions is not None:
            keep_features(trainer, module, data, settings.feature_versions, resume)
        fit(trainer, module, data, resume)
        summary = _test(settings, overrides, folder, trainer, module, data)
        failed = False
    finally:
        finish_loggers(loggers, failed)
    return summary


def _test(
    settings: TrainSettings,
    overrides: Sequence[str],
    folder: Path,
    trainer: "Trainer",
    module: "MammogramModule",
    data: "MammogramFiles",
) -> dict[str, Any]:
    """Choose on the validation split, test the best checkpoint, write the run folder; ends what DDP has started."""
    from lemlight.reporting.run_results import Run, best_validation, choose_on_validation, write_results
    from lemlight.training.checkpoint import run_name
    from lemlight.training.module import leave_process_group

    title = f"{run_name(module.config)} on {settings.choices['dataset']}"
    operating, chosen = choose_on_validation(settings, trainer, module, data)
    given = (operating, settings.primary_level, settings.level_rule)
    run = Run("train", title, folder, settings, overrides, trainer, module, data, chosen, *given)
    summary = write_results(run, data.eval_dataloader(settings.split))
    leave_process_group()
    return summary | {"validation": best_validation(trainer)}


def _data_of(settings: TrainSettings) -> "MammogramFiles":
    from lemlight.building import build
    from lemlight.data.datamodule import MammogramFiles

    return MammogramFiles(
        settings.dataset,
        settings.store,
        settings.prepare_workers,
        batch_size=settings.batch_size,
        workers=settings.workers,
        augmentation=build(settings.augmentation, "augmentation"),
        seed=settings.seed,
        level=settings.level,
    )


def task(cfg: DictConfig) -> float | None:
    """Check the config, then train; returns the best monitored figure of the validation split, for a search."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        from lemlight.sweeps.jobs import run_job

        return run_job(cfg)

    from lemlight.sweeps.names import Sweep

    settings, trust = settings_of(cfg, TrainSettings), None
    if settings.resume:
        from lemlight.training.trainer import resumed

        settings, trust = resumed(settings, hydra.overrides.task), settings.trust
    value: float | None = train(settings, hydra.overrides.task, Sweep.of_this_process(), trust)["validation"]
    return value


def main() -> None:
    """The entry point of `python -m lemlight.train` and of `lemlight-train`."""
    from lemlight.sweeps.jobs import leaving_outcome

    run_command("train", leaving_outcome(task))


if __name__ == "__main__":
    main()

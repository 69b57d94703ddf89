"""python -m lemlight.evaluate: the metrics of any checkpoint on any data set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import EvaluateSettings

if TYPE_CHECKING:
    from lemlight.data.datamodule import MammogramFiles
    from lemlight.training.trained import Trained


def evaluate(settings: EvaluateSettings, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, or several as an ensemble, write the run folder, and return what metrics.json holds.

    Preprocessing is the checkpoint's: what was trained is what is tested.

    Raises:
        LemlightError: anything that the user can mend.
    """
    from pathlib import Path

    from lemlight.files import write_yaml
    from lemlight.localization.choice import build_settings
    from lemlight.reporting.run_results import Run, write_results
    from lemlight.settings import plain
    from lemlight.training.module import MammogramModule
    from lemlight.training.trained import open_networks
    from lemlight.training.trainer import dataset_to_test, evaluation_trainer

    hold(settings.limits)
    asked = build_settings(settings.localization)  # a method that cannot be built is found now
    trained = open_networks(settings.checkpoint, settings.trust, settings.test_time_augmentation)
    checkpoint, folder = trained.first, Path(settings.output)
    name, dataset = dataset_to_test(checkpoint, settings.dataset, settings.choices.get("dataset"))
    trained.try_methods(asked.methods.values())
    levels = {name: getattr(settings, name) or value for name, value in checkpoint.levels.items()}
    settings = settings.model_copy(update={"dataset": dataset, **levels})
    write_yaml(plain(settings), folder / "config.yaml")
    data = _data_of(settings, dataset, checkpoint.config.get("level", "image"))
    data.record(folder)
    judging = trained.who_judges(data.fingerprints(settings.split))
    about = _about(trained, data.fingerprints(settings.split), name, dataset)
    module = MammogramModule(checkpoint.config, None, trained.classifier)
    module.lam = checkpoint.lam
    operating, trainer = trained.operating(settings.threshold), evaluation_trainer(settings.accelerator, folder)
    batches = data.eval_dataloader(settings.split)
    trained.say_cost()
    ids = data.table.loc[data.table["split"] == settings.split, "image_id"]
    localization, chosen = trained.localization(asked)
    run = Run(
        command="evaluate",
        title=f"{trained.name}, trained on {checkpoint.choices.get('dataset')}, tested on {name}",
        folder=folder,
        settings=settings,
        overrides=overrides,
        trainer=trainer,
        module=module,
        data=data,
        chosen=chosen,
        operating=operating,
        level=levels["primary_level"],
        rule=levels["level_rule"],
        about=about,
        localization=localization,
        folds=trained.folds(settings.localization, judging, ids.tolist()),
    )
    if trained.is_one:
        return write_results(run, batches)
    scores, each = trained.predict(trainer, batches, judging)
    return write_results(
        run, batches, scores, list(zip([one.checkpoint for one in trained.networks], each, strict=True))
    )


def _data_of(settings: EvaluateSettings, dataset: dict[str, Any], level: str) -> "MammogramFiles":
    from lemlight.data.datamodule import MammogramFiles

    data = MammogramFiles(
        dataset,
        settings.store,
        settings.prepare_workers,
        split=settings.split != "all",
        batch_size=settings.batch_size,
        workers=settings.workers,
        level=level,
    )
    data.setup()
    return data


def _about(trained: "Trained", fingerprints: Sequence[str], name: str, dataset: dict[str, Any]) -> dict[str, Any]:
    """What the page of an evaluation says of the network, of its data and of these."""
    from lemlight.reporting.comparison.transfer import about, describe
    from lemlight.settings import place_of
    from lemlight.training.trainer import say_known

    first = trained.first
    known = say_known(fingerprints, first) if len(trained.networks) == 1 else 0
    trained_in = describe(first.config["dataset"], str(first.choices.get("dataset")), first.place)
    tested_in = describe(dataset, name, place_of(dataset))
    return about(trained_in, trained.name, tested_in, known, first.levels["primary_level"])


def task(cfg: DictConfig) -> float | None:
    """Check the config, then evaluate; returns the AUC at the primary level, or where that is not defined of images."""
    settings = settings_of(cfg, EvaluateSettings)
    summary = evaluate(settings, HydraConfig.get().overrides.task)
    section = summary.get("levels", {}).get(summary["primary_level"], summary)
    value: float | None = section.get("auroc", summary["auroc"])["value"]
    return value


def main() -> None:
    """The entry point of `python -m lemlight.evaluate` and of `lemlight-evaluate`."""
    run_command("evaluate", task)


if __name__ == "__main__":
    main()

"""python -m lemlight.evaluate: the metrics of any checkpoint on any data set."""

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, write the run folder, and return what metrics.json holds.

    Preprocessing is the checkpoint's: what was trained is what is tested.

    Raises:
        LemlightError: anything that the user can mend.
    """
    from pathlib import Path

    from lemlight.data.datamodule import MammogramFiles
    from lemlight.files import write_yaml
    from lemlight.localization.attribution import try_methods
    from lemlight.localization.choice import build_settings, chosen_settings
    from lemlight.reporting.run_results import Run, write_results
    from lemlight.reporting.transfer import about, describe
    from lemlight.settings import plain
    from lemlight.training.checkpoint import load_checkpoint, load_classifier
    from lemlight.training.module import MammogramModule
    from lemlight.training.trainer import dataset_to_test, evaluation_trainer, say_known

    hold(settings.limits)
    localization = build_settings(settings.localization)  # a method that cannot be built is found now
    checkpoint = load_checkpoint(Path(settings.checkpoint))
    classifier = load_classifier(checkpoint, settings.trust)
    name, dataset = dataset_to_test(checkpoint, settings.dataset, settings.choices.get("dataset"))
    prepare = dataset["prepare"]
    try_methods(classifier, localization.methods.values(), (prepare["height"], prepare["width"]))
    folder = Path(settings.output)
    levels = {name: getattr(settings, name) or value for name, value in checkpoint.levels.items()}
    settings = settings.model_copy(update={"dataset": dataset, **levels})
    write_yaml(plain(settings), folder / "config.yaml")
    data = MammogramFiles(
        dataset,
        settings.store,
        settings.prepare_workers,
        split=settings.split != "all",
        batch_size=settings.batch_size,
        workers=settings.workers,
        level=checkpoint.config.get("level", "image"),
    )
    data.setup()
    data.record(folder)
    known = say_known(data.fingerprints(settings.split), checkpoint)
    module = MammogramModule(checkpoint.config, None, classifier)
    module.lam = checkpoint.lam
    title = f"{checkpoint.run_name}, trained on {checkpoint.choices.get('dataset')}, tested on {name}"
    operating = checkpoint.operating.with_threshold(settings.threshold)
    trainer = evaluation_trainer(settings.accelerator, folder)
    chosen = chosen_settings(checkpoint.localization, checkpoint.path)
    trained_on = str(checkpoint.choices.get("dataset"))
    sets = describe(checkpoint.config["dataset"], trained_on), describe(dataset, name)
    said = about(sets[0], checkpoint.run_name, sets[1], known)
    given = (operating, levels["primary_level"], levels["level_rule"], said)
    run = Run("evaluate", title, folder, settings, overrides, trainer, module, data, chosen, *given)
    return write_results(run, data.eval_dataloader(settings.split))


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

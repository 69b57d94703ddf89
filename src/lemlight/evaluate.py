"""python -m lemlight.evaluate: the metrics of any checkpoint on any data set."""

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lemlight.cli import run_command, settings_of
from lemlight.limits import hold
from lemlight.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Test a checkpoint, or several as an ensemble, write the run folder, and return what metrics.json holds.

    Preprocessing is the checkpoint's: what was trained is what is tested.

    Raises:
        LemlightError: anything that the user can mend.
    """
    from dataclasses import replace
    from pathlib import Path

    from lemlight.data.datamodule import MammogramFiles
    from lemlight.files import write_yaml
    from lemlight.localization.attribution import try_methods
    from lemlight.localization.choice import build_settings, chosen_settings
    from lemlight.reporting.comparison.transfer import about, describe
    from lemlight.reporting.run_results import Run, write_results
    from lemlight.settings import plain
    from lemlight.training import ensembles
    from lemlight.training.module import MammogramModule
    from lemlight.training.privacy import place_of
    from lemlight.training.trainer import dataset_to_test, evaluation_trainer, say_known

    hold(settings.limits)
    asked = build_settings(settings.localization)  # a method that cannot be built is found now
    networks, moved = ensembles.open_networks(settings.checkpoint, settings.trust), settings.test_time_augmentation
    checkpoint = networks[0].checkpoint
    name, dataset = dataset_to_test(checkpoint, settings.dataset, settings.choices.get("dataset"))
    prepare = dataset["prepare"]
    for network in networks:
        try_methods(network.classifier, asked.methods.values(), (prepare["height"], prepare["width"]))
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
    judging = ensembles.who_judges(networks, data.fingerprints(settings.split))
    known = say_known(data.fingerprints(settings.split), checkpoint) if len(networks) == 1 else 0
    module = MammogramModule(checkpoint.config, None, ensembles.ensemble_of(networks, moved))
    module.lam = checkpoint.lam
    title = f"{ensembles.name_of(networks)}, trained on {checkpoint.choices.get('dataset')}, tested on {name}"
    operating = ensembles.operating_together(networks, settings.threshold, moved)
    trainer = evaluation_trainer(settings.accelerator, folder)
    every = [chosen_settings(one.checkpoint.localization, one.checkpoint.path) for one in networks]
    trained_on = str(checkpoint.choices.get("dataset"))
    trained_in = describe(checkpoint.config["dataset"], trained_on, checkpoint.place)
    sets = trained_in, describe(dataset, name, place_of(dataset))
    said = about(sets[0], ensembles.name_of(networks), sets[1], known, checkpoint.levels["primary_level"])
    given = (operating, levels["primary_level"], levels["level_rule"], said)
    run = Run("evaluate", title, folder, settings, overrides, trainer, module, data, every[0], *given)
    batches = data.eval_dataloader(settings.split)
    if len(networks) == 1 and not moved:
        return write_results(run, batches)
    ensembles.say_cost(networks, moved)
    localization, chosen = ensembles.localization_together(networks, every, asked)
    ids = data.table.loc[data.table["split"] == settings.split, "image_id"]
    folds = ensembles.folds_of(networks, moved, every, settings.localization, judging, ids.tolist())
    run = replace(run, localization=localization, chosen=chosen, folds=folds)
    scores, each = ensembles.predict_together(trainer, networks, moved, batches, judging)
    return write_results(run, batches, scores, list(zip([one.checkpoint for one in networks], each, strict=True)))


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

"""What a tested network leaves in the run folder: metrics, predictions, figures, the run page."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from scipy.special import expit
from torch.utils.data import DataLoader

from lemlight.data.datamodule import MammogramFiles, unit_range
from lemlight.data.groups import ORDER, exams, group_columns, public_groups
from lemlight.files import write_csv, write_json
from lemlight.localization.choice import Chosen, LocalizationSettings, build_settings
from lemlight.localization.evaluation import Localizing
from lemlight.metrics import CLASSIFICATION_NAMES, Level, LevelRule
from lemlight.metrics.calibration import fit_temperature, log_odds
from lemlight.metrics.classification import summarize, write_predictions
from lemlight.metrics.levels import (
    TOGETHER,
    choose_points,
    level_table,
    level_tables,
    summarize_levels,
    why_not,
    write_level_tables,
)
from lemlight.metrics.operating import Operating
from lemlight.metrics.subgroups import summarize_subgroups
from lemlight.plots.curves import (
    any_group_is_large_enough,
    reliability_figure,
    roc_figure,
    subgroup_figure,
    training_curves,
)
from lemlight.plots.sheets import SheetItem, choose_examples, image_sheet
from lemlight.reporting.comparison.transfer import ABOUT
from lemlight.reporting.localization_results import choose_settings, measure_localization
from lemlight.reporting.page import public_command
from lemlight.reporting.run_page import (
    has_lesions,
    lambda_note,
    localization_text,
    metrics_text,
    write_model_card,
    write_run_page,
)
from lemlight.settings import Command, TrainSettings, plain, public_config
from lemlight.terminal import print_summary
from lemlight.training.checkpoint import Checkpoint, add_to_metadata, load_checkpoint, load_weights
from lemlight.training.logging import log_results
from lemlight.training.module import MammogramModule, predict, score_maps
from lemlight.training.trained import Fold
from lemlight.training.trainer import versions


@dataclass(frozen=True)
class Run:
    """A command at the point where the network is to be tested.

    `command` is train or evaluate, `title` heads the page, `overrides` is what the command line changed, `chosen` are
    the localization settings of the validation split; `level` is the primary one, `rule` how images make a level.
    `about` is what an evaluation says of the network and the data.
    """

    command: str
    title: str
    folder: Path
    settings: Command
    overrides: Sequence[str]
    trainer: Trainer
    module: MammogramModule
    data: MammogramFiles
    chosen: Mapping[str, Chosen]
    operating: Operating
    level: Level
    rule: LevelRule
    about: Mapping[str, Any] = field(default_factory=dict)
    localization: LocalizationSettings | None = None  # of an ensemble; else those of the settings
    folds: Sequence[Fold] = ()  # out of fold: who judges which images

    def localizing(self) -> Localizing:
        """The network on its device, ready to localize; out of fold each image by those that may see it."""
        place = localizing(self.settings, self.trainer, self.module, self.data, self.operating.drawn)
        place = replace(place, settings=self.localization or place.settings)
        own = [place.table[place.table["image_id"].isin(list(fold.image_ids))] for fold in self.folds]
        folds = [
            replace(place, classifier=fold.classifier.to(place.device).eval(), settings=fold.localization, table=table)
            for fold, table in zip(self.folds, own, strict=True)
        ]
        return replace(place, folds=folds)


def choose_on_validation(
    settings: TrainSettings, trainer: Trainer, module: MammogramModule, data: MammogramFiles
) -> tuple[Operating, dict[str, Chosen]]:
    """Go back to the best weights; choose with them temperature, thresholds and how to localize.

    Their checkpoint holds all of it, too.
    """
    best = Path(settings.output) / "checkpoints" / "best.ckpt"
    checkpoint = load_checkpoint(best)
    load_weights(module.classifier, checkpoint)
    module.lam = checkpoint.lam
    trainer.strategy.barrier()  # none is to read the file while another adds to it
    folder = Path(settings.output) if trainer.is_global_zero else None
    operating = choose_operating(settings, trainer, module, data)
    module.classifier.temperature = operating.temperature
    chosen = choose_settings(localizing(settings, trainer, module, data, operating.drawn), folder)
    if trainer.is_global_zero:
        localization = {method: one.model_dump() for method, one in chosen.items()}
        add_to_metadata(best, localization=localization, operating=operating.model_dump())
    return operating, chosen


def choose_operating(
    settings: TrainSettings, trainer: Trainer, module: MammogramModule, data: MammogramFiles
) -> Operating:
    """Choose temperature and thresholds on the validation split, which is predicted only where there is a choice."""
    given = Operating(rule=settings.threshold, level_rule=settings.level_rule)
    module.classifier.temperature = 1.0
    if not isinstance(settings.threshold, str) and settings.calibration == "none":
        return given
    predictions = _beside(data, predict(trainer, module, data.val_dataloader()))
    temperature, why = 1.0, ""
    if settings.calibration == "temperature":
        logit = log_odds(predictions["probability"])
        temperature, why = fit_temperature(predictions["label"].to_numpy(dtype=bool), logit)
        predictions["probability"] = expit(logit / temperature)
        if TOGETHER in predictions:
            predictions[TOGETHER] = expit(log_odds(predictions[TOGETHER]) / temperature)
    found = {
        "temperature": temperature,
        "uncalibrated": why,
        "points": choose_points(predictions, settings.threshold, settings.level_rule),
        "images": len(predictions),
        "patients": int(predictions["patient_id"].nunique()),
    }
    return given.model_copy(update=found)


def _beside(data: MammogramFiles, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the image table that scores are of, with them and with the exams."""
    scores = scores.set_index("index")
    rows = data.table.loc[scores.index].join(scores)
    return rows.assign(exam=exams(rows))


def localizing(
    settings: Command, trainer: Trainer, module: MammogramModule, data: MammogramFiles, threshold: float
) -> Localizing:
    """Put a copy of the network on the trainer's device, ready to localize.

    It is not laid out channels-last: on a CPU with one thread importance would take up to 1.8 times as long, since
    PyTorch's 1x1 convolutions of a few images do not keep that layout.
    """
    device, chosen = trainer.strategy.root_device, build_settings(settings.localization)
    module.classifier.to(device).eval()  # Lightning leaves it on the CPU
    classifier = copy.deepcopy(module.classifier).to(memory_format=torch.contiguous_format)
    return Localizing(classifier, device, data.table, data.store, chosen, threshold, settings.batch_size)


def best_validation(trainer: Trainer) -> float | None:
    """The monitored figure of the best checkpoint, on the validation split: what a search may optimize."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            return float(callback.best_model_score)
    return None


def write_results(
    run: Run,
    batches: DataLoader[Any],
    scores: pd.DataFrame | None = None,
    each: Sequence[tuple[Checkpoint, pd.DataFrame]] | None = None,
) -> dict[str, Any]:
    """Predict every image of `batches`, write and print what came out, and return what metrics.json holds.

    With several processes all of them predict and localize, and the first one writes. Of an ensemble `scores` are its
    predictions, `each` those of its networks.
    """
    scores = predict(run.trainer, run.module, batches) if scores is None else scores
    predictions = _beside(run.data, scores)
    summary = summarize_all(predictions, run)
    first = run.trainer.is_global_zero
    localized, pictures = measure_localization(
        run.localizing(), run.chosen, str(summary["split"]), run.folder if first else None, run.settings.bootstrap
    )
    summary |= localized | {"lambda": run.module.lam}
    summary |= {ABOUT: run.about} if run.about else {}
    if each is not None:
        summary["ensemble"] = {"out_of_fold": bool(run.folds), "networks": alone(run, each)}
    if not first:
        return summary
    write_json(summary, run.folder / "metrics.json")
    write_predictions(predictions, run.folder / "predictions.csv")
    write_level_tables(level_tables(predictions, run.rule), run.folder)
    figures = _figures(run, predictions, summary) | pictures
    page = _page(run, summary, figures)
    log_results(run.trainer.loggers, summary, figures, predictions)
    print(f"\n{metrics_text(summary)}\n")
    if note := lambda_note(run.module.lam):
        print(f"note: {note}\n")
    if has_lesions(summary):
        print(f"{localization_text(summary)}\n")
    where = {"figures and report": page, "pictures": run.folder / "figures"}
    if run.command == "train":
        where["checkpoint"] = run.folder / "checkpoints" / "best.ckpt"
    print_summary(where | {"all of this run": run.folder})
    return summary


def alone(run: Run, each: Sequence[tuple[Checkpoint, pd.DataFrame]]) -> list[dict[str, Any]]:
    """Return the metrics of each network of an ensemble on the images that it judges, at the primary level."""
    found = []
    for checkpoint, scores in each:
        predictions = _beside(run.data, scores)
        level = "image" if why_not(predictions, run.level) else run.level
        table = level_table(predictions, level, run.rule)
        summary = summarize(table, point=checkpoint.operating.point(level), resamples=run.settings.bootstrap)
        metrics = {name: summary[name] for name in CLASSIFICATION_NAMES}
        found.append({"network": checkpoint.run_name, "level": level, "units": len(table), **metrics})
    return found


def summarize_all(predictions: pd.DataFrame, run: Run) -> dict[str, Any]:
    """Return the classification in metrics.json: of images, and of every level above that the table defines."""
    chosen, rule = run.operating, run.operating.rule
    how: dict[str, Any] = {"prevalence": run.settings.prevalence, "resamples": run.settings.bootstrap}
    levels = summarize_levels(predictions, rule=run.rule, operating=chosen, **how)
    images = summarize(predictions, point=chosen.point("image"), rule=rule, temperature=chosen.temperature, **how)
    if chosen.uncalibrated:
        images["calibration"]["uncalibrated"] = chosen.uncalibrated
    groups, names = public_groups(group_columns(predictions, run.data.store, run.settings.subgroups))
    if len(names) and run.trainer.is_global_zero:
        write_csv(names, run.folder / "subgroups.csv")
    images["subgroups"] = summarize_subgroups(
        predictions, groups, threshold=images["threshold"], order=ORDER, resamples=run.settings.bootstrap
    )
    return images | {"primary_level": run.level, "levels": levels}


def _figures(run: Run, predictions: pd.DataFrame, summary: Mapping[str, Any]) -> dict[str, Path]:
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    figures: dict[str, Path] = {}
    if run.settings.examples:
        chosen = choose_examples(predictions, run.settings.examples, seed=0, threshold=run.operating.drawn)
        items = _sheet_items(run, predictions.set_index("image_id").loc[chosen])
        figures["sheet"] = image_sheet(items, folder / "sheet.png")
    figures["roc"] = roc_figure(predictions, summary, folder / "roc.png")
    figures["reliability"] = reliability_figure(summary, folder / "reliability.png")
    if any_group_is_large_enough(summary):
        figures["subgroups"] = subgroup_figure(summary, folder / "subgroups.png")
    log = run.folder / "logs" / "metrics.csv"
    if log.is_file():
        figures["curves"] = training_curves(pd.read_csv(log), folder / "curves.png")
    return figures


def _sheet_items(run: Run, rows: pd.DataFrame) -> list[SheetItem]:
    store = run.data.store
    judges = {image_id: fold.classifier for fold in run.folds for image_id in fold.image_ids}
    items = []
    for image_id, row in rows.iterrows():
        place = store.index_of(str(image_id))
        image = unit_range(torch.from_numpy(np.array(store.image(place))))  # a copy: the store's view is read-only
        score_map, extrema = score_maps(judges.get(str(image_id), run.module.classifier), image[None, None])
        mask = store.mask(place)
        items.append(
            SheetItem(
                image=image.numpy(),
                score_map=score_map[0].numpy(),
                maxima=extrema.maxima[0].numpy(),
                minima=extrema.minima[0].numpy(),
                mask=None if mask is None else mask > 0,
                label=int(row["label"]),
                probability=float(row["probability"]),
            )
        )
    return items


def _page(run: Run, summary: Mapping[str, Any], figures: Mapping[str, Path]) -> Path:
    said: dict[str, Any] = {
        "title": run.title,
        "summary": summary,
        "config": public_config(plain(run.settings)),
        "leak_text": run.data.leaks.text(names=False),
        "versions": versions(),
        "command": public_command(run.command, run.overrides),
    }
    if run.command == "train":
        write_model_card(run.folder / "checkpoints", **said)
    return write_run_page(run.folder, figures=figures, **said)

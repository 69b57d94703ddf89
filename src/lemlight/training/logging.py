"""Loggers beside the CSV table that is always written, and what they are sent; see docs/own/logger.md."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.image import imread
from pydantic import Field
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from lemlight.arguments import checked
from lemlight.building import build
from lemlight.settings import public_config


def build_loggers(parts: Mapping[str, Any], config: Mapping[str, Any], **labels: Any) -> list[Logger]:
    """Build the loggers of a config, null left out, and send each the public part of `config`.

    `labels`: what a logger may be told of the run, see `wandb_logger`. Raises LemlightError where one is no logger or
    its package is not installed.
    """
    built = [build(part, f"logger.{name}", kind=Logger | None, **labels) for name, part in parts.items() if part]
    loggers = [logger for logger in built if logger is not None]
    for logger in loggers:
        logger.log_hyperparams(sent_config(config))
    return loggers


def sent_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the public part of `config` with a text in place of every list, without the loggers' own section.

    It stays nested: W&B shows and filters nested keys with dots (`choices.pooling`), but cannot filter keys that hold
    dots themselves.
    """
    return _without_lists({key: value for key, value in public_config(config).items() if key != "logger"})


def _without_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_lists(value)
        if isinstance(value, Mapping)
        else ", ".join(map(str, value))
        if isinstance(value, list | tuple)
        else value
        for key, value in values.items()
    }


def finish_loggers(loggers: Sequence[Logger], failed: bool) -> None:
    """Close the W&B run of this job, as failed or not, so that the next job of a sweep opens its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=1 if failed else 0)


@checked
def wandb_logger(
    save_dir: str | Path,
    project: Annotated[str, Field(min_length=1)],
    mode: Literal["offline", "online", "disabled"] = "offline",
    group: str | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    label: str | None = None,
    sweep_group: str | None = None,
    labels: Sequence[str] = (),
) -> WandbLogger | None:
    """One run of W&B for this training, below `save_dir`; None when disabled.

    `label`, `sweep_group` and `labels` stand in for a name and a group that are not given, and beside the tags.
    """
    if mode == "disabled":
        return None
    from wandb import Settings

    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # nothing about the machine, the user, the command line or the code: a path may carry a patient's or hospital's name
    settings = Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        program="lemlight",
        program_abspath="lemlight",
        program_relpath="lemlight",
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_executable="",
        x_save_requirements=False,
    )
    return WandbLogger(
        project=project,
        group=group or sweep_group,
        job_type="train",
        name=name or label,
        tags=list(dict.fromkeys([*tags, *labels])),
        save_dir=folder,
        version=_run_id(folder / "logs" / "wandb_run_id"),
        mode=mode,
        settings=settings,
        log_model=False,
    )


def _run_id(path: Path) -> str:
    """Read the id of this folder's W&B run, or draw one: a resumed training goes on in the same run."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


BOUNDS = ("low", "high")
COUNTS = ("images", "patients")


def flat_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the defined figures of a summary (metrics.json) by name, with the bounds of their intervals.

    `test/auroc`, `test/auroc_low`, `test/auroc_high`; the mean of the FROC curve as `test/froc`; a level above the
    image as `test/breast/auroc`; a further localization method as `test/cam/dsc`; the best settings for the very images
    as `test/dsc_oracle`; `test/images`.
    """
    split = summary["split"]
    figures = _figures(summary, f"{split}/")
    for method, section in (summary.get("localization_compared") or {}).items():
        figures |= _figures(section, f"{split}/{method}/")
    figures |= _figures(summary.get("operating") or {}, f"{split}/")
    for level, section in (summary.get("levels") or {}).items():
        figures |= _figures(section, f"{split}/{level}/") | _figures(
            section.get("operating") or {}, f"{split}/{level}/"
        )
    figures |= _figures((summary.get("localization") or {}).get("by_breast") or {}, f"{split}/by_breast/")
    oracle = ((summary.get("localization") or {}).get("oracle") or {}).get("dsc")
    if oracle is not None:
        figures[f"{split}/dsc_oracle"] = float(oracle)
    return figures | {f"{split}/{name}": summary[name] for name in COUNTS if name in summary}


def _figures(section: Mapping[str, Any], prefix: str) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, part in section.items():
        figure = part.get("mean", part) if name == "froc" else part
        if not isinstance(figure, Mapping) or figure.get("value") is None:
            continue
        flat[f"{prefix}{name}"] = float(figure["value"])
        flat |= {f"{prefix}{name}_{part}": float(figure[part]) for part in BOUNDS if figure.get(part) is not None}
    return flat


def log_results(
    loggers: Sequence[Logger],
    summary: Mapping[str, Any],
    pictures: Mapping[str, Path],
    predictions: pd.DataFrame,
) -> None:
    """Send the figures of a summary (metrics.json), the pictures (PNG by name) and, to W&B, a table of predictions.

    No image and no patient is named: in place of its name an image has its row in predictions.csv, from 1.
    """
    split = summary["split"]
    figures = flat_figures(summary)
    for logger in loggers:
        logger.log_metrics({name: value for name, value in figures.items() if not name.endswith(("_low", "_high"))})
        for name, path in pictures.items():
            pixels = np.round(255 * imread(path)[..., :3]).astype(np.uint8)
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/{name}", [pixels])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"{split}/{name}", pixels, dataformats="HWC")
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update(figures)
            sent = predictions[["label", "probability", "n_maxima", "n_minima"]].reset_index(drop=True)
            sent.insert(0, "image", np.arange(1, len(sent) + 1))
            _log_table(logger, f"{split}/predictions", sent)


def _log_table(logger: WandbLogger, key: str, table: pd.DataFrame) -> None:
    """Log a table as a file of the run, as pictures are.

    A table that is not bound to its run beforehand is also made an artifact, whose copy lies in the user's home and
    whose path there stands in the run file.
    """
    from wandb import Table

    rows = Table(dataframe=table)
    run = logger.experiment
    rows.bind_to_run(run, key, run.step)  # type: ignore[no-untyped-call]
    run.log({key: rows})

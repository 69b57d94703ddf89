"""TensorBoard and W&B beside the CSV table that is always written."""

import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from lemlight.errors import LemlightError
from lemlight.training.privacy import public_config


def build_loggers(
    folder: Path, *, tensorboard: bool, wandb: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> list[Logger]:
    """Build the loggers of a training in `folder` and send them the public part of `config`.

    `wandb`: project, group, name, tags, mode (offline, online or disabled), or None. Raises LemlightError when
    TensorBoard is asked for and not installed.
    """
    loggers: list[Logger] = []
    if tensorboard:
        if find_spec("tensorboard") is None:
            raise LemlightError(
                "logger.tensorboard=true needs the package tensorboard: pip install 'lemlight[tensorboard]'"
            )
        loggers.append(TensorBoardLogger(folder / "logs", name="tensorboard", version=""))
    if wandb is not None and wandb["mode"] != "disabled":
        loggers.append(_wandb_logger(folder, wandb))
    for logger in loggers:
        logger.log_hyperparams(sent_config(config))
    return loggers


def sent_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the public part of `config` with a text in place of every list, without the loggers' own section.

    It stays nested: W&B shows and filters nested keys with dots (`pooling.name`), but cannot filter keys that hold
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


def _wandb_logger(folder: Path, options: Mapping[str, Any]) -> WandbLogger:
    from wandb import Settings

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
        project=options["project"],
        group=options["group"],
        job_type="train",
        name=options["name"],
        tags=list(options["tags"]),
        save_dir=folder,
        version=_run_id(folder / "logs" / "wandb_run_id"),
        mode=options["mode"],
        settings=settings,
        log_model=False,
    )


def _run_id(path: Path) -> str:
    """Read the id of this folder's W&B run, or draw one: a resumed training goes on in the same run."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()

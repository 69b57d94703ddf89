"""Going on with a run: its configuration is that of the checkpoint, and nothing that changes a figure may differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lemlight.building import TARGET, check_settings, check_trust
from lemlight.errors import LemlightError
from lemlight.settings import TrainSettings, plain
from lemlight.sweeps.names import WITHOUT_EFFECT
from lemlight.training.checkpoint import load_checkpoint
from lemlight.training.privacy import names_a_path, public_config

# taken from the command line: where things are, what this machine is, and how long to train
OF_THE_COMMAND = (
    *WITHOUT_EFFECT,
    "resume",
    "trust",
    "output",
    "dataset.root",
    "dataset.tables",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.profiler",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
)
WHOLE_SETS = ("recipe", "experiment", "debug", "scale", "set")  # files that set keys of every group


def resumed(settings: TrainSettings, overrides: Sequence[str]) -> TrainSettings:
    """Give the settings of the run that `settings.resume` belongs to, with what the command may change.

    Args:
        settings: as the command line composed them.
        overrides: of the command line, `key=value`.

    Raises:
        LemlightError: an override that would change a figure, by name; fewer epochs than are done; a checkpoint with
            parts from outside whose modules are not trusted.
    """
    checkpoint = load_checkpoint(Path(str(settings.resume)))
    check_trust(checkpoint.config, settings.trust, str(checkpoint.path))
    asked, stored = plain(settings), checkpoint.config
    changed = [line for override in overrides if (line := difference(override, asked, stored))]
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise LemlightError(
            f"{checkpoint.path} was trained with other settings, which a resumed run keeps:\n{lines}\n"
            "leave these out to go on with that run, or leave out resume to train anew"
        )
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    values = merged(stored, asked, given)
    epochs = _at(values, "trainer.max_epochs")
    if isinstance(epochs, int) and epochs <= checkpoint.epoch:
        raise LemlightError(
            f"trainer.max_epochs={epochs}: {checkpoint.path} has {checkpoint.epoch + 1} epochs behind it; ask for more"
        )
    return check_settings(values, TrainSettings, where=f"the configuration in {checkpoint.path}")


def difference(override: str, asked: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """What an override would change of the run, in words; empty where it changes no figure."""
    key, _, value = override.lstrip("+~").partition("=")
    if _of_the_command(key):
        return ""
    choices = stored.get("choices") or {}
    if "." not in key and (key in WHOLE_SETS or key in choices or "/" in key):  # a choice of a file
        chosen = choices.get(key)
        return "" if str(chosen) == value else f"{key}={value}: the run has {key}={chosen}"
    here, there = _at(asked, key), _at(stored, key)
    return "" if here == there else f"{key}={here}: the run has {key}={there}"


def _of_the_command(key: str) -> bool:
    return any(key == known or key.startswith(f"{known}.") for known in OF_THE_COMMAND)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def merged(stored: Mapping[str, Any], asked: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """The run's own values, and the command's where it may decide.

    Where files are, the command alone says: a checkpoint carries no path, and one of a stranger's is not followed.
    LemlightError where it cannot, as it has another data set.
    """
    values = public_config(stored)
    values |= {key: asked[key] for key in (*WITHOUT_EFFECT, "output", "resume", "trust") if key in asked}
    for key in given:
        if "." in key and _of_the_command(key) and _at(asked, key) is not None:
            group, _, name = key.partition(".")
            if "." not in name and isinstance(values.get(group), dict):
                values[group][name] = _at(asked, key)
    ours, theirs = (str(_at(config, "choices.dataset")) for config in (asked, stored))
    if ours != theirs:
        raise LemlightError(f"a checkpoint does not say where its images are: give dataset={theirs} dataset.root=DIR")
    return _with_paths(values, asked)


def _with_paths(values: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Take the files and folders that the checkpoint left out from the command, in the parts that it has as well."""
    if values.get(TARGET) != asked.get(TARGET):
        return values
    for key, value in asked.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _with_paths(values[key], value)
        elif key not in values and names_a_path(key) and not isinstance(value, int | float):
            values[key] = value
    return values

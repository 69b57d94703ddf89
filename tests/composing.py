"""Settings as a command line composes them, without Hydra's application around them."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lemlight import settings
from lemlight.building import check_settings
from lemlight.cli import conf_dir

SETTINGS = {name: getattr(settings, f"{name.capitalize()}Settings") for name in
            ("train", "evaluate", "localize", "prepare", "report", "export", "download")}  # fmt: skip


def values_of(*overrides, command="train"):
    """What a command line composes, as plain values with the chosen files."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose(command, ["output=run", *overrides], return_hydra_config=True)
    choices = {key: value for key, value in config.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    del config._metadata.flags["struct"]
    values = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True
    )
    return values | {"choices": {key.split("@")[0].strip("/"): value for key, value in choices.items()}}


def settings_of(*overrides, command="train"):
    return check_settings(values_of(*overrides, command=command), SETTINGS[command])

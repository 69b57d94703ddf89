"""What every command shares: Hydra around a task, and one clear message instead of a traceback."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lemlight.config.conf_dir import conf_dir
from lemlight.errors import LemlightError


def run_command(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Compose `conf/<config_name>.yaml` with the command line and run `task` on it; exit with 2 on a user's mistake."""
    traceback_wanted = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on to us instead of printing its own form of them
    try:
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(task)()
    except (LemlightError, HydraException, OmegaConfBaseException, OSError) as error:
        if traceback_wanted:
            raise
        print(f"lemlight: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lemlight: interrupted", file=sys.stderr)
        sys.exit(130)


def explain(error: BaseException) -> str:
    """The message of an error, with Hydra's advice on unknown keys replaced by the nearest key that exists."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).partition("Config search path:")[0].strip()
    unknown = re.search(r"Could not (?:override|append to config) '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if unknown and "group" not in text:
        key = unknown.group(1)
        close = difflib.get_close_matches(key.split(".")[-1], _known_keys(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{key}: there is no such key; {hint}`--cfg job` lists all of them"
    cause = error.__cause__
    return f"{text}\n{cause}" if isinstance(cause, OmegaConfBaseException) else text


def _known_keys() -> list[str]:
    files = Path(conf_dir()).rglob("*.yaml")
    return sorted({key for file in files for key in re.findall(r"^\s*(\w+):", file.read_text(), re.MULTILINE)})

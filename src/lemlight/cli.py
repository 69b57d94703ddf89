"""What every command shares: Hydra around a task, and one clear message instead of a traceback."""

import atexit
import difflib
import errno
import functools
import gc
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lemlight import __version__, building
from lemlight.errors import LemlightError
from lemlight.sweeps.names import register_resolvers

MISTAKES = (LemlightError, HydraException, OmegaConfBaseException, OSError)
EXTRAS = {  # of lemlight, by Hydra's name of what they bring
    "hydra/launcher/ray": "ray",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/joblib": "joblib",
    "hydra/sweeper/optuna": "optuna",
}
NO_TRIALS = "No trials are completed yet"  # what Optuna says at the end of a search whose trials have all failed
Schema = TypeVar("Schema", bound=building.Settings)
register_resolvers()  # on import: a process of a launcher imports this module before it reads a config


def keep_freed_memory() -> None:
    """Let glibc keep what large arrays leave for those to come, where the C library is glibc.

    It would give it back to the system, which clears it page by page when the next array asks for it: on a CPU that is
    most of the time of an operation on single pixels, and a fifth of that of a training step.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for trim_or_mmap_threshold in (-1, -3):
        if mallopt is not None:
            mallopt(trim_or_mmap_threshold, 2**31 - 1)


def run_command(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Compose `conf/<config_name>.yaml` with the command line and run `task` on it; exit with 2 on a user's mistake.

    In a multirun every job is run; each that fails says why, and the exit code tells that one did. Runs keep
    account of their jobs themselves (lemlight.sweeps), wherever these run.
    """
    for chatty in ("matplotlib", "idc_index"):  # that one looks for fonts and the other for room helps nobody
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if "--version" in sys.argv[1:]:  # Hydra's own tells Hydra's
        print(f"lemlight {__version__}")
        return
    keep_freed_memory()
    traceback_wanted = "HYDRA_FULL_ERROR" in os.environ
    failed: list[BaseException] = []

    @functools.wraps(task)
    def job(config: DictConfig) -> Any:
        if not traceback_wanted:
            os.environ.pop("HYDRA_FULL_ERROR", None)  # ours: the processes that a task starts are not to inherit it
        try:
            return task(config)
        except MISTAKES as error:
            if traceback_wanted:
                raise
            failed.append(error)
            say(explain(error))
            return None
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8
    sys.argv[1:] = map(quoted, sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands errors on to us instead of printing its own form of them
    try:
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(job)()
    except Exception as error:
        if traceback_wanted or not (isinstance(error, MISTAKES) or NO_TRIALS in str(error)):
            raise
        failed.append(error)
        say(explain(error))
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, KeyboardInterrupt):
            raise  # Lightning turns an interruption of a training into an exit of its own
        say("interrupted")
        sys.exit(130)
    if failed:
        sys.exit(2)


def quoted(word: str) -> str:
    """Quote the value of an override that is a path as it stands: Hydra reads = and , and ( in it as its own."""
    key, equals, path = word.partition("=")
    if not equals or re.fullmatch(r"[\w./:+%@-]*", path, re.ASCII) or not os.path.exists(path):
        return word
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", path)
    return f"{key}='{escaped}'"


def conf_dir() -> str:
    """The absolute path of conf/: in the checkout for an editable install, else beside the installed package."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return str(candidate)
    raise LemlightError(f"no configs at {package / 'conf'}: install lemlight again (its wheel carries conf/)")


def settings_of(config: DictConfig, schema: type[Schema]) -> Schema:
    """Check what Hydra composed, with `choices`, the chosen file of every group; see `building.check_settings`."""
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    runtime = HydraConfig.get().runtime
    choices = {str(group): choice for group, choice in runtime.choices.items() if not str(group).startswith("hydra/")}
    folders = [source.path for source in runtime.config_sources if source.schema == "file"]
    for group, choice in choices.items():
        files = [Path(folder, group, f"{choice}.yaml") for folder in folders]
        building.FILES.update((group, str(file)) for file in files[::-1] if choice and file.is_file())
    choices = {group.split("@")[0].strip("/"): choice for group, choice in choices.items()}
    first = "torch" not in sys.modules
    gc.disable()  # the parts bring torch and all else: no garbage, but looking for some takes a fifth of the start
    try:
        return building.check_settings(values | {"choices": choices}, schema)
    finally:
        if first:
            gc.freeze()
            atexit.register(gc.unfreeze)  # or packages report leaks at the end
        gc.enable()


def say(sentence: str) -> None:
    """Print what went wrong."""
    print(f"lemlight: {sentence}", file=sys.stderr)


def explain(error: BaseException) -> str:
    """The message of an error, with Hydra's advice on unknown keys replaced by the nearest key that exists."""
    if isinstance(error, OSError) and error.errno:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{error.filename or 'the run folder'}: the disk is full; make room or set hydra.run.dir=DIR"
        return f"{error.filename or 'a file'}: {error.strerror}"
    if NO_TRIALS in str(error):
        return "every trial of the search has failed, each as it said above; the same command runs them again"
    text = str(error).partition("Config search path:")[0].strip()
    if isinstance(error, OverrideParseException) or (ambiguous := re.search(r"argument '(.*)'\n1\. To use", text)):
        override = error.override if isinstance(error, OverrideParseException) else str(ambiguous and ambiguous[1])
        key, _, value = override.partition("=")
        return f"{override}: {text.splitlines()[0]}; a path or text with such signs needs quotes: \"{key}='{value}'\""
    absent = re.search(r"Could not find '([^']+)'", text)
    if absent and absent.group(1) in EXTRAS:
        group, _, name = absent.group(1).rpartition("/")
        return f"{group}={name} needs a package: pip install 'lemlight[{EXTRAS[absent.group(1)]}]'"
    unknown = re.search(r"Could not (?:override|append to config) '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if unknown and "group" not in text:
        key = unknown.group(1)
        close = difflib.get_close_matches(key.split(".")[-1], _known_keys(), n=1)
        hint = f"did you mean {close[0]}? " if close and close[0] != key.split(".")[-1] else ""
        return f"{key}: there is no such key; {hint}`--cfg job` lists all of them"
    cause = error.__cause__
    return f"{text}\n{cause}" if isinstance(cause, OmegaConfBaseException) else text


def _known_keys() -> list[str]:
    files = Path(conf_dir()).rglob("*.yaml")
    return sorted({key for file in files for key in re.findall(r"^\s*(\w+):", file.read_text(), re.MULTILINE)})

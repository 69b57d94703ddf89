"""What every command shares: Hydra around a task, and one clear message instead of a traceback."""

import atexit
import errno
import functools
import gc
import io
import logging
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lemlight import __version__, building
from lemlight.errors import LemlightError
from lemlight.limits import keep_freed_memory
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


def run_command(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Compose `conf/<config_name>.yaml` with the command line and run `task` on it; exit with 2 on a user's mistake.

    In a multirun every job is run; each that fails says why, and the exit code tells that one did. Runs keep
    account of their jobs themselves (lemlight.sweeps), wherever these run.
    """
    with ending_in_a_sentence():
        if "--version" in sys.argv[1:]:  # Hydra's own tells Hydra's
            print(f"lemlight {__version__}")
        else:
            _run(config_name, task)


def _run(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    for chatty in ("matplotlib", "idc_index"):  # that one looks for fonts and the other for room helps nobody
        logging.getLogger(chatty).setLevel(logging.WARNING)
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
            if traceback_wanted or isinstance(error, BrokenPipeError):
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
        mistake = isinstance(error, MISTAKES) or NO_TRIALS in str(error)
        if traceback_wanted or not mistake or isinstance(error, BrokenPipeError):
            raise
        failed.append(error)
        say(explain(error))
    if failed:
        sys.exit(2)


class ToldToEnd(SystemExit):
    """SIGTERM, as `kill`, `timeout` and clusters send it."""


_last: dict[int, float] = {}  # when a signal came


def end(number: int, _: object) -> None:
    """End this process by an exception, for Ctrl-C or SIGTERM; one that follows at once says the same.

    `timeout` sends one to the process and one to its group. A second exception amid the first one's work could meet
    code in C++ that cannot be left a second time, such as torch's writer of checkpoints.
    """
    before, _last[number] = _last.get(number, -math.inf), time.monotonic()
    if _last[number] - before > 1:
        raise KeyboardInterrupt if number == signal.SIGINT else ToldToEnd(128 + number)


@contextmanager
def ending_in_a_sentence() -> Iterator[None]:
    """Let whatever cuts a command off end it as it ends other programs, without a traceback: a sentence, a code.

    130 is Ctrl-C, 143 SIGTERM, 141 a reader that has gone (`| head`), which wants no sentence. A training adds how to
    go on as a note.
    """
    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    in_main = threading.current_thread() is threading.main_thread()
    ours = [number for number, usual in defaults.items() if in_main and signal.getsignal(number) == usual]
    for number in ours:
        signal.signal(number, end)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:  # of what is printed: all others were said before
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        if isinstance(error, BrokenPipeError):
            os.dup2(nowhere, 2)
            sys.exit(128 + signal.SIGPIPE)
        say(f"what is printed cannot be written: {error.strerror}")
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as cut:
        told = isinstance(cut, ToldToEnd) or type(cut).__name__ == "SIGTERMException"  # Lightning's, for the same
        if isinstance(cut, SystemExit) and not told and not isinstance(cut.__context__, KeyboardInterrupt):
            raise  # Lightning turns an interruption of a training into an exit of its own
        say("; ".join(["told to end (SIGTERM)" if told else "interrupted", *getattr(cut, "__notes__", ())]))
        sys.exit(128 + (signal.SIGTERM if told else signal.SIGINT))
    finally:
        for number in ours:
            signal.signal(number, defaults[number])


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
        name, known = key.split(".")[-1], _known_keys()
        hint = "" if name in known else building.did_you_mean(name, known)
        return f"{key}: there is no such key{hint}; `--cfg job` lists all of them"
    cause = error.__cause__
    return f"{text}\n{cause}" if isinstance(cause, OmegaConfBaseException) else text


def _known_keys() -> set[str]:
    files = Path(conf_dir()).rglob("*.yaml")
    return {key for file in files for key in re.findall(r"^\s*(\w+):", file.read_text(), re.MULTILINE)}

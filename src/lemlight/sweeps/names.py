"""The folder names of a sweep and of its jobs: functions of the command, so that the same command finds its jobs."""

import hashlib
import re
from collections.abc import Iterable, Sequence

LONGEST = 100  # characters of a name
HASHED = 8  # hexadecimal digits that tell apart what a shortened or cleaned name no longer does
# settings of the machine, of the paths and of what is shown: they change no figure
WITHOUT_EFFECT = (
    "workers",
    "prepare_workers",
    "store",
    "output",
    "logger",
    "examples",
    "callbacks.progress_bar",
)
DRAWN = re.compile(r"\d+\.\d{6,}(e-?\d+)?")


def short_numbers(text: str) -> str:
    """Shorten every number that a search has drawn, which has 17 digits, to three."""
    return DRAWN.sub(lambda number: f"{float(number[0]):.3g}", text)


def sweep_name(overrides: Sequence[str], axes: Iterable[str] = ()) -> str:
    """Name the folder of a sweep.

    With an experiment: its name and what the command line holds fixed beside it, so that a value more on an axis finds
    the jobs that are there. Without: all of the overrides.

    Args:
        overrides: of the command line, as Hydra lists them: `pooling=gap,lem`.
        axes: keys over which the experiment itself sweeps.
    """
    swept = [override for override in overrides if is_axis(override)]
    fixed = [override for override in overrides if override not in swept and not without_effect(override)]
    experiments = [_value(override) for override in fixed if _key(override) == "experiment"]
    if not experiments:
        return file_name([*_sorted(swept), *_sorted(fixed)]) or "defaults"
    beside = [override for override in fixed if _key(override) not in {*axes, "experiment"}]
    return file_name([experiments[-1], *_sorted(beside)])


def job_name(overrides: Sequence[str], of_the_sweep: Sequence[str], axes: Iterable[str] = ()) -> str:
    """Name the folder of a job by what tells it from the other jobs of its sweep.

    Args:
        overrides: of the job: `pooling=gap`.
        of_the_sweep: overrides of the command line; what these hold fixed is left out.
        axes: keys over which the experiment sweeps; they stay, even where the command line holds one fixed.
    """
    fixed = {_key(override) for override in of_the_sweep if not is_axis(override)} - set(axes)
    return file_name(_sorted(override for override in overrides if _key(override) not in fixed)) or "only"


def is_axis(override: str) -> bool:
    """Whether Hydra makes several jobs of an override, as of `seed=0,1` (and not of the list `keys=[0,1]`)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def without_effect(override: str) -> bool:
    """Whether an override changes no figure."""
    return _key(override) in WITHOUT_EFFECT


def file_name(parts: Sequence[str]) -> str:
    """Join overrides to a name that every file system takes; distinct for distinct overrides.

    A hash is added to a name that was too long or held other characters than letters, digits and `_.=,~-`.
    """
    wanted = [part.lstrip("+") for part in parts]
    clean = [re.sub(r"[^A-Za-z0-9_.=,~-]+", "-", part) for part in wanted]
    name = "+".join(clean)
    if clean == wanted and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256("\0".join(wanted).encode("utf-8", "surrogatepass")).hexdigest()[:HASHED]
    return f"{name[: LONGEST - HASHED - 1]}-{digest}"


def _sorted(overrides: Iterable[str]) -> list[str]:
    return sorted(overrides, key=_key)


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _value(override: str) -> str:
    return override.partition("=")[2]

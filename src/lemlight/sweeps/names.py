"""The folder names of a sweep and of its jobs: functions of the command, so that the same command finds its jobs."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lemlight.settings import public_override

SWEEP = "LEMLIGHT_SWEEP"  # the variable that tells a training of which sweep it is a job
LONGEST = 100  # characters of a name
PLAIN = re.compile(r"([A-Za-z0-9_.]+=)?[A-Za-z0-9_.,-]*")  # an override that a name need not clean
HASHED = 8  # hexadecimal digits that tell apart what a shortened or cleaned name no longer does
# settings of the machine, of the paths and of what is shown: they change no figure
WITHOUT_EFFECT = (
    *("workers", "prepare_workers", "store", "output", "logger", "examples", "trainer.enable_progress_bar"),
    "limits",
)


def sweep_name(overrides: Sequence[str], axes: Iterable[str] = ()) -> str:
    """Name the folder of a sweep.

    With an experiment: its name and what the command line holds fixed beside it, so that a value more on an axis finds
    the jobs that are there. Without: all of the overrides. `axes` are keys over which the experiment itself sweeps.
    """
    swept = [override for override in overrides if is_axis(override)]
    fixed = [override for override in overrides if override not in swept and not without_effect(override)]
    chosen = [override.partition("=")[2] for override in fixed if _key(override) == "experiment"]
    if not chosen:
        return file_name([*sorted(swept, key=_key), *sorted(fixed, key=_key)]) or "defaults"
    beside = [override for override in fixed if _key(override) not in {*axes, "experiment"}]
    return file_name([chosen[-1], *sorted(beside, key=_key)])


def job_name(overrides: Sequence[str], of_the_sweep: Sequence[str], axes: Iterable[str] = ()) -> str:
    """Name the folder of a job by what tells it from the other jobs of its sweep.

    What the overrides of the sweep's command line hold fixed is left out, but for the `axes` of its experiment.
    """
    fixed = {_key(override) for override in of_the_sweep if not is_axis(override)} - set(axes)
    return file_name(sorted((override for override in overrides if _key(override) not in fixed), key=_key)) or "only"


def is_axis(override: str) -> bool:
    """Whether Hydra makes several jobs of an override, as of `seed=0,1` (and not of the list `keys=[0,1]`)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def without_effect(override: str) -> bool:
    """Whether an override changes no figure."""
    key = _key(override)
    return key in WITHOUT_EFFECT or key.startswith("limits.")


def file_name(parts: Sequence[str]) -> str:
    """Join overrides to a name that every file system and every command line takes; distinct for distinct overrides.

    `pooling=gap,lem` becomes `pooling-gap@lem`, as Hydra reads = and , in a path as its own. A hash is added to a name
    that was too long or held other characters than letters, digits and `_.-`.
    """
    wanted = [part.lstrip("+") for part in parts]
    name = "+".join(re.sub(r"[^A-Za-z0-9_.@-]+", "-", part.replace(",", "@")) for part in wanted)
    if all(map(PLAIN.fullmatch, wanted)) and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256("\0".join(wanted).encode("utf-8", "surrogatepass")).hexdigest()[:HASHED]
    return f"{name[: LONGEST - HASHED - 1]}-{digest}"


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def register_resolvers() -> None:
    """Make `sweep_name`, `sweep_overrides` and `job_name` known to OmegaConf; again does nothing.

    Those of the sweep are resolved once, in the config of the whole command: Hydra hands what is cached there to the
    config of every job, whose own overrides are others.
    """

    def of_the_sweep(overrides: Sequence[str], params: Mapping[str, object] | None) -> str:
        return sweep_name(list(overrides), list(params or ()))

    def of_the_job(overrides: Sequence[str], sweep: Sequence[str], params: Mapping[str, object] | None) -> str:
        return job_name(list(overrides), list(sweep), list(params or ()))

    OmegaConf.register_new_resolver("sweep_name", of_the_sweep, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_overrides", lambda overrides: list(overrides), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("job_name", of_the_job, replace=True)


def overrides_of_the_sweep(config: DictConfig) -> list[str]:
    """Find the overrides of the command that started the sweep of a job with this config; those of one job are others.

    Empty where the folders of the sweep have names of the user's own, so that they were not needed.
    """
    cached = OmegaConf.get_cache(config).get("sweep_overrides", {})
    return next((list(overrides) for overrides in cached.values()), [])


IN_THE_NAME = ("pooling", "backbone", "seed", "dataset.split.fold")  # of every run


@dataclass(frozen=True)
class Sweep:
    """The sweep of a job.

    `overrides` are those of its command line, empty where they are not known; `axes` the keys over which its
    experiment sweeps.
    """

    overrides: Sequence[str]
    axes: Sequence[str] = ()

    @staticmethod
    def of_this_process() -> "Sweep | None":
        """The sweep that has started this training; None for a training of its own."""
        given = os.environ.get(SWEEP)
        return Sweep(**json.loads(given)) if given else None


def labels_of(name: str, config: Mapping[str, Any], overrides: Sequence[str], sweep: "Sweep | None") -> dict[str, Any]:
    """What a logger may be told of a run; no path in any of it.

    `label`: its name, `lem-resnet18-seed0`, with the values that tell the jobs of its sweep apart and are not in it.
    `sweep_group`: the same for all jobs of a command, the name of the sweep's folder (its experiment, or its
    overrides) without what names a file; None for a run of its own. `labels`: tags, the data set and the experiment.
    """
    public = [override for override in overrides if public_override(override)]
    experiments = [override.partition("=")[2] for override in public if _key(override) == "experiment"][-1:]
    told, group = [], file_name(experiments) if experiments else None
    if sweep is not None:
        swept = {_key(override) for override in sweep.overrides if is_axis(override)} | set(sweep.axes)
        told = [override for override in public if _key(override) in swept.difference(IN_THE_NAME)]
        if sweep.overrides:
            group = sweep_name([override for override in sweep.overrides if public_override(override)], sweep.axes)
    labels = [str(config["choices"].get("dataset")), *experiments]
    return {"label": file_name([name, *told]), "sweep_group": group, "labels": labels}

"""How a training is called on a dashboard: its name, the group of its sweep, its tags; no path in any of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lemlight.sweeps.names import file_name, is_axis, sweep_name
from lemlight.training.privacy import public_override

IN_THE_NAME = ("pooling", "backbone", "seed", "dataset.split.fold")  # of every run
LONGEST_TAG = 64  # characters, of W&B


@dataclass(frozen=True)
class Sweep:
    """The sweep of a job.

    `overrides` are those of its command line, empty where they are not known; `axes` the keys over which its
    experiment sweeps.
    """

    overrides: Sequence[str]
    axes: Sequence[str] = ()


def run_label(name: str, overrides: Sequence[str], sweep: Sweep | None) -> str:
    """Add to the name of a run the values that tell the jobs of its sweep apart and that are not in it.

    Args:
        name: of method and seed, `lem-resnet18-seed0`.
        overrides: of the job.
        sweep: None for a training of its own.
    """
    if sweep is None:
        return name
    swept = {_key(override) for override in sweep.overrides if is_axis(override)} | set(sweep.axes)
    telling = swept.difference(IN_THE_NAME)
    more = [override for override in overrides if _key(override) in telling and public_override(override)]
    return file_name([name, *more])


def group_label(overrides: Sequence[str], sweep: Sweep | None) -> str | None:
    """Name the group of a run, the same for all jobs of a command; None for a training of its own.

    It is the name of the sweep's folder (the experiment and what that is run with, or the overrides) without what
    names a file.
    """
    if sweep is None or not sweep.overrides:
        chosen = experiment(overrides)
        return chosen and file_name([chosen])
    return sweep_name([override for override in sweep.overrides if public_override(override)], sweep.axes)


def tag_labels(overrides: Sequence[str], chosen: Iterable[str]) -> list[str]:
    """List the tags of a run, each once: those `chosen`, and its experiment where it has one."""
    tags = [*chosen, experiment(overrides)]
    return [tag[:LONGEST_TAG] for tag in dict.fromkeys(tag for tag in tags if tag)]


def experiment(overrides: Sequence[str]) -> str | None:
    """Find the experiment in the overrides of a command line."""
    found = [override.partition("=")[2] for override in overrides if _key(override) == "experiment"]
    return found[-1] if found and public_override(f"experiment={found[-1]}") else None


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]

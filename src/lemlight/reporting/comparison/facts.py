"""What stands on the page beside the figures: confusion, failures, differing settings, leaks, commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lemlight.reporting.comparison.hiding import plain_words
from lemlight.reporting.comparison.methods import ABSENT, differing_keys, flat_settings
from lemlight.reporting.comparison.results_files import read_leaks
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.sweeps.names import WITHOUT_EFFECT
from lemlight.training.privacy import public_config

LEAK_NAMES = {"leaking_patients": "patients", "leaking_breasts": "breasts", "leaking_files": "files"}
FAILED = {
    "failed": "The training failed: ",
    "unfinished": "The training is not finished: ",
    "damaged": "The results cannot be read: ",
}


@dataclass(frozen=True)
class Confusion:
    """How one training called the images at its threshold."""

    number: int
    method: str
    repeat: str
    threshold: float
    counts: tuple[int, int, int, int]
    """Malignant called malignant and benign, benign called malignant and benign."""


@dataclass(frozen=True)
class Leaks:
    """The leak report of one or more trainings, without names."""

    numbers: tuple[int, ...]
    scheme: str
    splits: tuple[Mapping[str, object], ...]
    in_several: str
    warnings: tuple[str, ...]


def confusion_of(run: TrainingRun, method: str, repeat: str) -> Confusion:
    """Count the calls of a finished training."""
    truth = run.predictions["label"].to_numpy() == 1
    threshold = float(run.summary["threshold"])
    called = run.predictions["probability"].to_numpy() > threshold
    pairs = ((truth & called), (truth & ~called), (~truth & called), (~truth & ~called))
    hits, misses, alarms, rejections = (int(np.count_nonzero(pair)) for pair in pairs)
    return Confusion(run.number, method, repeat, threshold, (hits, misses, alarms, rejections))


def why_not_done(run: TrainingRun) -> str:
    """Say why a training is not done, without any word that could name a patient, an image or a file."""
    return FAILED[run.state] + (plain_words(run.reason) if run.state == "failed" else run.reason)


def settings_table(runs: Sequence[TrainingRun]) -> tuple[list[TrainingRun], list[tuple[str, list[str]]]]:
    """Return the trainings whose configuration is known, and the settings in which they differ with all values."""
    known = [run for run in runs if run.config]
    settings = [flat_settings(run.config) for run in known]
    keys = [
        key
        for key in differing_keys(settings)
        if not any(key == part or key.startswith(f"{part}.") for part in WITHOUT_EFFECT)
    ]
    return known, [(key, [own.get(key, ABSENT) for own in settings]) for key in keys]


def leaks_of(runs: Sequence[TrainingRun]) -> list[Leaks]:
    """Return the leak reports, equal ones once."""
    reports: dict[str, Leaks] = {}
    for run in runs:
        report = read_leaks(run.folder)
        splits = report.get("splits")
        if not isinstance(splits, list) or not all(isinstance(part, dict) and "split" in part for part in splits):
            continue
        counts = ", ".join(f"{len(report.get(key) or [])} {name}" for key, name in LEAK_NAMES.items())
        warnings = tuple(map(str, report.get("warnings") or []))
        same = repr((report.get("scheme"), splits, counts, warnings))
        numbers = (*(reports[same].numbers if same in reports else ()), run.number)
        reports[same] = Leaks(numbers, str(report.get("scheme", "")), tuple(splits), counts, warnings)
    return list(reports.values())


def command_of(run: TrainingRun) -> str:
    """Return the command that repeats a training, with dots in place of every path; empty if it is not known."""
    if run.overrides is None:
        return ""
    words = ["python -m lemlight.train"]
    for override in run.overrides:
        key, _, value = override.partition("=")
        public = public_config({key.lstrip("+").split(".")[-1]: value})
        words.append(f"{key}={value if public and '/' not in value else '...'}")
    return " ".join(words)

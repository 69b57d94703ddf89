"""What stands on the page beside the figures: confusion, failures, differing settings, leaks, commands."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from lemlight.files import written_aside
from lemlight.metrics import LOCALIZATION_NAMES, METRIC_NAMES
from lemlight.metrics.comparison import Comparison
from lemlight.plots.style import CLASS_NAMES
from lemlight.reporting.runs import (
    ABSENT,
    Mammogram,
    Methods,
    TrainingRun,
    differing_keys,
    flat_settings,
    plain_words,
    read_leaks,
)
from lemlight.reporting.tables import COLUMNS, MethodRow, cell_text, columns_of, interval_text
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


MOST_NAMED = 6  # methods in a title


def title_of(methods: Sequence[str]) -> str:
    """Name the page after its methods."""
    if not methods:
        return "Trainings without results"
    if len(methods) == 1:
        return f"Results of {methods[0]}"
    return f"Comparison of {_listed(methods)}"


def question_of(methods: Sequence[str]) -> str:
    """Ask what such a page answers, where the user asked nothing."""
    if not methods:
        return "Which trainings are there, and why is none of them finished?"
    if len(methods) == 1:
        return f"How well does {methods[0]} tell malignant from benign mammograms and find the lesions?"
    which = f"these {len(methods)} methods" if len(methods) > MOST_NAMED else _listed(methods)
    return (
        f"Do {which} differ in how well they tell malignant from benign mammograms, and in how well they find the "
        "lesions?"
    )


def what_of(runs: Sequence[TrainingRun], comparison: Comparison | None) -> str:
    """Say what was tested on what."""
    if not runs:
        return "No training is finished."
    datasets = dict.fromkeys(str((run.config.get("dataset") or {}).get("name", "unknown")) for run in runs)
    trained = f"{len(runs)} finished {'training' if len(runs) == 1 else 'trainings'} on {', '.join(datasets)}"
    if comparison is None:
        return f"{trained}; their figures are listed, not compared."
    return (
        f"{trained}; tested on {comparison.images} images of {comparison.patients} patients. Intervals and p-values by "
        f"{comparison.resamples} resamples, seed {comparison.seed}."
    )


def notes_of(runs: Sequence[TrainingRun], names: Sequence[str], methods: Methods, repeat: str) -> list[str]:
    """Warn of what the comparison cannot say."""
    notes = [methods.warning()] if methods.warning() else []
    counts = Counter(names)
    single = [method for method, count in counts.items() if count == 1]
    if repeat == "seed" and len(counts) > 1 and single:
        whose = "Every method has" if len(single) == len(counts) else f"{_listed(single)} has"
        notes.append(
            f"{whose} one training only (one seed): a difference speaks of these networks, not of the methods. "
            "Another seed may turn it round; train several seeds to speak of methods."
        )
    if len(counts) == 1 and len(runs) == 1:
        notes.append("There is one training only: nothing to compare it with.")
    elif len(counts) == 1:
        notes.append("There is one method only: nothing to compare it with.")
    seeds: dict[str, set[str]] = {}
    for run, name in zip(runs, names, strict=True):
        seeds.setdefault(name, set()).add(str(run.config.get("seed")))
    if repeat == "seed" and len({len(own) for own in seeds.values()}) > 1:
        notes.append("The methods have different numbers of trainings: some are missing or failed.")
    chosen_by = sum(run.summary.get("split") == "val" for run in runs)
    if chosen_by:
        notes.append(
            f"{chosen_by} of the {len(runs)} trainings report the validation split (split=val), by which their best "
            "epoch was chosen: such figures flatter, and say nothing of new images."
        )
    return notes


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{len(names)} methods"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


TEMPLATES = Path(__file__).parent / "templates"
FIGURE_TEXTS = {
    "roc": (
        "ROC curves",
        "True against false positive rate of every method. With several trainings of a method: the mean curve.",
    ),
    "froc": ("FROC curves", "Share of lesions found against false regions per image, for every method."),
    "training": ("Training curves", "Losses and validation AUC over the epochs, one line per training."),
    "reliability": (
        "Reliability",
        "Share of malignant images against predicted probability, a panel per method; on the dotted line a probability "
        "is what it says. Grey: 95 % Wilson intervals, where the method has one training.",
    ),
    "scores": (
        "Score maps",
        "The same mammograms, drawn before any training, under the score map of each method's first training: orange "
        "speaks for malignant, blue for benign, each method on a scale of its own; at most ten methods. Triangles "
        "pointing up are maxima, pointing down minima; green outlines are true lesions.",
    ),
}

LISTED = 5  # differences in one figure, where what is shown is summed up


@dataclass(frozen=True)
class Sentences:
    """What the differences of one metric say: those that are shown, the largest first, and the others."""

    metric: str
    shown: tuple[str, ...]
    others: tuple[str, ...]
    plot: Path | None

    def first(self) -> list[str]:
        """Return the largest of what is shown, and how many more there are: among ten methods there are 45 pairs."""
        more = len(self.shown) - LISTED
        if more <= 1:
            return list(self.shown)
        name = METRIC_NAMES[self.metric]
        return [*self.shown[:LISTED], f"{more} more differences in {name} are shown, none larger: see Differences"]


@dataclass(frozen=True)
class RunLine:
    """One training in the list of all: its state, and why it is not done, without names."""

    number: int
    method: str
    repeat: str
    state: str
    why: str
    auroc: str
    command: str


@dataclass(frozen=True)
class ComparisonPage:
    """Everything that the page says; nothing in it names a patient, an image or a file.

    `notes` warn of what the comparison cannot say, `methods` say what a method is here, `figures` are PNG files by
    the names of FIGURE_TEXTS, `settings` a setting and its value for each of `settings_runs` (run numbers).
    """

    title: str
    question: str
    what: str
    methods: Sequence[str]
    notes: Sequence[str]
    rows: Sequence[MethodRow]
    differences: Sequence[Sentences]
    rules: Mapping[str, str]
    figures: Mapping[str, Path]
    mammograms: Sequence[Mammogram]
    confusion: Sequence[Confusion]
    runs: Sequence[RunLine]
    settings_runs: Sequence[tuple[int, str]]
    settings: Sequence[tuple[str, Sequence[str]]]
    leaks: Sequence[Leaks]
    versions: Mapping[str, Sequence[str]]
    command: str


def write_comparison_page(page: ComparisonPage, path: Path) -> Path:
    """Write the page and return its path; LemlightError if it cannot be written."""
    script = (TEMPLATES / "comparison.js").read_text(encoding="utf-8")
    columns = columns_of(page.rows)
    text = _template().render(
        page=page,
        tables=[
            ("Classification", [name for name in columns if name not in LOCALIZATION_NAMES]),
            ("Localization", [name for name in columns if name in LOCALIZATION_NAMES]),
        ],
        names=COLUMNS,
        metric_names=METRIC_NAMES,
        classes=CLASS_NAMES,
        figure_texts=FIGURE_TEXTS,
        not_done=[run for run in page.runs if run.state != "done"],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


@cache
def _template() -> Template:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"embedded": _embedded, "value": cell_text, "interval": interval_text}
    return environment.get_template("comparison.html.j2")

"""The page that compares the methods of some runs: one file that asks for nothing, and names no patient and no file."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lemlight.errors import LemlightError
from lemlight.files import written_aside
from lemlight.metrics import LOCALIZATION_NAMES, METRIC_NAMES
from lemlight.metrics.comparison import Comparison
from lemlight.plots.comparison import curve_panels, forest_plot, reliability_panels, score_map_panels, training_overlay
from lemlight.plots.style import CLASS_NAMES, value_text
from lemlight.reporting.example_images import Example, lesion_layer, map_layer, png, read_examples
from lemlight.reporting.methods import ABSENT, CLASS, ComparedRuns, differing_keys, method_settings
from lemlight.reporting.runs import TrainingRun
from lemlight.reporting.tables import COLUMNS, cells, metrics_of
from lemlight.sweeps.names import WITHOUT_EFFECT
from lemlight.training.checkpoint import load_checkpoint
from lemlight.training.privacy import public_override
from lemlight.training.trainer import versions

TEMPLATES = Path(__file__).parent / "templates"
QUESTION = "Which method tells malignant from benign mammograms better, and which finds the lesions better?"
PLOTTED = ("auroc", "dsc")  # the differences of the other metrics are in the sentences
LISTED = 5  # differences in one metric, where what is shown is summed up
CAUSES = ("out of memory", "the disk is full", "interrupted")  # of a failure, that may stand on the page
LEAKS = {"leaking_patients": "patients", "leaking_breasts": "breasts", "leaking_files": "files"}


@dataclass(frozen=True)
class Differences:
    """What the differences of one metric say: those that are shown, the largest first, and the others."""

    metric: str
    shown: Sequence[str]
    others: Sequence[str]

    @property
    def first(self) -> list[str]:
        """The largest of what is shown, and how many more there are: among ten methods there are 45 pairs."""
        more = len(self.shown) - LISTED
        if more <= 1:
            return list(self.shown)
        name = METRIC_NAMES[self.metric]
        return [*self.shown[:LISTED], f"{more} more differences in {name} are shown, none larger: see Differences"]


def differences_of(comparison: Comparison | None) -> list[Differences]:
    """Sort the sentences of all pairs by metric."""
    pairs = comparison.pairs if comparison else ()
    found = []
    for metric in dict.fromkeys(pair.metric for pair in pairs):
        own = [pair for pair in pairs if pair.metric == metric]
        shown = sorted((pair for pair in own if pair.shown), key=lambda pair: -abs(pair.difference.estimate.value or 0))
        others = [pair.sentence for pair in own if not pair.shown]
        found.append(Differences(metric, [pair.sentence for pair in shown], others))
    return found


def notes_of(compared: ComparedRuns) -> list[str]:
    """Warn of what the comparison cannot say."""
    notes = []
    if compared.methods.besides:
        besides = ", ".join(compared.methods.besides)
        notes.append(f"The methods also differ in {besides}: a difference may come from there.")
    runs, counts = compared.done, Counter(compared.method_of[run.number] for run in compared.done)
    if len(counts) == 1:
        notes.append(f"There is one {'run' if len(runs) == 1 else 'method'} only: nothing to compare it with.")
    elif compared.repeat == "seed" and 1 in counts.values():
        single = [method for method, count in counts.items() if count == 1]
        notes.append(
            f"One run (one seed) only of {'every method' if len(single) == len(counts) else ', '.join(single)}: a "
            "difference speaks of these networks, not of the methods. Another seed may turn it round."
        )
    if chosen_by := sum(run.summary.get("split") == "val" for run in runs):
        notes.append(
            f"{chosen_by} of the {len(runs)} runs report the validation split (split=val), by which their best epoch "
            "was chosen: such metrics flatter, and say nothing of new images."
        )
    return [*notes, *compared.notes]


def why_not_done(run: TrainingRun) -> str:
    """Say why a run is not done, without a name: the message of a failure may hold some, and stands in runs.csv."""
    if run.state != "failed":
        return run.reason  # empty where it is done
    return ", ".join([cause for cause in CAUSES if cause in run.reason] or ["see runs.csv"])


def differing_settings(runs: Sequence[TrainingRun]) -> tuple[list[int], dict[str, list[str]]]:
    """Return the numbers of the runs whose config is known, and each setting in which they differ with all values."""
    known = [run for run in runs if run.config]
    settings = [method_settings(run.config, without=WITHOUT_EFFECT) for run in known]
    keys = differing_keys(settings)
    shown = [key for key in keys if not key.endswith(CLASS) or key.removesuffix(CLASS) not in keys]
    return [run.number for run in known], {key: [own.get(key, ABSENT) for own in settings] for key in shown}


def leak_reports(runs: Sequence[TrainingRun]) -> list[dict[str, Any]]:
    """Return the leak reports without names, equal ones once with the numbers of their runs."""
    reports: dict[str, dict[str, Any]] = {}
    for run in runs:
        if leaks := run.leaks():
            report = {
                "scheme": str(leaks.get("scheme", "")),
                "splits": leaks["splits"],
                "in_several": ", ".join(f"{len(leaks.get(key) or [])} {name}" for key, name in LEAKS.items()),
                "warnings": list(map(str, leaks.get("warnings") or [])),
            }
            reports.setdefault(repr(report), report | {"numbers": []})["numbers"].append(run.number)
    return list(reports.values())


def command_of(run: TrainingRun) -> str:
    """Return the command that repeats a run, with dots in place of every path; empty if it is not known."""
    if run.overrides is None:
        return ""
    words = [
        override if public_override(override) and "/" not in override else f"{override.partition('=')[0]}=..."
        for override in run.overrides
    ]
    return " ".join(["python -m lemlight.train", *words])


def write_comparison_page(compared: ComparedRuns, table: pd.DataFrame, question: str, path: Path) -> Path:
    """Write the page that answers a question and return its path; LemlightError if it cannot be written.

    Args:
        compared: the runs and what comparing them gave.
        table: of their methods, as `method_table` returns it.
        question: in words.
        path: of the page.
    """
    examples = read_examples(compared.groups)
    with TemporaryDirectory() as folder:
        figures = _figures(compared, examples, Path(folder))
    script = (TEMPLATES / "comparison.js").read_text(encoding="utf-8")
    settings_runs, settings = differing_settings(compared.runs)
    localization = [name for name in metrics_of(table) if name in LOCALIZATION_NAMES]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("comparison.html.j2").render(
        question=question,
        compared=compared,
        comparison=compared.comparison,
        datasets=sorted({method_settings(run.config).get("dataset", "unknown") for run in compared.done}),
        notes=notes_of(compared),
        tables=[
            ("Classification", [name for name in metrics_of(table) if name not in localization]),
            ("Localization", localization),
        ],
        names=COLUMNS,
        methods=list(compared.groups),
        counts=[len(runs) for runs in compared.groups.values()],
        cells={name: cells(table, name) for name in metrics_of(table)},
        differences=differences_of(compared.comparison),
        metric_names=METRIC_NAMES,
        figures=figures,
        mammograms=[mammogram for mammogram in map(_mammogram, examples) if mammogram["overlays"]],
        why_not_done=why_not_done,
        value_text=value_text,
        settings_runs=settings_runs,
        settings=settings,
        leaks=leak_reports(compared.runs),
        commands=list(dict.fromkeys(filter(None, map(command_of, compared.runs)))),
        versions=_versions(compared.done),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _versions(runs: Sequence[TrainingRun]) -> dict[str, list[str]]:
    """Return the versions that the runs were trained with, as their checkpoints say, and those of this report."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        try:
            own = load_checkpoint(run.folder / "checkpoints" / "best.ckpt").versions
        except LemlightError:  # a checkpoint that was deleted or damaged does not matter here
            continue
        for package, version in own.items():
            found.setdefault(package, {})[str(version)] = None
    found |= {f"{package} (this report)": {version: None} for package, version in versions().items()}
    return {package: list(several) for package, several in found.items()}


def _figures(compared: ComparedRuns, examples: Sequence[Mapping[str, Example]], folder: Path) -> dict[str, str]:
    """Draw everything; PNG as base64 by the name of the figure."""
    groups, comparison = compared.groups, compared.comparison
    items = [
        {method: item for method, example in image.items() if (item := example.sheet_item()) is not None}
        for image in examples
    ]
    drawn = {"scores": score_map_panels(items, folder / "scores.png")}
    if groups:
        drawn["curves"] = curve_panels(groups, folder / "curves.png")
        drawn["training"] = training_overlay(groups, folder / "training.png")
        drawn["reliability"] = reliability_panels(groups, folder / "reliability.png")
    if comparison:
        drawn |= {f"forest_{metric}": forest_plot(comparison, metric, folder / f"{metric}.png") for metric in PLOTTED}
    return {name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in drawn.items() if path}


def _mammogram(examples: Mapping[str, Example]) -> dict[str, Any]:
    """One image under the location maps of all methods, its layers as PNG."""
    first = next(iter(examples.values()))
    lesions = next((one.lesions for one in examples.values() if one.lesions is not None), None)
    return {
        "label": CLASS_NAMES[first.label],
        "width": first.image.shape[1],
        "height": first.image.shape[0],
        "image": png(first.image),
        "lesions": "" if lesions is None or not lesions.any() else png(lesion_layer(lesions)),
        "overlays": [
            {
                "method": method,
                "prediction": CLASS_NAMES[one.malignant],
                "probability": one.probability,
                "png": png(map_layer(one.strength, one.cutoff)),
            }
            for method, one in examples.items()
            if one.strength is not None and one.strength.shape == first.image.shape
        ],
    }

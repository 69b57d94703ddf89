"""The title, the question and the warnings of a comparison in words."""

from collections import Counter
from collections.abc import Sequence

from lemlight.metrics.comparison.results import Comparison
from lemlight.reporting.comparison.methods import Methods
from lemlight.reporting.comparison.runs import TrainingRun

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

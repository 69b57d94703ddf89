"""The predictions of all trainings as one table for the comparison, or the reason why there is none."""

from collections.abc import Sequence

import pandas as pd

from lemlight.errors import LemlightError
from lemlight.metrics.comparison.methods import compare_methods
from lemlight.metrics.comparison.results import Comparison
from lemlight.metrics.comparison.sentences import METRIC_NAMES
from lemlight.reporting.comparison.hiding import hide
from lemlight.reporting.comparison.results_files import read_dice
from lemlight.reporting.comparison.runs import TrainingRun


def compare_runs(
    runs: Sequence[TrainingRun], methods: Sequence[str], resamples: int
) -> tuple[Comparison | None, list[str]]:
    """Compare finished trainings (their methods in the same order); what cannot be compared is said, never raised.

    Returns:
        The comparison, or None; and sentences that name no image and no patient: why there is none, or no Dice.
    """
    if problems := _problems(runs, methods):
        return None, problems
    frame = _frame(runs, methods)
    names = [*frame["image_id"], *frame["patient_id"]]
    notes = []
    if "dsc" not in frame:
        lacking = [str(run.number) for run in runs if _dice(run) is None]
        notes.append(
            f"Dice is not compared: run {', '.join(lacking)} left none (no known lesion, or an older version)."
        )
    try:
        return compare_methods(frame, resamples=resamples), notes
    except LemlightError as error:
        reason = hide(str(error), names)
    if "dsc" not in frame:
        return None, [reason]
    try:
        return compare_methods(frame.drop(columns="dsc"), resamples=resamples), [f"Dice is not compared: {reason}"]
    except LemlightError as error:
        return None, [hide(str(error), names)]


def repeat_of(runs: Sequence[TrainingRun]) -> str:
    """Return what repeats a method: fold where the trainings are folds of one split, else seed."""
    return "fold" if len({_fold(run) for run in runs}) > 1 else "seed"


def repeat_name(run: TrainingRun, repeat: str) -> str:
    """Return the seed or the fold of a training as text."""
    return _fold(run) if repeat == "fold" else str(run.config.get("seed", "unknown"))


def _fold(run: TrainingRun) -> str:
    split = (run.config.get("dataset") or {}).get("split") or {}
    return str(split.get("fold", "unknown")) if split.get("scheme") == "kfold" else "none"


def _problems(runs: Sequence[TrainingRun], methods: Sequence[str]) -> list[str]:
    if not runs:
        return ["No training is finished: there is nothing to compare."]
    repeat = repeat_of(runs)
    problems = []
    if repeat == "fold" and len({run.config.get("seed") for run in runs}) > 1:
        problems.append("Both seed and fold differ between the trainings: compare one seed, or one fold, at a time.")
    numbers: dict[tuple[str, str], list[int]] = {}
    for run, method in zip(runs, methods, strict=True):
        numbers.setdefault((method, repeat_name(run, repeat)), []).append(run.number)
    for (method, name), same in numbers.items():
        if len(same) > 1:
            listed = " and ".join(map(str, same))
            problems.append(f"Runs {listed} are both {method} with {repeat} {name}: leave one of them in the folder.")
    return problems + _other_images(runs, methods, repeat)


def _other_images(runs: Sequence[TrainingRun], methods: Sequence[str], repeat: str) -> list[str]:
    """Say in numbers which trainings were tested on other images; with folds only whole methods can be compared."""
    tested: dict[str, set[str]] = {}
    for run, method in zip(runs, methods, strict=True):
        unit = method if repeat == "fold" else f"run {run.number} ({method}, seed {repeat_name(run, repeat)})"
        tested.setdefault(unit, set()).update(run.predictions["image_id"])
    shared = set.intersection(*tested.values())
    if all(images == shared for images in tested.values()):
        return []
    listed = ", ".join(f"{unit} on {len(images)}" for unit, images in tested.items())
    return [
        f"The trainings were tested on different images ({listed}; {len(shared)} of these in all of them), so their "
        "figures are not compared: test them on the same split of the same data set."
    ]


def _frame(runs: Sequence[TrainingRun], methods: Sequence[str]) -> pd.DataFrame:
    repeat = repeat_of(runs)
    dices = [_dice(run) for run in runs]
    frames = []
    for run, method, dice in zip(runs, methods, dices, strict=True):
        rows = run.predictions[["image_id", "patient_id", "label", "probability"]].assign(method=method)
        rows[repeat] = repeat_name(run, repeat)
        rows["prediction"] = (rows["probability"] > run.summary["threshold"]).astype(int)
        if all(other is not None for other in dices) and dice is not None:
            rows["dsc"] = rows["image_id"].map(dice)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def _dice(run: TrainingRun) -> "pd.Series[float] | None":
    return read_dice(run.folder, str((run.config.get("localization") or {}).get("method")))


def compared_metrics(comparison: Comparison | None) -> list[str]:
    """List the metrics that were compared, in the order of a table."""
    found = {figure.metric for figure in comparison.figures} if comparison else set()
    return [metric for metric in METRIC_NAMES if metric in found]

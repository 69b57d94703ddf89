"""What the choice of localization settings costs: each run's own, one pooled over the runs of a method, the oracle."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.localization.pooled import Pooled, Tried, pool, read_tried, tried_path
from lemlight.metrics.bootstrap import Estimate, bootstrap, estimate, ratio
from lemlight.metrics.comparison import seed_weights
from lemlight.reporting.comparison.methods import ComparedRuns
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.text import from_columns, in_columns

FILE = "localization_settings.csv"
CHOICE = ("validation_images", "chosen", "keep", "smoothing", "cutoff", "cutoff_by", "dsc_oracle", "gap")
NAMES = {
    "dsc": "Dice, own",
    "dsc_pooled": "Dice, pooled",
    "dsc_difference": "Less the first map's",
    "pointing": "Pointing, own",
    "pointing_pooled": "Pointing, pooled",
    "pointing_difference": "Less the first map's",
}
KINDS = ("dsc", "pointing")


def pooled_table(compared: ComparedRuns, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Return a row per method and localization method of its runs; no row where nothing was localized.

    validation_images, chosen, keep, smoothing, cutoff, cutoff_by: the choice pooled over the runs, see
        `lemlight.localization.pooled`; `chosen` is False where the defaults stand in.
    dsc, pointing: mean over the runs at the settings that each run chose, with `_low` and `_high` of a 95 % interval
        as in `lemlight.metrics.comparison`; `_pooled`: at the pooled settings; `_difference`: of these to the first
        localization method, on the same networks.
    dsc_oracle, gap: the best Dice that one setting gives on the test images of all runs, and that less `dsc_pooled`.
    reason: why there is no pooled choice.
    """
    rows: list[dict[str, Any]] = []
    for method, runs in compared.groups.items():
        names = _names(runs)
        if not names:
            continue
        choices, reason = _choices(runs, names)
        figures = _figures(runs, names, choices, compared.repeat, [seed, *method.upper().encode()], resamples)
        for name in names:
            row: dict[str, Any] = {"method": method, "localization": name, "runs": len(runs)}
            row |= dict.fromkeys(CHOICE)
            if choice := choices.get(name):
                row |= {"validation_images": choice.images, "chosen": choice.chosen, **choice.settings.model_dump()}
            for figure in NAMES:
                one = figures.get((name, figure), Estimate(None))
                row |= in_columns(figure, vars(one))
            if choice and row["dsc_pooled"] is not None:
                row |= {"dsc_oracle": choice.oracle, "gap": choice.oracle - row["dsc_pooled"]}
            rows.append(row | {"reason": reason})
    return pd.DataFrame(rows)


def _names(runs: Sequence[TrainingRun]) -> list[str]:
    """The localization methods that every one of the runs has, the one that makes the pictures first."""
    tables = [run.localized["method"] if run.localized is not None else pd.Series([], dtype=str) for run in runs]
    return [str(name) for name in tables[0].unique() if all((table == name).any() for table in tables)]


def _choices(runs: Sequence[TrainingRun], names: Sequence[str]) -> tuple[dict[str, Pooled], str]:
    """The pooled choice by localization method, or why there is none."""
    try:
        # a run without a lesion among its validation images kept nothing of them
        validation, tested = ([_read(run, split) for run in runs] for split in ("val", "test"))
        lacking = [str(run.number) for run, own in zip(runs, tested, strict=True) if not own.keys() >= set(names)]
        if lacking:
            return {}, f"run {', '.join(lacking)} kept no {tried_path(Path(), 'test')}: train again"
        return {
            name: pool(
                [own.get(name, test[name].on_no_image()) for own, test in zip(validation, tested, strict=True)],
                [own[name] for own in tested],
            )
            for name in names
        }, ""
    except LemlightError as error:
        return {}, str(error)


def _read(run: TrainingRun, split: str) -> dict[str, Tried]:
    path = tried_path(run.folder, split)
    try:
        return read_tried(path) if path.is_file() else {}
    except LemlightError as error:
        raise LemlightError(f"run {run.number}: {error}") from error


def _figures(
    runs: Sequence[TrainingRun],
    names: Sequence[str],
    choices: Mapping[str, Pooled],
    repeat: str,
    seed: Sequence[int],
    resamples: int,
) -> dict[tuple[str, str], Estimate]:
    """Every figure of NAMES by localization method; patients, and seeds where they repeat, are drawn."""
    images = (
        pd.concat([run.predictions for run in runs]).drop_duplicates("image_id").set_index("image_id")["patient_id"]
    )
    parts: dict[tuple[str, str], list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for name in names:
        tables = {"": [run.localized_by(name) for run in runs], "_pooled": choices[name].found if choices else []}
        for end, kind in product(tables, KINDS):
            if of_runs := [table[kind].reindex(images.index) for table in tables[end]]:
                values = [(np.nan_to_num(one.to_numpy(np.float64)), one.notna().to_numpy()) for one in of_runs]
                parts[name, kind + end] = values

    def statistics(weights: NDArray[np.float64]) -> dict[tuple[str, str], NDArray[np.float64]]:
        return {
            key: np.stack([ratio(weights @ value, weights @ known) for value, known in of_runs], axis=1)
            for key, of_runs in parts.items()
        }

    weights = np.full((1, len(runs)), 1 / len(runs))
    mean = {key: (one * weights).sum(axis=1) for key, one in statistics(np.ones((1, images.size))).items()}
    if repeat == "seed":
        weights = seed_weights(len(runs), resamples, np.random.default_rng(list(seed)))
    drawn = bootstrap(statistics, images, resamples=resamples, seed=seed[0])
    draws = {key: (one * weights).sum(axis=1) for key, one in drawn.items()}
    for name, kind in product(names[1:] if choices else (), KINDS):
        for found in (mean, draws):
            found[name, f"{kind}_difference"] = found[name, f"{kind}_pooled"] - found[names[0], f"{kind}_pooled"]
    patients = images.nunique()
    return {
        key: estimate(float(mean[key][0]), draws[key], patients, "a run has no test image with a lesion")
        for key in mean
    }


def page_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of `pooled_table` for a page: what is unknown is None, a figure has value, low and high."""
    rows: list[Any] = table.astype(object).where(table.notna(), None).to_dict("records")
    for row in rows:
        row["figures"] = [from_columns(name, row) for name in NAMES]
    return rows

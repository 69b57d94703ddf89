"""Tables of methods, for a program (CSV) and for readers (Markdown, LaTeX): which one is shown best, which differ, what
the choice of localization settings costs (each run's own, one pooled over the runs of a method, the oracle)."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.files import written_aside
from lemlight.localization.pooled import Pooled, Tried, pool, read_tried, tried_path
from lemlight.metrics import CLASSIFICATION_NAMES, LOWER_IS_BETTER, METRIC_NAMES, Level
from lemlight.metrics.bootstrap import Estimate, bootstrap, estimate, ratio
from lemlight.metrics.comparison import Comparison, seed_weights
from lemlight.metrics.levels import LEVELS, level_sections
from lemlight.reporting.comparison.methods import ComparedRuns
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.text import (
    brackets,
    from_columns,
    heading,
    in_columns,
    interval_text,
    markdown_table,
    rows_of,
    value_text,
)

COLUMNS = {name: heading(name) for name in METRIC_NAMES}
SHORT = ("auroc", "acc", "dsc")  # what fits a terminal


def method_table(compared: ComparedRuns, level: Level = "image") -> pd.DataFrame:
    """Return a row per method: method, runs (how many), and of every known metric value, low, high and best.

    Of a level above the image there are the metrics of the classification. A metric that was compared comes with the
    comparison's interval; others are means over the runs, with the interval of metrics.json where there is one run
    only. `best` is True where a method is shown to be better than every other.
    """
    comparison = compared.levels.get(level)
    columns = COLUMNS if level == "image" else CLASSIFICATION_NAMES
    known = comparison.values if comparison else {}
    best = {metric: shown_best(comparison, metric) for _, metric in known} if comparison else {}
    rows = []
    for method, runs in compared.groups.items():
        row: dict[str, Any] = {"method": method, "runs": len(runs)}
        for name in columns:
            figure = known.get((method, name))
            sections = [level_sections(run.summary)[level] for run in runs]
            found = _mean([section.get(name, {}) for section in sections]) if figure is None else vars(figure)
            row |= in_columns(name, found) | {f"{name}_best": best.get(name) == method}
        rows.append(row)
    table = pd.DataFrame(rows)
    unknown = [name for name in columns if rows and table[name].isna().all()]
    return table.drop(columns=[f"{name}{end}" for name in unknown for end in ("", "_low", "_high", "_best")])


def tables_of(compared: ComparedRuns) -> dict[Level, pd.DataFrame]:
    """Return the table of the methods at every level that all finished runs define, the primary level first."""
    levels = [level for level in LEVELS if all(level in level_sections(run.summary) for run in compared.done)]
    levels.sort(key=lambda level: level != compared.primary)
    return {level: method_table(compared, level) for level in levels}


def metrics_of(table: pd.DataFrame) -> list[str]:
    """List the metrics that a table of methods has."""
    return [name for name in COLUMNS if name in table]


def shown_best(comparison: Comparison, metric: str) -> str | None:
    """Return the method that is shown to be better than every other one in a metric, None where there is none."""
    values = {method: one.value for (method, name), one in comparison.values.items() if name == metric}
    if len(values) < 2 or None in values.values():
        return None
    best = (min if metric in LOWER_IS_BETTER else max)(values, key=lambda method: values[method] or 0.0)
    own = [pair for pair in comparison.pairs if pair.metric == metric and best in (pair.first, pair.second)]
    return best if all(pair.shown for pair in own) else None


def _mean(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = [metric.get("mean", metric) for metric in metrics]  # of FROC, which has a curve, too
    values: list[Any] = [metric.get("value") for metric in metrics]
    if None in values:
        return dict.fromkeys(("value", "low", "high"))
    if len(metrics) == 1:
        return {"value": float(values[0]), "low": metrics[0].get("low"), "high": metrics[0].get("high")}
    return {"value": sum(map(float, values)) / len(values), "low": None, "high": None}


def cells(table: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """Return value, low, high and best of one metric for every method; what is unknown is None."""
    return [from_columns(name, row) | {"best": row[f"{name}_best"]} for row in rows_of(table)]


def write_tables(
    tables: Mapping[Level, pd.DataFrame], pooled: pd.DataFrame, compared: ComparedRuns, folder: Path
) -> list[Path]:
    """Write table.csv (numbers), table.md and table.tex (for reading), what differs, and which runs there are.

    The tables of the levels above the image are table_breast.csv and so on; what would be empty is not written. None
    names a patient or an image; runs.csv alone names folders, and holds the whole error of each run that failed.
    """
    texts = {}
    for level, table in tables.items():
        name = "table" if level == "image" else f"table_{level}"
        if len(table):
            texts[f"{name}.csv"] = table.to_csv(index=False)
            texts[f"{name}.md"] = table_markdown(table)
            texts[f"{name}.tex"] = table_latex(table)
    pairs = [differences(one).assign(level=level) for level, one in compared.levels.items() if one.pairs]
    if pairs:
        texts["differences.csv"] = pd.concat(pairs).to_csv(index=False)
    if len(pooled):
        texts["localization_settings.csv"] = pooled.to_csv(index=False)
    texts["runs.csv"] = runs_table(compared).to_csv(index=False)
    for name, text in texts.items():
        with written_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    return [folder / name for name in texts]


def differences(comparison: Comparison) -> pd.DataFrame:
    """Return a row per pair of methods and metric, first minus second."""
    return pd.DataFrame(
        {
            "metric": pair.metric,
            "first": pair.first,
            "second": pair.second,
            "difference": pair.difference.estimate.value,
            "low": pair.difference.estimate.low,
            "high": pair.difference.estimate.high,
            "p": pair.difference.p,
            "p_corrected": pair.p_corrected,
            "comparisons": pair.comparisons,
            "p_delong": pair.p_delong,
            "sentence": pair.sentence,
        }
        for pair in comparison.pairs
    )


def runs_table(compared: ComparedRuns) -> pd.DataFrame:
    """Return which folder the numbers on the page stand for, and why a run is not done."""
    return pd.DataFrame(
        {
            "number": run.number,
            "folder": run.name,
            "state": run.state,
            "method": compared.method_of[run.number],
            "repeat": compared.repeat_of(run),
            "reason": run.reason,
        }
        for run in compared.runs
    )


def table_markdown(table: pd.DataFrame, wanted: Sequence[str] = tuple(COLUMNS)) -> str:
    """Return the table (or those `wanted` of its metrics) as Markdown with aligned columns."""
    columns = [["Method", *table["method"]], ["Runs", *table["runs"].map(str)]]
    for name in (name for name in metrics_of(table) if name in wanted):
        texts = [COLUMNS[name]]
        for cell in cells(table, name):
            value = f"**{value_text(cell)}**" if cell["best"] else value_text(cell)
            texts.append(f"{value} {brackets(interval_text(cell))}".strip())
        columns.append(texts)
    return f"{markdown_table(list(zip(*columns, strict=True)))}\n{_note(table)}\n"


def table_latex(table: pd.DataFrame) -> str:
    """Return the table as LaTeX (package booktabs); intervals below their values would not fit and are left out."""
    texts = pd.DataFrame({"Method": table["method"], "Runs": table["runs"]})
    bold = pd.DataFrame("", texts.index, texts.columns)
    for name in metrics_of(table):
        texts[COLUMNS[name]] = [value_text(cell) for cell in cells(table, name)]
        bold[COLUMNS[name]] = ["textbf:--rwrap;" if best else "" for best in table[f"{name}_best"]]
    style = texts.style.apply(lambda _: bold, axis=None).hide(axis="index")
    style = style.format(escape="latex").format_index(escape="latex", axis=1)
    return f"% {_note(table)}\n{style.to_latex(hrules=True, column_format='l' + 'r' * (len(texts.columns) - 1))}"


def _note(table: pd.DataFrame) -> str:
    several = "Means over the runs of a method. " if (table["runs"] > 1).any() else "One run per method. "
    return f"{several}Bold: shown to be better than every other method (corrected p at most 0.05). Research only."


CHOICE = ("validation_images", "chosen", "keep", "smoothing", "cutoff", "cutoff_by", "dsc_oracle", "gap")
POOLED_NAMES = {
    "dsc": "Dice, own",
    "dsc_pooled": "Dice, pooled",
    "dsc_difference": "Less the first map's",
    "pointing": "Pointing, own",
    "pointing_pooled": "Pointing, pooled",
    "pointing_difference": "Less the first map's",
}
POOLED_KINDS = ("dsc", "pointing")


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
            for figure in POOLED_NAMES:
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
    """Every figure of POOLED_NAMES by localization method; patients, and seeds where they repeat, are drawn."""
    images = (
        pd.concat([run.predictions for run in runs]).drop_duplicates("image_id").set_index("image_id")["patient_id"]
    )
    parts: dict[tuple[str, str], list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for name in names:
        tables = {"": [run.localized_by(name) for run in runs], "_pooled": choices[name].found if choices else []}
        for end, kind in product(tables, POOLED_KINDS):
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
    for name, kind in product(names[1:] if choices else (), POOLED_KINDS):
        for found in (mean, draws):
            found[name, f"{kind}_difference"] = found[name, f"{kind}_pooled"] - found[names[0], f"{kind}_pooled"]
    patients = images.nunique()
    return {
        key: estimate(float(mean[key][0]), draws[key], patients, "a run has no test image with a lesion")
        for key in mean
    }


def pooled_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of `pooled_table` for a page: what is unknown is None, a figure has value, low and high."""
    return [row | {"figures": [from_columns(name, row) for name in POOLED_NAMES]} for row in rows_of(table)]

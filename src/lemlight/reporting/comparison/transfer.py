"""Other hospitals: what each network does on each data set, on one page, from the run folders of lemlight.evaluate."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, model_validator

from lemlight.errors import LemlightError
from lemlight.files import write_csv
from lemlight.metrics import Level
from lemlight.metrics.bootstrap import bootstrap, estimate
from lemlight.metrics.classification import check_scored, weighted_auroc
from lemlight.metrics.levels import level_sections, level_table
from lemlight.reporting.comparison.runs import NOT_LOOKED_INTO, Metrics, read_metrics, read_predictions, read_yaml
from lemlight.reporting.page import markdown, write_page
from lemlight.settings import public_config
from lemlight.text import Table, from_columns, in_columns, rows_of

PAGE, TABLE = "hospitals.html", "hospitals.csv"
ABOUT = "about"  # the key of what `describe` says in metrics.json
BESIDE = ("_target_", "prepare", "split")  # no settings of the data themselves
CARRIED = ("sensitivity", "specificity")
CALIBRATED = ("slope", "intercept")
SHOWN = ("auroc", "drop")


def describe(dataset: Mapping[str, Any], name: str, place: str) -> dict[str, str]:
    """Return what tells a data set from another one, without a path: its choice, its settings, a mark of its folder."""
    public = {key: value for key, value in public_config(dataset).items() if key not in BESIDE}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in public.items()}
    return {"dataset": name, **texts, "place": place}


def about(
    trained_on: Mapping[str, str], network: str, tested_on: Mapping[str, str], known: int, primary: Level = "image"
) -> dict[str, Any]:
    """Return what an evaluation says of itself in metrics.json.

    Network, data sets, how many of the images it was trained on, the primary level that its training recorded.
    """
    same = dict(trained_on) == dict(tested_on)
    sets = {"trained_on": dict(trained_on), "tested_on": dict(tested_on)}
    return {"network": network, **sets, "own": same, "training_images": known, "primary_level": primary}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One run of lemlight.evaluate: its folder, metrics.json, predictions.csv, and the run folder of its checkpoint."""

    folder: Path
    summary: Mapping[str, Any]
    predictions: pd.DataFrame
    training: Path

    @property
    def said(self) -> Mapping[str, Any]:
        """What it says of itself, see `about`."""
        found: Mapping[str, Any] = self.summary[ABOUT]
        return found


class About(BaseModel, strict=True):
    """What `about` gives."""

    network: str
    trained_on: dict[str, str]
    tested_on: dict[str, str]
    own: bool
    training_images: int


class Evaluated(Metrics):
    """What the page takes from the metrics.json of an evaluation."""

    images: int
    patients: int
    about: About

    @model_validator(mode="after")
    def _has_points(self) -> "Evaluated":
        for section in [self, *self.levels.values()]:
            if "reason" not in (rest := section.model_extra or {}):
                TypeAdapter(dict[str, Any]).validate_python(rest["operating"]["on_validation"])
        if not all({"dataset", "place"} <= one.keys() for one in (self.about.trained_on, self.about.tested_on)):
            raise ValueError("a data set without a name")
        return self


def find_evaluations(root: Path) -> tuple[list[Evaluation], list[str]]:
    """Return the finished evaluations in or below `root`, sorted by folder, and why others cannot be read."""
    found, unreadable = [], []
    for name, folders, files in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one not in NOT_LOOKED_INTO)
        if not {"config.yaml", "metrics.json", "predictions.csv"} <= set(files):
            continue
        try:
            found.append(_read(Path(name)))
        except LemlightError as error:
            unreadable.append(f"{Path(name).relative_to(root)}: {error}")
    return sorted(filter(None, found), key=lambda one: one.folder), sorted(unreadable)


def _read(folder: Path) -> Evaluation | None:
    config = read_yaml(folder / "config.yaml")
    if not isinstance(config, dict) or "checkpoint" not in config:
        return None
    training = Path(str(config["checkpoint"])).parent.parent
    return Evaluation(folder, read_metrics(folder, Evaluated), read_predictions(folder), training)


def names_of(sets: Sequence[Mapping[str, str]]) -> list[str]:
    """Name data sets by their choice and what differs between those of one choice; folders by number."""
    names = []
    for one in sets:
        alike = [other for other in sets if other["dataset"] == one["dataset"]]
        keys = [key for key in one if key != "place" and len({other.get(key) for other in alike}) > 1]
        parts = [one["dataset"], *(f"{key}={one[key]}" for key in keys)]
        places = list(dict.fromkeys(other["place"] for other in alike if all(other.get(k) == one[k] for k in keys)))
        names.append(", ".join(parts) + (f" {places.index(one['place']) + 1}" if len(places) > 1 else ""))
    return names


def transfer_table(evaluations: Sequence[Evaluation], resamples: int, seed: int = 0) -> pd.DataFrame:
    """Return a row per network and data set: AUC with interval, drop against the own test split, what was carried over.

    The level is the primary one of the evaluation, or images where that is not defined. The own test split is that of
    an evaluation on the data of the training, else of the training run itself, where its folder is still there. The
    patients of two data sets are drawn independently, so that the interval of a drop holds for other patients of both.
    """
    if not evaluations:
        raise LemlightError("there is no evaluation: python -m lemlight.evaluate -m checkpoint=A,B dataset=...")
    names = names_of([one.said[key] for one in evaluations for key in ("trained_on", "tested_on")])
    own = {_network(one): one for one in evaluations if one.said["own"] and one.summary["split"] == "test"}
    networks = {one.said["network"] for one in evaluations}
    rows = []
    for number, one in enumerate(evaluations):
        level = primary_level(one.summary)
        section = level_sections(one.summary)[level]
        at_home = own.get(_network(one))
        drop, reason = _drop(one, at_home, level, resamples, seed)
        label = f" ({one.said['network']})" if len(networks) > 1 else ""
        rows.append(
            {
                "trained_on": f"{names[2 * number]}{label}",
                "tested_on": names[2 * number + 1],
                "split": one.summary["split"],
                "own": one.said["own"],
                "level": level,
                "images": one.summary["images"],
                "patients": one.summary["patients"],
                "training_images": one.said["training_images"],
                **in_columns("auroc", section["auroc"]),
                **in_columns("drop", drop),
                "drop_reason": reason,
                "threshold": section["threshold"],
                **{key: value for name in CARRIED for key, value in in_columns(name, section[name]).items()},
                **{f"{name}_on_validation": section["operating"]["on_validation"][name] for name in CARRIED},
                **{key: v for name in CALIBRATED for key, v in in_columns(name, section["calibration"][name]).items()},
                "ece": section["calibration"]["ece"],
                "folder": str(one.folder),
            }
        )
    table = pd.DataFrame(rows)
    several = table.loc[table.duplicated(["trained_on", "tested_on"]), "tested_on"]  # splits of one data set
    parts = (", " + table["split"] + " split").where(table["tested_on"].isin(several), "")
    return table.assign(tested_on=table["tested_on"] + parts)


def primary_level(summary: Mapping[str, Any]) -> Level:
    """Return the primary level of a summary (metrics.json), or the image where the data do not define it."""
    level: Level = summary.get("primary_level", "image")
    return level if level in level_sections(summary) else "image"


def _network(one: Evaluation) -> tuple[str, str]:
    return str(one.training), json.dumps(one.said["trained_on"], sort_keys=True)


def _drop(
    one: Evaluation, at_home: Evaluation | None, level: Level, resamples: int, seed: int
) -> tuple[Mapping[str, Any], str]:
    """The AUC of the own test split less that of an evaluation, and why there is none."""
    nothing = {"value": None}
    if one.said["own"]:
        return nothing, "the own data"
    try:
        predictions = at_home.predictions if at_home else read_predictions(one.training)
        rule = level_sections(one.summary)[level].get("rule", "mean_logit")
        here, there = (level_table(table, level, rule) for table in (predictions, one.predictions))
    except (OSError, ValueError, KeyError, LemlightError):
        return nothing, "the figures of the own test split are not there: evaluate the checkpoint on its own data, too"
    value, draws = _auroc(here, resamples, seed)
    other, others = _auroc(there, resamples, seed + 1)
    patients = min(int(table["patient_id"].nunique()) for table in (here, there))
    found = estimate(value - other, draws - others, patients, "one class only")
    return found.to_dict(), found.reason


def _auroc(table: pd.DataFrame, resamples: int, seed: int) -> tuple[float, NDArray[np.float64]]:
    truth, probability = check_scored(table["label"], table["probability"])
    value = weighted_auroc(truth, probability, np.ones((1, truth.size)))
    draws = bootstrap(
        lambda weights: {"auroc": weighted_auroc(truth, probability, weights)},
        table["patient_id"].astype(str).to_numpy(),
        resamples=resamples,
        seed=seed,
    )
    return float(value[0]), draws["auroc"]


def transfer_text(table: pd.DataFrame) -> str:
    """Return the table for the terminal: a line per network and data set."""
    lines: Table = [["Trained on", "Tested on", "AUC", "Drop", "Training images"]]
    for row in rows_of(table):
        figures = [from_columns(name, row) for name in SHOWN]
        lines.append([row["trained_on"], row["tested_on"], *figures, str(row["training_images"])])
    return markdown(lines, unknown="-")


def write_transfer(evaluations: Sequence[Evaluation], resamples: int, folder: Path) -> tuple[pd.DataFrame, list[Path]]:
    """Write hospitals.html, which names no file and no patient, and hospitals.csv; return the table, and both paths."""
    table = transfer_table(evaluations, resamples)
    write_csv(table, folder / TABLE)
    rows, columns = (list(dict.fromkeys(table[name])) for name in ("trained_on", "tested_on"))
    cells = {}
    for row in rows_of(table):
        figures = {name: from_columns(name, row) for name in (*SHOWN, *CARRIED, *CALIBRATED)}
        cells[row["trained_on"], row["tested_on"]] = row | figures
    page = write_page(
        folder / PAGE,
        "hospitals.html.j2",
        title="Other hospitals",
        rows=rows,
        columns=columns,
        cells=cells,
        levels=list(dict.fromkeys(table["level"])),
        resamples=resamples,
    )
    return table, [page, folder / TABLE]

"""From image to patient: a table of predictions of breasts, exams or patients out of one of images.

Everything else (metrics, intervals over patients, comparison) runs unchanged on such a table. A level that the columns
do not define is named with its reason, never guessed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from lemlight.errors import LemlightError
from lemlight.files import write_csv
from lemlight.metrics import Level, LevelRule
from lemlight.metrics.classification import summarize

LEVELS: tuple[Level, ...] = ("image", "breast", "exam", "patient")
KEYS = {"breast": ("patient_id", "laterality"), "exam": ("patient_id", "exam"), "patient": ("patient_id",)}
UNITS = {"image": "images", "breast": "breasts", "exam": "exams", "patient": "patients"}
RULES = {"mean_logit": "mean of the logits", "max": "highest probability", "noisy_or": "noisy-or: 1 - prod(1 - p)"}
HIGHEST = 1 - 2.0**-53  # the largest probability below 1, of logit 36.7: a probability of 1 has no finite one


def log_odds(probability: ArrayLike) -> NDArray[np.float64]:
    """Return the logits of probabilities in [0, 1]; those of 0 and 1 are those of the nearest number between."""
    scored = np.asarray(probability, dtype=np.float64)
    return np.asarray(logit(np.clip(scored, np.finfo(np.float64).tiny, HIGHEST)))


def joined(probability: ArrayLike, rule: LevelRule) -> float:
    """Return the probability of a breast, an exam or a patient from those of its images, (N,), N > 0.

    One image keeps its own to the last digit, whatever the rule.
    """
    scored = np.asarray(probability, dtype=np.float64)
    if scored.size == 1:
        return float(scored[0])
    if rule == "max":
        return float(scored.max())
    return float(expit(log_odds(scored).mean()) if rule == "mean_logit" else 1 - np.prod(1 - scored))


def why_not(predictions: pd.DataFrame, level: Level) -> str:
    """Return why the columns of predictions do not define a level, or an empty string."""
    for column in KEYS.get(level, ()):
        unknown = len(predictions)
        if column in predictions:
            unknown = int((predictions[column].isna() | (predictions[column].astype(str) == "")).sum())
        if unknown:
            return f"{unknown} of {len(predictions)} images name no {'side' if column == 'laterality' else column}"
    if level == "exam" and predictions.drop_duplicates(["patient_id", "exam"])["patient_id"].is_unique:
        return "every patient has one exam: see patient"
    return ""


def level_table(predictions: pd.DataFrame, level: Level, rule: LevelRule = "mean_logit") -> pd.DataFrame:
    """Return a row per breast, exam or patient of predictions of images; those of images as they are.

    Args:
        predictions: a row per image with patient_id, split, label, probability, and the columns of the level's KEYS.
        level: one of LEVELS.
        rule: how probabilities are joined, see `joined`. The label is malignant if that of any image is.

    Returns:
        patient_id, laterality or exam, split, label, probability, `images` (how many), `image_id` (a name of the unit,
        unique), sorted by it.

    Raises:
        LemlightError: the columns do not define the level.
    """
    if level == "image":
        return predictions
    if reason := why_not(predictions, level):
        raise LemlightError(f"no figures by {level}: {reason}")
    keys = list(KEYS[level])
    groups = predictions.astype(dict.fromkeys(keys, str)).groupby(keys, as_index=False, sort=True)
    table = groups.agg(
        split=("split", "first"),
        label=("label", "max"),
        probability=("probability", lambda column: joined(column, rule)),
        images=("probability", "size"),
    )
    return table.assign(image_id=table[keys].agg("/".join, axis=1))


def level_tables(predictions: pd.DataFrame, rule: LevelRule) -> dict[Level, pd.DataFrame]:
    """Return the table of every level above the image that the columns define, see `level_table`."""
    return {level: level_table(predictions, level, rule) for level in LEVELS[1:] if not why_not(predictions, level)}


def summarize_levels(
    predictions: pd.DataFrame,
    *,
    rule: LevelRule = "mean_logit",
    threshold: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what metrics.json holds of the levels above the image: metrics with intervals over patients, or a reason.

    `mixed` counts the units with images of both labels: malignant, as any of their images is.
    """
    sections: dict[str, Any] = {}
    for level in LEVELS[1:]:
        if reason := why_not(predictions, level):
            sections[level] = {"reason": reason}
            continue
        table = level_table(predictions, level, rule)
        found = summarize(table, threshold=threshold, resamples=resamples, seed=seed)
        labels = predictions.groupby(list(KEYS[level]))["label"].nunique()
        head = {"units": found.pop("images"), "mixed": int((labels > 1).sum()), "rule": rule}
        sections[level] = head | {name: value for name, value in found.items() if name not in ("split", "interval")}
    return sections


def known_levels(summary: Mapping[str, Any]) -> list[Level]:
    """List the levels that a summary (metrics.json) has figures of, the image first."""
    sections = summary.get("levels", {})
    return [level for level in LEVELS if level == "image" or "reason" not in sections.get(level, {"reason": ""})]


def level_section(summary: Mapping[str, Any], level: Level) -> Mapping[str, Any]:
    """Return the part of a summary (metrics.json) that holds the figures of a level."""
    section: Mapping[str, Any] = summary if level == "image" else summary["levels"][level]
    return section


def write_level_tables(tables: Mapping[Level, pd.DataFrame], folder: Path) -> None:
    """Write predictions_breast.csv and so on, each whole or not at all."""
    for level, table in tables.items():
        columns = [*KEYS[level], "split", "label", "probability", "images"]
        write_csv(table[columns], folder / f"predictions_{level}.csv")

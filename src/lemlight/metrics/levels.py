"""From image to patient: a table of predictions of breasts, exams or patients out of one of images.

Everything else (metrics, intervals over patients, comparison) runs unchanged on such a table. A level that the columns
do not define is named with its reason, never guessed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit

from lemlight.errors import LemlightError
from lemlight.files import write_csv
from lemlight.metrics import Level, LevelRule
from lemlight.metrics.calibration import log_odds
from lemlight.metrics.classification import summarize
from lemlight.metrics.operating import Operating, OperatingPoint, choose_point

LEVELS: tuple[Level, ...] = ("image", "breast", "exam", "patient")
KEYS = {"breast": ("patient_id", "laterality"), "exam": ("patient_id", "exam"), "patient": ("patient_id",)}
GIVEN = Operating()  # a threshold of 0.5
UNITS = {"image": "images", "breast": "breasts", "exam": "exams", "patient": "patients"}
RULES = {"mean_logit": "mean of the logits", "max": "highest probability", "noisy_or": "noisy-or: 1 - prod(1 - p)"}
TOGETHER = "breast_probability"  # of a training with level=breast


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
    if level != "image" and not len(predictions):
        return "there is no image"
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
        rule: how probabilities are joined, see `joined`; breasts keep the `breast_probability` of a network that has
            judged their views together. The label is malignant if that of any image is.

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
    together = level == "breast" and TOGETHER in predictions
    groups = predictions.astype(dict.fromkeys(keys, str)).groupby(keys, as_index=False, sort=True)
    table = groups.agg(
        split=("split", "first"),
        label=("label", "max"),
        probability=(TOGETHER, "first") if together else ("probability", lambda column: joined(column, rule)),
        images=("probability", "size"),
    )
    return table.assign(image_id=table[keys].agg("/".join, axis=1))


def level_tables(predictions: pd.DataFrame, rule: LevelRule) -> dict[Level, pd.DataFrame]:
    """Return the table of every level above the image that the columns define, see `level_table`."""
    return {level: level_table(predictions, level, rule) for level in LEVELS[1:] if not why_not(predictions, level)}


def choose_points(predictions: pd.DataFrame, rule: float | str, level_rule: LevelRule) -> dict[Level, OperatingPoint]:
    """Return the point of every level that predictions of images define; none for a threshold that is a number."""
    if not isinstance(rule, str):
        return {}
    tables = {"image": predictions, **level_tables(predictions, level_rule)}
    return {
        level: choose_point(table["label"].to_numpy(dtype=bool), table["probability"].to_numpy(dtype=float), rule)
        for level, table in tables.items()
    }


def summarize_levels(
    predictions: pd.DataFrame, *, rule: LevelRule = "mean_logit", operating: Operating = GIVEN, **how: Any
) -> dict[str, Any]:
    """Return what metrics.json holds of the levels above the image: metrics with intervals over patients, or a reason.

    `mixed` counts the units with images of both labels: malignant, as any of their images is. Breasts are `together`
    where the network has judged their views so, and the rule says nothing of them. `how`: see `summarize`.
    """
    sections: dict[str, Any] = {}
    for level in LEVELS[1:]:
        if reason := why_not(predictions, level):
            sections[level] = {"reason": reason}
            continue
        table = level_table(predictions, level, rule)
        found = summarize(table, point=_point(operating, level, rule), rule=operating.rule, **how)
        labels = predictions.groupby(list(KEYS[level]))["label"].nunique()
        head = {"units": found.pop("images"), "mixed": int((labels > 1).sum()), "rule": rule}
        if level == "breast" and TOGETHER in predictions:
            head["together"] = True
        sections[level] = head | {name: value for name, value in found.items() if name not in ("split", "interval")}
    return sections


def _point(operating: Operating, level: Level, rule: LevelRule) -> OperatingPoint:
    if isinstance(operating.rule, str) and rule != operating.level_rule:
        reason = f"{operating.rule}: it was chosen for level_rule={operating.level_rule}"
        return OperatingPoint(threshold=None, reason=reason)
    return operating.point(level)


def level_sections(summary: Mapping[str, Any]) -> dict[Level, Mapping[str, Any]]:
    """Return the part of a summary (metrics.json) of each level that it has figures of, the image first."""
    sections = {"image": summary, **summary.get("levels", {})}
    return {level: sections[level] for level in LEVELS if "reason" not in sections.get(level, {"reason": ""})}


def write_level_tables(tables: Mapping[Level, pd.DataFrame], folder: Path) -> None:
    """Write predictions_breast.csv and so on, each whole or not at all."""
    for level, table in tables.items():
        columns = [*KEYS[level], "split", "label", "probability", "images"]
        write_csv(table[columns], folder / f"predictions_{level}.csv")

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as reference

from lemlight.errors import LemlightError
from lemlight.metrics.calibration import log_odds
from lemlight.metrics.classification import summarize
from lemlight.metrics.levels import (
    LEVELS,
    joined,
    level_sections,
    level_table,
    summarize_levels,
    why_not,
    write_level_tables,
)

CLINIC = [  # image, patient, side, view, exam, label, probability: two views, one breast, seven views, two exams
    ("a", "P1", "L", "CC", "2020", 1, 0.9),
    ("b", "P1", "L", "MLO", "2020", 1, 0.2),
    ("c", "P1", "R", "CC", "2020", 0, 0.1),
    ("d", "P1", "R", "MLO", "2021", 0, 0.3),
    ("e", "P2", "R", "CC", "2020", 0, 0.4),  # a woman with one breast, one view
    *((f"f{n}", "P3", "L", "CC", "2019", int(n == 6), 0.1 * (n + 1)) for n in range(7)),
]


def clinic(**changes):
    columns = ["image_id", "patient_id", "laterality", "view", "exam", "label", "probability"]
    return pd.DataFrame(CLINIC, columns=columns).assign(split="test", **changes)


def test_a_breast_that_was_judged_as_one_keeps_that_probability():
    together = clinic(breast_probability=[0.7, 0.7, 0.6, 0.6, 0.5, *[0.8] * 7])
    table = level_table(together, "breast", "max").set_index("image_id")
    assert table["probability"].to_dict() == {"P1/L": 0.7, "P1/R": 0.6, "P2/R": 0.5, "P3/L": 0.8}
    assert level_table(together, "patient", "max").equals(level_table(clinic(), "patient", "max"))
    sections = [summarize_levels(table, resamples=100) for table in (together, clinic())]
    assert [section["breast"].get("together") for section in sections] == [True, None]


def test_one_two_and_seven_views_make_a_breast_by_hand():
    table = level_table(clinic(), "breast").set_index("image_id")
    assert table["images"].to_dict() == {"P1/L": 2, "P1/R": 2, "P2/R": 1, "P3/L": 7}
    assert table["label"].to_dict() == {"P1/L": 1, "P1/R": 0, "P2/R": 0, "P3/L": 1}
    odds = {"P1/L": 9 * 0.25, "P1/R": (1 / 9) * (3 / 7)}  # of p = 0.9 and 0.2, of 0.1 and 0.3: the mean of logits
    for breast, product in odds.items():
        assert table["probability"][breast] == pytest.approx(product**0.5 / (1 + product**0.5), rel=1e-12)
    assert table["probability"]["P2/R"] == 0.4  # to the last digit
    assert table["probability"]["P3/L"] == pytest.approx(expit(np.mean(log_odds(0.1 * np.arange(1, 8)))))
    for rule, left in (("max", 0.9), ("noisy_or", 1 - 0.1 * 0.8)):
        assert level_table(clinic(), "breast", rule)["probability"].tolist()[:3:2] == [pytest.approx(left), 0.4]


def test_exams_and_patients():
    exams = level_table(clinic(), "exam").set_index("image_id")
    assert exams["images"].to_dict() == {"P1/2020": 3, "P1/2021": 1, "P2/2020": 1, "P3/2019": 7}
    assert exams["label"].to_dict() == {"P1/2020": 1, "P1/2021": 0, "P2/2020": 0, "P3/2019": 1}
    assert level_table(clinic(), "patient")["image_id"].tolist() == ["P1", "P2", "P3"]


@pytest.mark.parametrize(
    ("changes", "level", "reason"),
    [
        ({"laterality": ["L", ""] + ["R"] * 10}, "breast", "1 of 12 images name no side"),
        ({"laterality": [None] * 12}, "breast", "12 of 12 images name no side"),
        ({"exam": [float("nan")] * 12}, "exam", "12 of 12 images name no exam"),
        ({"exam": ["1"] * 12}, "exam", "every patient has one exam: see patient"),
    ],
)
def test_what_the_columns_do_not_define_is_named_and_never_guessed(changes, level, reason):
    assert why_not(clinic(**changes), level) == reason
    with pytest.raises(LemlightError, match=reason):
        level_table(clinic(**changes), level)
    section = summarize_levels(clinic(**changes), resamples=100)
    assert section[level] == {"reason": reason}
    assert why_not(clinic().drop(columns="laterality"), "breast") == "12 of 12 images name no side"
    assert summarize_levels(clinic()[:0])["patient"] == {"reason": "there is no image"}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(deadline=None, max_examples=100)
def test_joined_probabilities_are_probabilities_between_the_least_and_the_certain(scored):
    mean, highest, either = (joined(scored, rule) for rule in ("mean_logit", "max", "noisy_or"))
    assert min(scored) - 1e-9 <= mean <= highest + 1e-9
    assert highest <= either + 1e-12 <= 1 + 1e-9
    if len(scored) == 1:
        assert mean == highest == either == scored[0]


def test_figures_of_a_level_are_those_of_scikit_learn_on_groups_made_otherwise():
    rng = np.random.default_rng(0)
    number = np.arange(160)
    label = (number // 4 % 2) * (number // 2 % 2)
    predictions = pd.DataFrame(
        {
            "patient_id": [f"P{n // 4}" for n in number],
            "laterality": np.where(number // 2 % 2, "L", "R"),
            "view": np.where(number % 2, "CC", "MLO"),
            "label": label,
            "probability": expit(rng.normal(label, 1.5)),
            "split": "test",
        }
    ).sample(frac=1, random_state=0)
    summary = summarize_levels(predictions, resamples=200)
    pairs = predictions.set_index(["patient_id", "laterality", "view"])[["label", "probability"]].unstack("view")
    odds = pairs["probability"] / (1 - pairs["probability"])
    truth, scored = pairs["label"].max(axis=1), np.sqrt(odds["CC"] * odds["MLO"])  # any scale has the same AUC
    breast = summary["breast"]
    assert (breast["units"], breast["patients"], breast["mixed"]) == (80, 40, 0)
    assert breast["auroc"]["value"] == pytest.approx(reference.roc_auc_score(truth, scored))
    assert breast["sensitivity"]["value"] == pytest.approx(reference.recall_score(truth, scored > 1))
    assert breast["auroc"]["low"] < breast["auroc"]["value"] < breast["auroc"]["high"]
    assert summary["patient"]["units"] == 40
    assert "reason" in summary["exam"]


def test_images_that_are_a_level_each_have_the_very_figures_and_intervals_of_images():
    alone = clinic()[:11].assign(patient_id=[f"P{n:02}" for n in range(11)], label=[0, 1] * 5 + [1])
    image, patient = summarize(alone, resamples=100), summarize_levels(alone, resamples=100)["patient"]
    shared = {name: value for name, value in image.items() if name in patient}
    assert {name: patient[name] for name in shared} == shared
    assert {"auroc", "brier", "calibration"} <= shared.keys()


def test_one_class_at_a_level_is_undefined_and_images_of_both_labels_are_counted():
    section = summarize_levels(clinic(patient_id="P"), resamples=100)["patient"]
    assert section["auroc"] == {"value": None, "reason": "one class only: all images are malignant"}
    assert section["mixed"] == 1


def test_level_sections_and_files(tmp_path):
    summary = summarize(clinic(), resamples=100) | {"levels": summarize_levels(clinic(), resamples=100)}
    assert list(level_sections(summary)) == list(LEVELS)
    assert level_sections({"auroc": {}}) == {"image": {"auroc": {}}}  # of a run from before there were levels
    write_level_tables({"breast": level_table(clinic(), "breast")}, tmp_path)
    written = pd.read_csv(tmp_path / "predictions_breast.csv")
    assert list(written) == ["patient_id", "laterality", "split", "label", "probability", "images"]

import json

import numpy as np
import pandas as pd
import pytest

from lemlight.errors import LemlightError
from lemlight.metrics.classification import METRICS, PREDICTION_COLUMNS, summarize, write_metrics, write_predictions


def make_predictions(images=80, patients=20, seed=0):
    generator = np.random.default_rng(seed)
    owner = np.arange(images) % patients
    label = owner % 2
    return pd.DataFrame(
        {
            "image_id": [f"image{number}" for number in range(images)],
            "patient_id": [f"P{number}" for number in owner],
            "split": "test",
            "label": label,
            "probability": np.clip(0.35 + 0.3 * label + 0.25 * generator.normal(size=images), 0, 1),
            "n_maxima": generator.integers(0, 9, images),
            "n_minima": generator.integers(0, 9, images),
        }
    )


def strict_round_trip(summary):
    return json.loads(json.dumps(summary, allow_nan=False))


def test_a_summary_has_the_shape_of_metrics_json():
    summary = summarize(make_predictions(), resamples=200)
    assert (summary["split"], summary["images"], summary["patients"], summary["threshold"]) == ("test", 80, 20, 0.5)
    for name in METRICS:
        assert summary[name].keys() == {"value", "low", "high"}
        assert summary[name]["low"] <= summary[name]["value"] <= summary[name]["high"]
    assert summary["calibration"]["brier"] == summary["brier"]
    assert sum(part["images"] for part in summary["calibration"]["bins"]) == 80
    assert summary["interval"]["resamples"] == 200
    assert strict_round_trip(summary) == summary


def test_the_seed_and_nothing_else_decides_the_intervals():
    predictions = make_predictions()
    assert summarize(predictions, resamples=100, seed=0) == summarize(predictions, resamples=100, seed=0)
    shuffled = summarize(predictions.sample(frac=1, random_state=1), resamples=100, seed=0)
    for name in METRICS:
        expected = summarize(predictions, resamples=100, seed=0)[name]
        assert shuffled[name] == pytest.approx(expected, abs=1e-9)  # the order of the rows does not matter
    assert summarize(predictions, resamples=100, seed=1)["acc"] != summarize(predictions, resamples=100, seed=0)["acc"]


def test_the_interval_over_patients_is_wider_than_one_over_images():
    predictions = make_predictions(200, 20)
    predictions["probability"] = np.clip(predictions.groupby("patient_id")["probability"].transform("first"), 0, 1)
    by_image = predictions.assign(patient_id=predictions["image_id"])
    for name in ("acc", "auroc", "brier"):
        widths = [
            summary[name]["high"] - summary[name]["low"]
            for summary in (summarize(predictions, resamples=300), summarize(by_image, resamples=300))
        ]
        assert widths[0] > 1.5 * widths[1]


def test_one_class_is_undefined_not_zero():
    summary = summarize(make_predictions().query("label == 0"), resamples=100)
    for name in ("auroc", "sensitivity", "f1"):
        assert summary[name]["value"] is None
        assert summary[name].keys() == {"value", "reason"}
    assert summary["acc"]["value"] == summary["specificity"]["value"]
    assert strict_round_trip(summary) == summary


def test_resamples_without_a_class_are_dropped_and_counted():
    predictions = make_predictions(12, 4)
    summary = summarize(predictions, resamples=400)
    assert 0 < summary["interval"]["dropped"]["auroc"] < 200
    assert summary["interval"]["dropped"]["acc"] == 0
    assert summary["auroc"]["low"] is not None


def test_one_patient_has_values_without_intervals():
    predictions = make_predictions(6).assign(patient_id="P0")
    summary = summarize(predictions, resamples=100)
    assert summary["acc"]["value"] is not None
    assert summary["acc"]["low"] is None
    assert "one patient" in summary["acc"]["reason"]


def test_no_images_leave_everything_undefined():
    summary = summarize(make_predictions().iloc[:0])
    assert (summary["images"], summary["patients"], summary["split"]) == (0, 0, "")
    assert all(summary[name] == {"value": None, "reason": "no images"} for name in METRICS)
    assert summary["calibration"]["bins"] == []
    assert strict_round_trip(summary) == summary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns=["label", "split"]), "lack the columns split, label; they have image_id"),
        (lambda table: pd.concat([table, table.head(2)]), "2 rows repeat an image_id"),
        (lambda table: table.assign(patient_id=""), "80 rows have no patient_id"),
        (lambda table: table.assign(split=["val", "test"] * 40), r"several splits \(test, val\)"),
        (lambda table: table.assign(probability=np.nan), "80 of 80 values in probability are NaN"),
    ],
)
def test_predictions_that_cannot_be_summarised_are_refused(change, message):
    with pytest.raises(LemlightError, match=message):
        summarize(change(make_predictions()))


def test_files_are_written_whole_and_read_back(tmp_path):
    predictions = make_predictions().assign(extra=1)
    summary = summarize(predictions, resamples=100)
    write_metrics(summary, tmp_path / "metrics.json")
    write_predictions(predictions, tmp_path / "predictions.csv")
    assert json.loads((tmp_path / "metrics.json").read_text()) == summary
    again = pd.read_csv(tmp_path / "predictions.csv")
    assert tuple(again.columns) == PREDICTION_COLUMNS
    np.testing.assert_array_equal(again["probability"], predictions["probability"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.csv"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_metrics({"acc": float("nan")}, path)
    with pytest.raises(LemlightError, match="n_minima"):
        write_predictions(make_predictions().drop(columns="n_minima"), path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "nowhere").write_text("a file in the folder's place")
    with pytest.raises(LemlightError, match=r"cannot write .*nowhere"):
        write_metrics({}, tmp_path / "nowhere" / "metrics.json")

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics as reference

from lemlight.metrics import METRIC_NAMES
from lemlight.metrics.subgroups import TESTED, summarize_subgroups
from lemlight.plots import curves
from lemlight.plots.curves import subgroup_figure


def clinic(patients=80, worse="MLO", by=4.0, seed=0):
    """Two images of every patient, every second one malignant; those of one view are noisier."""
    rng = np.random.default_rng(seed)
    number = np.arange(2 * patients)
    view, label = np.where(number % 2, "CC", "MLO"), number // 2 % 2
    noise = np.where(view == worse, by, 0.5)
    return pd.DataFrame(
        {
            "patient_id": [f"P{n // 2}" for n in number],
            "label": label,
            "probability": expit(2.0 * (2 * label - 1) + rng.normal(0, noise)),
            "view": view,
        }
    )


def test_figures_are_those_of_scikit_learn_on_the_rows_and_a_difference_is_said():
    rows = clinic()
    found = summarize_subgroups(rows, rows[["view"]], resamples=1000)
    assert list(found["by"]["view"]) == ["CC", "MLO"]
    for view, part in rows.groupby("view"):
        group = found["by"]["view"][view]
        assert (group["images"], group["patients"], group["malignant"]) == (80, 80, 40)
        assert group["auroc"]["value"] == pytest.approx(reference.roc_auc_score(part["label"], part["probability"]))
        recall = reference.recall_score(part["label"], part["probability"] > 0.5)
        assert group["sensitivity"]["value"] == pytest.approx(recall)
    by_metric = {one["metric"]: one for one in found["differences"]}
    assert set(by_metric) == set(TESTED)
    difference = by_metric["auroc"]
    assert difference["p_corrected"] <= 0.05
    assert difference["sentence"].startswith("view CC has a higher AUC than view MLO: +0.")
    assert difference["difference"]["low"] > 0


def test_correction_is_over_all_pairs_of_all_variables():
    rows = clinic().assign(site=["AB"[n // 4 % 2] for n in range(160)], vendor=["XYZ"[n // 2 % 3] for n in range(160)])
    found = summarize_subgroups(rows, rows[["view", "site", "vendor"]], resamples=400)
    assert {one["comparisons"] for one in found["differences"] if one["metric"] == "auroc"} == {1 + 1 + 3}
    tested = [one for one in found["differences"] if one["metric"] == "auroc"]
    assert all(one["p_corrected"] >= one["p"] for one in tested)
    alike = [one for one in tested if one["group"] == "site"]
    assert all(one["sentence"].startswith("no difference in AUC shown") for one in alike)


def test_small_groups_are_too_small_and_what_is_not_known_is_never_tested():
    rows = clinic(patients=24)
    groups = pd.DataFrame(
        {
            "density": ["a"] * 12 + ["b"] * 30 + [""] * 6,
            "lesion_type": np.where(rows["label"] == 1, "mass", "no lesion"),
            "site": "",
        }
    )
    found = summarize_subgroups(rows, groups, order=("b",), resamples=200)
    assert list(found["by"]["density"]) == ["b", "a", "unknown"]
    assert found["by"]["density"]["a"]["auroc"] == {
        "value": None,
        "reason": "too small: 3 patients with a malignant image",
    }
    assert found["by"]["density"]["a"]["brier"]["reason"] == "too small: 6 patients"
    assert found["by"]["lesion_type"]["mass"]["auroc"]["reason"] == "one class only: all images are malignant"
    assert found["by"]["lesion_type"]["mass"]["sensitivity"]["value"] is not None
    assert found["by"]["site"] == {"reason": "neither the table nor the files say"}
    assert found["differences"] == []


def test_without_a_threshold_and_without_images():
    rows = clinic()
    found = summarize_subgroups(rows, rows[["view"]], threshold=None, resamples=100)
    assert found["by"]["view"]["CC"]["sensitivity"] == {"value": None, "reason": "there is no threshold"}
    assert {one["metric"] for one in found["differences"]} == {"auroc"}
    none = summarize_subgroups(rows[:0], rows[["view"]][:0], resamples=100)
    assert none["by"] == {"view": {"reason": "neither the table nor the files say"}}


def test_the_forest_plot_has_a_row_for_every_subgroup(tmp_path, monkeypatch):
    rows = clinic().assign(site=["A"] * 150 + ["B"] * 10)
    summary = {"subgroups": summarize_subgroups(rows, rows[["view", "site"]], resamples=100)}
    summary |= {name: {"value": 0.8} for name in METRIC_NAMES}
    figures = []
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure) or path)
    subgroup_figure(summary, tmp_path / "subgroups.png")
    (figure,) = figures
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["view: CC (80, 80)", "view: MLO (80, 80)", "site: A (150, 75)", "site: B (10, 5)"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["too small"]

import numpy as np
import pandas as pd
from matplotlib import pyplot

from lemlight.metrics.classification import summarize
from lemlight.plots.curves import curve_points, froc_figure, reliability_figure, roc_figure, training_curves
from tests.layouts.run_folders import predictions_of
from tests.plots.conftest import legend_texts, texts


def test_the_roc_curve_shows_its_band_and_the_auc_of_the_summary(drawn, tmp_path):
    predictions = predictions_of()
    summary = summarize(predictions, resamples=100)
    roc_figure(predictions, summary, tmp_path / "roc.png")
    (axes,) = drawn[0].axes
    auc = summary["auroc"]
    said = legend_texts(axes.get_legend())
    assert f"AUC {auc['value']:.3f} (95 %: {auc['low']:.3f} to {auc['high']:.3f})" in said
    assert "95 % band over patients" in said
    assert len(axes.collections) == 1
    point = [1 - summary["specificity"]["value"], summary["sensitivity"]["value"]]
    assert axes.lines[-1].get_xydata()[0].tolist() == point


def test_one_class_has_no_roc_curve_and_one_patient_no_band(drawn, tmp_path):
    for predictions in (predictions_of().assign(label=0), predictions_of().assign(patient_id="P0")):
        roc_figure(predictions, summarize(predictions, resamples=100), tmp_path / "roc.png")
    assert texts(drawn[0].axes[0]) == ["the ROC curve needs malignant and benign images"]
    assert not drawn[1].axes[0].collections
    assert not any("95 %" in text for text in legend_texts(drawn[1].axes[0].get_legend()))


def test_the_reliability_diagram_shows_bins_and_counts_or_that_there_are_no_images(drawn, tmp_path):
    summary = summarize(predictions_of(), resamples=100)
    reliability_figure(summary, tmp_path / "reliability.png")
    curve, counts = drawn[0].axes
    bins = summary["calibration"]["bins"]
    assert texts(counts) == [str(part["images"]) for part in bins]
    points = [[part["predicted"], part["observed"]] for part in bins]
    assert any(np.array_equal(line.get_xydata(), points) for line in curve.lines)
    assert f"{summary['brier']['value']:.3f}" in curve.get_title()
    reliability_figure(summarize(predictions_of().iloc[:0]), tmp_path / "none.png")
    assert texts(drawn[1].axes[0]) == ["no images"]


FROC = {
    "mean": {"value": 0.5, "low": 0.4, "high": 0.6},
    "at": {
        "0.25": {"value": 0.2, "low": 0.1, "high": 0.3},
        "1": {"value": 0.5, "low": 0.45, "high": 0.6},
        "8": {"value": 0.75, "low": None, "high": None, "reason": "one patient"},
    },
    "curve": {"false_positives_per_image": [0, 0, 0.25, 0.25, 1, 2], "sensitivity": [0, 0.1, 0.15, 0.2, 0.5, 0.75]},
}


def test_the_froc_curve_shows_its_points_with_their_intervals(drawn, tmp_path):
    froc_figure(FROC, tmp_path / "froc.png")
    (axes,) = drawn[0].axes
    (reported,) = axes.containers
    np.testing.assert_array_equal(reported.lines[0].get_xydata(), [[0.25, 0.2], [1, 0.5], [8, 0.75]])
    bars = [segment[:, 1].tolist() for segment in reported.lines[2][0].get_segments()]
    np.testing.assert_allclose(bars, [[0.1, 0.3], [0.45, 0.6], [0.75, 0.75]])
    assert "mean of the points 0.500 (95 %: 0.400 to 0.600)" in legend_texts(axes.get_legend())


def test_the_froc_curve_is_straight_between_its_points_and_level_behind_them():
    x, y = curve_points(FROC["curve"]["false_positives_per_image"], FROC["curve"]["sensitivity"])
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    between = (x > 1) & (x < 2)
    assert between.sum() > 20
    np.testing.assert_allclose(y[between], 0.5 + 0.25 * (x[between] - 1))
    np.testing.assert_array_equal(y[x > 2], 0.75)
    assert x[-1] > 8
    assert y[x == 0.25].tolist() == [0.15, 0.2]  # a jump, with both its ends


def test_a_froc_curve_of_one_point_and_of_none(drawn, tmp_path):
    for value, points in ((1.0, [1]), (None, [])):
        known = {"value": value, "reason": "no image with a lesion"}
        curve = {"false_positives_per_image": points, "sensitivity": points}
        froc_figure({"mean": known, "at": {"1": known}, "curve": curve}, tmp_path / "froc.png")
    assert "reported" in legend_texts(drawn[0].axes[0].get_legend())
    assert texts(drawn[1].axes[0]) == ["no image with a lesion"]


def logged():
    """A sparse metrics.csv as Lightning's CSVLogger writes it: one row per logging call."""
    rows = []
    for epoch in range(4):
        rows.append({"epoch": epoch, "step": 5 * epoch, "lambda": epoch / 3, "lr-Adam": 1e-4})
        rows.append({"epoch": epoch, "step": 5 * epoch + 4, "val/loss": 1 - epoch / 8, "val/auroc": 0.6 + epoch / 10})
        rows.append({"epoch": epoch, "step": 5 * epoch + 4, "train/loss": 1 - epoch / 4, "train/loss_gap": 0.5})
    return pd.DataFrame(rows)


def test_training_curves_show_losses_metrics_and_lambda(drawn, tmp_path):
    training_curves(logged(), tmp_path / "curves.png")
    losses, metrics, ramp = drawn[0].axes
    assert legend_texts(losses.get_legend()) == ["training, total", "training, GAP", "validation, total"]
    assert legend_texts(metrics.get_legend()) == ["AUC"]
    np.testing.assert_allclose(losses.lines[0].get_xydata(), [[0, 1], [1, 0.75], [2, 0.5], [3, 0.25]])
    np.testing.assert_allclose(ramp.lines[0].get_xydata(), [[k, k / 3] for k in range(4)])


def test_training_curves_draw_what_there_is_and_keep_no_figure(drawn, tmp_path):
    training_curves(logged()[["step", "train/loss"]], tmp_path / "curves.png")
    losses, metrics = drawn[0].axes
    assert losses.get_xlabel() == "Step"
    np.testing.assert_allclose(losses.lines[0].get_xdata(), [4, 9, 14, 19])
    assert texts(metrics) == ["no metric was logged"]
    training_curves(pd.DataFrame(), tmp_path / "curves.png")
    assert [texts(axes) for axes in drawn[1].axes] == [["no loss was logged"], ["no metric was logged"]]
    assert pyplot.get_fignums() == []

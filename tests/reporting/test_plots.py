import gc
import weakref

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from lemlight.metrics.classification import summarize
from lemlight.plots import curves
from lemlight.plots.curves import reliability_figure, roc_figure, training_curves


def make_predictions(images=60, one_class=False):
    generator = np.random.default_rng(0)
    label = np.arange(images) % 2 * (not one_class)
    probability = np.clip(0.3 + 0.4 * label + 0.25 * generator.normal(size=images), 0, 1)
    names = [f"P{number // 4}" for number in range(images)]
    return pd.DataFrame(
        {
            "image_id": [f"{name}_{number}" for number, name in enumerate(names)],
            "patient_id": names,
            "split": "test",
            "label": label,
            "probability": probability,
        }
    )


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are saved, to be looked at from inside."""
    figures = []
    for module in (curves,):
        save = module.save
        monkeypatch.setattr(
            module, "save", lambda figure, path, save=save: figures.append(figure) or save(figure, path)
        )
    return figures


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_roc_curve_shows_its_band_and_the_auc_of_the_summary(drawn, tmp_path):
    predictions = make_predictions()
    summary = summarize(predictions, resamples=100)
    path = roc_figure(predictions, summary, tmp_path / "roc.png")
    (axes,) = drawn[0].axes
    auc = summary["auroc"]
    assert f"AUC {auc['value']:.3f} (95 %: {auc['low']:.3f} to {auc['high']:.3f})" in legend_texts(axes)
    assert "95 % band over patients" in legend_texts(axes)
    assert len(axes.collections) == 1
    point = axes.lines[-1].get_xydata()[0]
    assert tuple(point) == (1 - summary["specificity"]["value"], summary["sensitivity"]["value"])
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] == pixels.shape[1] > 600
    assert [entry.name for entry in tmp_path.iterdir()] == ["roc.png"]


def test_a_roc_curve_of_one_class_says_so(drawn, tmp_path):
    predictions = make_predictions(one_class=True)
    roc_figure(predictions, summarize(predictions, resamples=100), tmp_path / "roc.png")
    assert texts(drawn[0].axes[0]) == ["the ROC curve needs malignant and benign images"]


def test_a_roc_curve_of_one_patient_has_no_band(drawn, tmp_path):
    predictions = make_predictions().assign(patient_id="P0")
    roc_figure(predictions, summarize(predictions, resamples=100), tmp_path / "roc.png")
    assert not drawn[0].axes[0].collections
    assert not any("95 %" in text for text in legend_texts(drawn[0].axes[0]))


def test_the_reliability_diagram_shows_bins_and_counts(drawn, tmp_path):
    summary = summarize(make_predictions(), resamples=100)
    reliability_figure(summary, tmp_path / "reliability.png")
    curve, counts = drawn[0].axes
    bins = summary["calibration"]["bins"]
    assert texts(counts) == [str(part["images"]) for part in bins]
    points = np.array([[part["predicted"], part["observed"]] for part in bins])
    assert any(np.array_equal(line.get_xydata(), points) for line in curve.lines)
    assert f"{summary['brier']['value']:.3f}" in curve.get_title()


def test_the_reliability_of_no_images_says_so(drawn, tmp_path):
    reliability_figure(summarize(make_predictions().iloc[:0]), tmp_path / "reliability.png")
    assert texts(drawn[0].axes[0]) == ["no images"]


def log_file(tmp_path, columns):
    """A sparse metrics.csv as Lightning's CSVLogger writes it: one row per logging call."""
    rows = []
    for epoch in range(4):
        rows.append({"epoch": epoch, "step": 5 * epoch, "lambda": epoch / 3, "lr-Adam": 1e-4})
        rows.append({"epoch": epoch, "step": 5 * epoch + 4, "val/loss": 1 - epoch / 8, "val/auroc": 0.6 + epoch / 10})
        rows.append({"epoch": epoch, "step": 5 * epoch + 4, "train/loss": 1 - epoch / 4, "train/loss_gap": 0.5})
    pd.DataFrame(rows)[columns].to_csv(tmp_path / "metrics.csv", index=False)
    return pd.read_csv(tmp_path / "metrics.csv")


ALL = ["epoch", "step", "lambda", "lr-Adam", "val/loss", "val/auroc", "train/loss", "train/loss_gap"]


def test_training_curves_show_losses_figures_and_lambda(drawn, tmp_path):
    training_curves(log_file(tmp_path, ALL), tmp_path / "curves.png")
    losses, figures, ramp = drawn[0].axes
    assert legend_texts(losses) == ["training, total", "training, GAP", "validation, total"]
    assert legend_texts(figures) == ["AUC"]
    np.testing.assert_allclose(losses.lines[0].get_xydata(), [[0, 1], [1, 0.75], [2, 0.5], [3, 0.25]])
    np.testing.assert_allclose(ramp.lines[0].get_xydata(), [[k, k / 3] for k in range(4)])


def test_training_curves_without_validation_lambda_and_epoch(drawn, tmp_path):
    training_curves(log_file(tmp_path, ["step", "train/loss"]), tmp_path / "curves.png")
    losses, figures = drawn[0].axes
    assert losses.get_xlabel() == "Step"
    np.testing.assert_allclose(losses.lines[0].get_xdata(), [4, 9, 14, 19])
    assert texts(figures) == ["no figure was logged"]


def test_training_curves_of_nothing_say_so(drawn, tmp_path):
    training_curves(pd.DataFrame(), tmp_path / "curves.png")
    assert [texts(axes) for axes in drawn[0].axes] == [["no loss was logged"], ["no figure was logged"]]


def test_no_figure_is_kept(drawn, tmp_path):
    training_curves(pd.DataFrame(), tmp_path / "curves.png")
    kept = weakref.ref(drawn.pop())
    gc.collect()
    assert kept() is None
    assert pyplot.get_fignums() == []

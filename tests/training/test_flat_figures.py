from lemlight.training.logging import flat_figures, values_only

SUMMARY = {
    "split": "test",
    "images": 82,
    "patients": 41,
    "threshold": 0.5,
    "auroc": {"value": 0.9, "low": 0.8, "high": 0.95},
    "sensitivity": {"value": None, "reason": "no malignant image"},
    "dsc": {"value": 0.4},
    "froc": {"mean": {"value": 0.6, "low": 0.5, "high": 0.7}, "curve": [[0, 0], [1, 1]]},
    "calibration": {"bins": [], "brier": {"value": 0.1}},
    "localization": {"method": "importance", "oracle": {"dsc": 0.5}},
    "localization_compared": {"cam": {"dsc": {"value": 0.3, "low": 0.2, "high": 0.4}, "cutoff": 0.5}},
    "interval": {"level": 0.95},
}


def test_every_defined_figure_is_a_column_with_its_bounds():
    assert flat_figures(SUMMARY) == {
        "test/auroc": 0.9,
        "test/auroc_low": 0.8,
        "test/auroc_high": 0.95,
        "test/dsc": 0.4,
        "test/froc": 0.6,
        "test/froc_low": 0.5,
        "test/froc_high": 0.7,
        "test/cam/dsc": 0.3,
        "test/cam/dsc_low": 0.2,
        "test/cam/dsc_high": 0.4,
        "test/dsc_oracle": 0.5,
        "test/images": 82,
        "test/patients": 41,
    }


def test_curves_get_the_values_without_the_bounds():
    assert not [name for name in values_only(flat_figures(SUMMARY)) if name.endswith(("_low", "_high"))]
    assert values_only({"test/auroc": 0.9, "test/auroc_low": 0.8}) == {"test/auroc": 0.9}


def test_without_localization_there_are_the_figures_of_the_classification():
    assert flat_figures({"split": "all", "acc": {"value": 1.0}}) == {"all/acc": 1.0}

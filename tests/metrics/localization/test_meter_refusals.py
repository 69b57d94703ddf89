"""What the meter of localization cannot say, and what it refuses, by name."""

import numpy as np
import pytest

from lemlight.errors import LemlightError
from lemlight.metrics.localization import LocalizationMeter
from tests.metrics.localization.test_meter import FIGURES, STRENGTH, add


def test_without_any_lesion_every_figure_is_undefined_with_a_reason():
    meter = LocalizationMeter(0.5)
    for patient in "pqr":
        add(meter, patient, patient, lesions=np.zeros((5, 5), np.uint8), types=())
    summary = meter.summary(resamples=40)
    undefined = {"value": None, "reason": "no image with a lesion"}
    for figure in (*(summary[name] for name in FIGURES), summary["froc"]["mean"], *summary["froc"]["at"].values()):
        assert figure == undefined
    assert summary["froc"]["curve"] == {"false_positives_per_image": [], "sensitivity": []}
    assert summary["by_type"] == {}
    assert (summary["images"], summary["images_with_lesion"], summary["lesions"]) == (3, 0, 0)


def test_without_any_image_it_says_so():
    summary = LocalizationMeter(0.5).summary(resamples=40)
    assert summary["dsc"] == summary["froc"]["mean"] == {"value": None, "reason": "no images"}
    assert summary["tolerance_px"] is None
    rows = LocalizationMeter(0.5).per_image()
    assert len(rows) == 0
    assert "dsc" in rows.columns


def test_one_patient_with_lesions_gives_values_without_intervals():
    meter = LocalizationMeter(0.5)
    add(meter, "a", "p")
    add(meter, "b", "p", strength=np.eye(5))
    add(meter, "c", "healthy", lesions=np.zeros((5, 5), np.uint8), types=())
    summary = meter.summary(resamples=100)
    for figure in (*(summary[name] for name in FIGURES), summary["froc"]["mean"]):
        assert figure["value"] is not None
        assert figure["low"] is None
        assert "one patient only" in figure["reason"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"types": ("mass",)}, "lesion 2 is drawn, but there are 1 types"),
        ({"confidence": 1.5}, "confidence must be a probability"),
        ({"confidence": float("nan")}, "confidence must be a probability"),
        ({"tolerance_px": -1.0}, "tolerance_px"),
        ({"tolerance_px": float("inf")}, "tolerance_px"),
        ({"strength": STRENGTH.T[:4]}, r"shape \(H, W\)"),
        ({"strength": STRENGTH * 2}, "divide the location map by its highest value"),
        ({"patient_id": " "}, "no patient_id"),
    ],
)
def test_an_image_that_cannot_be_measured_is_named_and_leaves_nothing_behind(changes, message):
    meter = LocalizationMeter(0.5)
    with pytest.raises(LemlightError, match=f"image a: .*{message}"):
        add(meter, **changes)
    assert len(meter.per_image()) == 0
    add(meter)


def test_an_image_given_twice_is_refused():
    meter = LocalizationMeter(0.5)
    add(meter)
    with pytest.raises(LemlightError, match="image a: measured twice"):
        add(meter)


@pytest.mark.parametrize("cutoff", [-0.1, 1.1, float("nan")])
def test_a_cutoff_outside_0_to_1_is_refused(cutoff):
    with pytest.raises(LemlightError, match="cutoff"):
        LocalizationMeter(cutoff)


def test_too_few_resamples_are_refused():
    meter = LocalizationMeter(0.5)
    add(meter)
    with pytest.raises(LemlightError, match="at least 40 resamples"):
        meter.summary(resamples=10)

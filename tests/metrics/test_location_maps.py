"""Metrics of location maps over many images: drawn by hand, against plain sums, intervals, what is undefined."""

import json

import numpy as np
import pandas as pd
import pytest

from lemlight.errors import LemlightError
from lemlight.metrics.location_maps import FIGURES, LocalizationMeter, measure, size_of
from tests.metrics.test_overlap import LESIONS

STRENGTH = np.zeros((5, 5), np.float32)
STRENGTH[1:3, 1:3] = [[0.8, 0.6], [0.6, 0.4]]
STRENGTH[3, 4], STRENGTH[4, 3] = 0.2, 1.0
ONE = (LESIONS == 1).astype(np.uint8)
HEALTHY = {"lesions": np.zeros((5, 5), np.uint8), "types": (), "malignant": False}


def add(meter, image_id="a", patient_id="p", **changes):
    given = {
        "cutoff": 0.5,
        "malignant": True,
        "lesions": LESIONS,
        "types": ("mass", "calcification"),
        "strength": STRENGTH,
        "probability": 0.5,
        "tolerance_px": 0.0,
        "cell_px": 4,
    } | changes
    given = {"suspicion": given["strength"], "suspicion_cutoff": given["cutoff"]} | given
    arrays = {name: given[name].astype(np.float32) for name in ("strength", "suspicion")}
    meter.add(measure(image_id=image_id, patient_id=patient_id, **given | arrays))


def random_case(generator):
    """One non-square image with up to three lesions, one of them of unknown type."""
    shape = (int(generator.integers(6, 12)), int(generator.integers(12, 18)))
    lesions = np.zeros(shape, np.uint8)
    for label in range(1, int(generator.integers(0, 4)) + 1):
        y, x = generator.integers(0, shape[0] - 2), generator.integers(0, shape[1] - 3)
        lesions[y : y + 2, x : x + 3] = label
    strength = np.round(np.where(generator.random(shape) < 0.85, 0, generator.random(shape)), 1)
    strength += (lesions > 0) & (generator.random() < 0.5)  # half of the maps are about right
    strength /= strength.max()
    types, probability = ("mass", "calcification", ""), float(np.round(generator.random(), 2))
    return {"lesions": lesions, "types": types, "strength": strength, "probability": probability}


def filled(cases, patients):
    meter = LocalizationMeter()
    for index, (case, patient) in enumerate(zip(cases, patients, strict=True)):
        add(meter, f"i{index:03}", patient, tolerance_px=1.0, **case)
    return meter


def values_of(summary):
    values = {name: summary[name]["value"] for name in FIGURES}
    values |= {f"froc {rate}": figure["value"] for rate, figure in summary["froc"]["at"].items()}
    values["froc"] = summary["froc"]["mean"]["value"]
    for kind, figures in summary["by_type"].items():
        values |= {f"{name} of {kind}": figures[name]["value"] for name in ("dsc", "lesion_recall")}
    return values


def test_the_drawn_case():
    meter = LocalizationMeter()
    add(meter)
    summary = meter.summary(resamples=40)
    # at 0.5: 4 px predicted, 3 px of lesions, 2 shared; lesion 1 hit, lesion 2 not; the top point (4, 3) hits none
    expected = {"dsc": 4 / 7, "dsc_pooled": 4 / 7, "pixel_recall": 2 / 3, "lesion_recall": 1 / 2, "pointing": 0}
    # at 0.8: 1 of 2 px right; at 0.6: 2 of 4; at 0: 3 of 25; a third of the recall each
    expected["pxap"] = (1 / 2 + 2 / 4 + 3 / 25) / 3
    # a box of 2 x 2 px on the lesion of 2 x 1: 0.5 at best, right at 0.3 and 0.5
    expected["max_box_acc_v2"] = 2 / 3
    # a false positive of score 0.5 comes before the lesion of score 0.5 * 0.8
    expected |= {"froc 0.25": 0, "froc 0.5": 0, "froc 1": 1 / 2, "froc 2": 1 / 2, "froc 4": 1 / 2, "froc 8": 1 / 2}
    expected |= {"froc": 1 / 3, "lesion_recall of mass": 1, "lesion_recall of calcification": 0}
    expected |= {"dsc of mass": None, "dsc of calcification": None}
    assert values_of(summary) == pytest.approx(expected)
    assert summary["froc"]["curve"] == {"false_positives_per_image": [0, 1, 1], "sensitivity": [0, 0, 0.5]}
    counts = {"images": 1, "images_with_lesion": 1, "lesions": 2, "patients": 1}
    assert {name: summary[name] for name in counts} == counts


def test_froc_follows_the_suspicion_where_the_other_figures_follow_the_prediction():
    meter, spot = LocalizationMeter(), np.zeros((5, 5))
    spot[1, 1:3] = 1
    # predicted benign: the map explains why, and misses; what speaks for malignancy hits
    add(meter, probability=0.3, strength=spot[::-1], suspicion=spot, lesions=ONE)
    summary = meter.summary(resamples=40)
    assert (summary["dsc"]["value"], summary["lesion_recall"]["value"]) == (0, 0)
    assert summary["froc"]["mean"]["value"] == 1


def test_a_lesion_on_a_benign_image_is_no_malignant_one_and_a_region_on_it_a_false_positive():
    meter = LocalizationMeter()
    add(meter, "a", "p", probability=0.5)
    add(meter, "b", "q", probability=0.9, malignant=False, strength=(LESIONS > 0).astype(float))
    summary = meter.summary(resamples=40)
    assert (summary["lesions"], summary["froc"]["lesions"]) == (4, 2)
    assert summary["lesion_recall"]["value"] == 3 / 4
    # by falling score: two false positives of b, one of a, one of the two lesions of a
    assert summary["froc"]["curve"] == {"false_positives_per_image": [0, 1.5, 1.5], "sensitivity": [0, 0, 0.5]}


def test_figures_by_the_size_of_a_lesion_in_cells_count_images_whose_lesions_are_all_of_it():
    meter, large = LocalizationMeter(), np.zeros((5, 5), np.uint8)
    large[1:5, 1:3] = 1  # 8 px: 2 cells of 4 px
    add(meter, "a", "p", lesions=large, types=("mass",))
    add(meter, "b", "q", lesions=ONE, types=("mass",), tolerance_px=1)  # 2 px: half a cell
    add(meter, "c", "r", lesions=np.where(large > 0, 1, 2 * (LESIONS == 2)).astype(np.uint8))
    sizes = meter.summary(resamples=40)["by_size"]
    assert list(sizes) == ["below 1 cell", "1 to 8 cells"]
    small, middle = sizes.values()
    assert (small["lesions"], small["images"], middle["lesions"], middle["images"]) == (2, 1, 2, 1)
    assert small["dsc"]["value"] == pytest.approx(2 * 2 / (2 + 4))
    assert middle["dsc"]["value"] == pytest.approx(2 * 3 / (8 + 4))
    assert (small["lesion_recall"]["value"], middle["lesion_recall"]["value"]) == (0.5, 1)
    assert (small["pointing"]["value"], middle["pointing"]["value"]) == (0, 0)
    assert [size_of(cells) for cells in (0.01, 0.99, 1, 7.9, 8, 500)] == [
        *["below 1 cell"] * 2, *["1 to 8 cells"] * 2, *["8 cells and more"] * 2,
    ]  # fmt: skip


def test_the_tolerance_lets_a_single_pixel_be_hit_and_changes_no_pixel_figure():
    meter = LocalizationMeter()
    add(meter, tolerance_px=1.5)  # (2, 1) is the square root of 2 from (3, 0)
    summary = meter.summary(resamples=40)
    assert summary["lesion_recall"]["value"] == 1
    assert summary["by_type"]["calcification"]["lesion_recall"]["value"] == 1
    assert summary["dsc"]["value"] == pytest.approx(4 / 7)
    assert summary["tolerance_px"] == [1.5, 1.5]


def test_one_row_per_image_ordered_by_name_whatever_the_order_of_adding():
    meter, other = LocalizationMeter(), LocalizationMeter()
    add(meter, "b", "q", **HEALTHY)
    add(meter, "a", "p")
    expected = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "patient_id": ["p", "q"],
            "probability": [0.5, 0.5],
            "lesions": [2, 0],
            "hit_lesions": [1, 0],
            "regions_outside": [1, 2],
            "lesion_pixels": [3, 0],
            "predicted_pixels": [4, 4],
            "shared_pixels": [2, 0],
            "dsc": [4 / 7, np.nan],
            "pointing": [0.0, np.nan],
        }
    )
    pd.testing.assert_frame_equal(meter.per_image(), expected)
    add(other, "a", "p")
    add(other, "b", "q", **HEALTHY)
    assert other.summary(resamples=200) == meter.summary(resamples=200)


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_agree_with_plain_means_and_sums_over_images(seed):
    generator = np.random.default_rng(seed)
    cases = [random_case(generator) for _ in range(12)]
    meter = filled(cases, [f"p{index // 2}" for index in range(12)])
    values = values_of(meter.summary(resamples=40))
    ill = [case for case in cases if case["lesions"].any()]
    masks = [np.float32(case["strength"]) >= np.float32(0.5) for case in ill]
    truths = [case["lesions"] > 0 for case in ill]
    shared = sum(np.sum(mask & truth) for mask, truth in zip(masks, truths, strict=True))
    dice = [2 * np.sum(m & t) / (np.sum(m) + np.sum(t)) for m, t in zip(masks, truths, strict=True)]
    assert values["dsc"] == pytest.approx(np.mean(dice))
    assert values["dsc_pooled"] == pytest.approx(2 * shared / sum(map(np.sum, masks + truths)))
    assert values["pixel_recall"] == pytest.approx(shared / sum(map(np.sum, truths)))
    rows = meter.per_image()
    assert values["lesion_recall"] == pytest.approx(rows["hit_lesions"].sum() / rows["lesions"].sum())
    assert values["pointing"] == pytest.approx(rows["pointing"].mean())
    np.testing.assert_allclose(rows["dsc"].dropna(), dice)
    only_mass = [value for value, case in zip(dice, ill, strict=True) if set(np.unique(case["lesions"])) == {0, 1}]
    assert values["dsc of mass"] == (pytest.approx(np.mean(only_mass)) if only_mass else None)


def test_intervals_hold_the_value_follow_the_seed_and_widen_with_patients_of_more_images():
    generator = np.random.default_rng(4)
    cases = [random_case(generator) for _ in range(40)]
    by_image = filled(cases, [f"p{index}" for index in range(40)]).summary(resamples=400)
    figures = [by_image[name] for name in FIGURES]
    for figure in (*figures, by_image["froc"]["mean"], *by_image["froc"]["at"].values()):
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert all(figure["low"] < figure["high"] for figure in figures)
    same = filled(cases, [f"p{index}" for index in range(40)])
    assert same.summary(resamples=400) == by_image
    assert same.summary(resamples=400, seed=1)["dsc"]["low"] != by_image["dsc"]["low"]
    # Each patient has the same image four times: a quarter of the independent images, twice the width.
    clustered = filled([cases[index // 4 * 4] for index in range(40)], [f"p{index // 4}" for index in range(40)])
    scattered = filled([cases[index // 4 * 4] for index in range(40)], [f"p{index}" for index in range(40)])
    wide, narrow = (meter.summary(resamples=1000)["lesion_recall"] for meter in (clustered, scattered))
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_what_is_undefined_says_why():
    meter = LocalizationMeter()
    for patient in "pqr":
        add(meter, patient, patient, **HEALTHY)
    summary = meter.summary(resamples=40)
    assert all(summary[name] == {"value": None, "reason": "no image with a lesion"} for name in FIGURES)
    for figure in (summary["froc"]["mean"], *summary["froc"]["at"].values()):
        assert figure == {"value": None, "reason": "no image with a malignant lesion"}
    assert summary["froc"]["curve"] == {"false_positives_per_image": [], "sensitivity": []}
    assert (summary["by_type"], summary["images"], summary["images_with_lesion"], summary["lesions"]) == ({}, 3, 0, 0)
    nothing = LocalizationMeter()
    summary = nothing.summary(resamples=40)
    assert summary["dsc"] == summary["froc"]["mean"] == {"value": None, "reason": "no images"}
    assert summary["tolerance_px"] is None
    assert len(nothing.per_image()) == 0
    assert "dsc" in nothing.per_image().columns


def test_a_perfect_detector_of_malignant_lesions_has_a_froc_sensitivity_of_1_at_every_rate():
    meter, spot = LocalizationMeter(), np.zeros((5, 5))
    spot[1, 1:3] = 1
    for number in range(10):
        add(meter, f"ill{number}", f"p{number}", probability=0.9, strength=spot, lesions=ONE)
    for number in range(30):
        add(meter, f"well{number}", f"q{number}", probability=0.01, strength=spot, **HEALTHY)
    froc = meter.summary(resamples=40)["froc"]
    assert (froc["counts"], froc["lesions"]) == ("malignant lesions", 10)
    assert {figure["value"] for figure in froc["at"].values()} == {1.0}


def test_a_lesion_that_later_ones_cover_is_left_out_and_one_patient_has_no_interval():
    meter = LocalizationMeter()
    add(meter, lesions=np.where(LESIONS == 2, 3, LESIONS).astype(np.uint8), types=("mass", "other", "calcification"))
    add(meter, "c", "healthy", **HEALTHY)
    summary = meter.summary(resamples=40)
    assert summary["lesions"] == 2
    assert sorted(summary["by_type"]) == ["calcification", "mass"]
    for figure in (*(summary[name] for name in FIGURES), summary["froc"]["mean"]):
        assert (figure["value"] is None, figure["low"]) == (False, None)
        assert "one patient only" in figure["reason"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(FIGURES) <= set(summary["rules"])


def test_images_of_other_sizes_add_up_and_no_map_is_kept():
    meter = LocalizationMeter()
    wide = np.zeros((300, 7000), np.uint8)
    wide[20:40, 3000:3020] = 1
    add(meter, "wide", "p", lesions=wide, types=("mass",), strength=wide)
    add(meter, "high", "q", lesions=wide.T, types=("mass",), strength=wide.T)
    assert meter.summary(resamples=40)["dsc"]["value"] == 1
    (record, *_), (histogram, *_) = meter._records.values(), meter._histograms.values()
    arrays = [value for value in vars(record).values() if isinstance(value, np.ndarray)]
    assert sum(array.size for array in [*arrays, histogram]) < 3000


def test_an_image_given_twice_and_too_few_resamples_are_refused():
    meter = LocalizationMeter()
    add(meter)
    with pytest.raises(LemlightError, match="image a: measured twice"):
        add(meter)
    with pytest.raises(LemlightError, match="at least 40 resamples"):
        meter.summary(resamples=10)


def breast_views(meter, patient, side, found, *, names=("1", "2"), malignant=True, probability=0.5):
    """Two views of a breast with two lesions each; `found` are the labels that the map of each view hits."""
    for view, labels in zip(("CC", "MLO"), found, strict=True):
        strength = np.isin(LESIONS, list(labels)).astype(float) if labels else np.zeros((5, 5))
        more = {"breast": side, "names": names, "malignant": malignant, "probability": probability}
        add(meter, f"{patient}{side}{view}", patient, strength=strength, **more)


def test_a_lesion_counts_once_for_its_breast_found_in_either_view():
    meter = LocalizationMeter()
    breast_views(meter, "a", "L", ({1}, {2}))  # each in one view
    breast_views(meter, "b", "L", ({1}, {1}), probability=0.8)  # one in both, one in none
    breast_views(meter, "c", "R", ((), (1, 2)), malignant=False, probability=0.9)  # two regions, both false positives
    summary = meter.summary(resamples=40)
    assert summary["lesion_recall"]["value"] == pytest.approx(6 / 12)
    found = summary["by_breast"]
    assert (found["breasts"], found["lesions"]) == (3, 6)
    assert found["lesion_recall"]["value"] == pytest.approx(5 / 6)
    # by falling score: 2 false positives on 6 images, then 1 of 4 malignant lesions, then 3 of 4
    rates = [0, 3 / 4, 3 / 4, 3 / 4, 3 / 4, 3 / 4]
    assert found["froc"]["value"] == pytest.approx(np.mean(rates), abs=1e-9)


def test_what_does_not_tell_which_marks_are_one_lesion_is_counted_by_image():
    meter = LocalizationMeter()
    assert meter.summary(resamples=40)["by_breast"] == {"reason": "no image with a lesion"}
    add(meter, "x", "p", breast="L")
    assert "do not tell which marks" in meter.summary(resamples=40)["by_breast"]["reason"]
    add(meter, "y", "p", names=("1", "2"))
    assert "names no side" in meter.summary(resamples=40)["by_breast"]["reason"]


def test_one_view_of_each_breast_has_the_figures_of_images():
    meter = LocalizationMeter()
    for patient, labels in (("a", {1}), ("b", {1, 2}), ("c", ())):
        strength = np.isin(LESIONS, list(labels)).astype(float)
        add(meter, patient, patient, strength=strength, breast="L", names=("1", "2"))
    summary = meter.summary(resamples=200)
    assert summary["by_breast"]["lesion_recall"] == summary["lesion_recall"]
    assert summary["by_breast"]["froc"] == summary["froc"]["mean"]

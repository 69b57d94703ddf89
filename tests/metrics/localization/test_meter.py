import json

import numpy as np
import pandas as pd
import pytest

from lemlight.files import write_json
from lemlight.metrics.localization import LocalizationMeter, gather, weighted_figures

STRENGTH = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.8, 0.6, 0.0, 0.0],
        [0.0, 0.6, 0.4, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.2],
        [0.0, 0.0, 0.0, 1.0, 0.0],
    ]
)
LESIONS = np.array(
    [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ],
    np.uint8,
)
FIGURES = ("dsc", "dsc_pooled", "pixel_recall", "lesion_recall", "pointing", "pxap", "max_box_acc_v2")


def add(meter, image_id="a", patient_id="p", **changes):
    given = {
        "lesions": LESIONS,
        "types": ("mass", "calcification"),
        "strength": STRENGTH,
        "confidence": 0.5,
        "tolerance_px": 0.0,
    }
    meter.update(image_id=image_id, patient_id=patient_id, **(given | changes))


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
    confidence = float(np.round(generator.random(), 2))
    return {"lesions": lesions, "types": ("mass", "calcification", ""), "strength": strength, "confidence": confidence}


def filled(cases, patients, cutoff=0.5):
    meter = LocalizationMeter(cutoff)
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
    meter = LocalizationMeter(0.5)
    add(meter)
    summary = meter.summary(resamples=40)
    # at 0.5: 4 px predicted, 3 px of lesions, 2 shared; lesion 1 hit, lesion 2 not; the top point (4, 3) hits none
    expected = {"dsc": 4 / 7, "dsc_pooled": 4 / 7, "pixel_recall": 2 / 3, "lesion_recall": 1 / 2, "pointing": 0}
    # at 0.8: 1 of 2 px right; at 0.6: 2 of 4; at 0: 3 of 25; a third of the recall each
    expected["pxap"] = (1 / 2 + 2 / 4 + 3 / 25) / 3
    # boxes: 1 px or 2 x 2 px on the lesion of 2 x 1: 0.5 at best, right at 0.3 and 0.5
    expected["max_box_acc_v2"] = 2 / 3
    # a false positive of score 0.5 comes before the lesion of score 0.5 * 0.8
    expected |= {"froc 0.25": 0, "froc 0.5": 0, "froc 1": 1 / 2, "froc 2": 1 / 2, "froc 4": 1 / 2, "froc 8": 1 / 2}
    expected |= {"froc": 1 / 3, "lesion_recall of mass": 1, "lesion_recall of calcification": 0}
    expected |= {"dsc of mass": None, "dsc of calcification": None}
    assert values_of(summary) == pytest.approx(expected)
    assert summary["froc"]["curve"] == {"false_positives_per_image": [0, 1, 1], "sensitivity": [0, 0, 0.5]}
    counts = {"images": 1, "images_with_lesion": 1, "lesions": 2, "patients": 1, "cutoff": 0.5}
    assert {name: summary[name] for name in counts} == counts


def test_the_tolerance_lets_a_single_pixel_be_hit_and_changes_no_pixel_figure():
    meter = LocalizationMeter(0.5)
    add(meter, tolerance_px=1.5)  # (2, 1) is the square root of 2 from (3, 0)
    summary = meter.summary(resamples=40)
    assert summary["lesion_recall"]["value"] == 1
    assert summary["by_type"]["calcification"]["lesion_recall"]["value"] == 1
    assert summary["dsc"]["value"] == pytest.approx(4 / 7)
    assert summary["tolerance_px"] == [1.5, 1.5]


def test_one_row_per_image_ordered_by_name_whatever_the_order_of_adding():
    meter = LocalizationMeter(0.5)
    add(meter, "b", "q", lesions=np.zeros((5, 5), np.uint8), types=())
    add(meter, "a", "p")
    expected = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "patient_id": ["p", "q"],
            "confidence": [0.5, 0.5],
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
    other = LocalizationMeter(0.5)
    add(other, "a", "p")
    add(other, "b", "q", lesions=np.zeros((5, 5), np.uint8), types=())
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


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_of_w_is_the_image_w_times(seed):
    generator = np.random.default_rng(seed)
    cases = [random_case(generator) for _ in range(8)]
    cases[0]["lesions"][0, 0] = 1
    patients = [f"p{index // 2}" for index in range(8)]
    meter = filled(cases, patients)
    evidence = gather(meter._ordered(), meter._histograms)
    weights = generator.integers(0, 4, (6, 4)).repeat(2, axis=1).astype(float)
    weights[0], weights[1] = 1, 2
    weights[:, :2] += weights[:, :2] == 0  # the first patient has a lesion: the figures stay defined
    draws = weighted_figures(evidence, weights)
    for index, row in enumerate(weights):
        drawn = [place for place in range(8) for _ in range(int(row[place]))]
        repeated = filled([cases[place] for place in drawn], [patients[place] for place in drawn])
        expected = values_of(repeated.summary(resamples=40))
        for name in FIGURES:
            assert draws[name][index] == pytest.approx(expected[name]), name
        assert draws["froc"][index].mean() == pytest.approx(expected["froc"])
        for name in expected:
            if " of " in name and expected[name] is not None:
                assert draws[name][index] == pytest.approx(expected[name]), name
    plain = values_of(meter.summary(resamples=40))
    assert {name: draws[name][0] for name in FIGURES} == pytest.approx({name: plain[name] for name in FIGURES})
    np.testing.assert_allclose(draws["dsc"][1], draws["dsc"][0])


def test_intervals_hold_the_value_follow_the_seed_and_widen_with_patients_of_more_images():
    generator = np.random.default_rng(4)
    cases = [random_case(generator) for _ in range(40)]
    by_image = filled(cases, [f"p{index}" for index in range(40)]).summary(resamples=400)
    for name in FIGURES:
        figure = by_image[name]
        assert figure["low"] <= figure["value"] <= figure["high"], name
        assert figure["low"] < figure["high"], name
    for figure in (by_image["froc"]["mean"], *by_image["froc"]["at"].values()):
        assert figure["low"] <= figure["value"] <= figure["high"]
    same = filled(cases, [f"p{index}" for index in range(40)])
    assert same.summary(resamples=400) == by_image
    assert same.summary(resamples=400, seed=1)["dsc"]["low"] != by_image["dsc"]["low"]
    # Each patient has the same image four times: a quarter of the independent images, twice the width.
    clustered = filled([cases[index // 4 * 4] for index in range(40)], [f"p{index // 4}" for index in range(40)])
    scattered = filled([cases[index // 4 * 4] for index in range(40)], [f"p{index}" for index in range(40)])
    wide, narrow = (meter.summary(resamples=1000)["lesion_recall"] for meter in (clustered, scattered))
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_the_summary_is_json_without_nan(tmp_path):
    generator = np.random.default_rng(9)
    meter = filled([random_case(generator) for _ in range(6)], "ppqqrr")
    summary = meter.summary(resamples=100)
    write_json(summary, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == summary
    assert set(FIGURES) <= set(summary["rules"])
    assert "oracle" in summary["rules"]["max_box_acc_v2"]


def test_images_of_other_sizes_add_up_and_no_map_is_kept():
    meter = LocalizationMeter(0.5)
    wide = np.zeros((300, 7000), np.uint8)
    wide[20:40, 3000:3020] = 1
    add(meter, "wide", "p", lesions=wide, types=("mass",), strength=wide.astype(np.float32))
    add(meter, "high", "q", lesions=wide.T, types=("mass",), strength=wide.T.astype(np.float32))
    assert meter.summary(resamples=40)["dsc"]["value"] == 1
    (record, *_), (histogram, *_) = meter._ordered(), meter._histograms.values()
    arrays = [value for value in vars(record).values() if isinstance(value, np.ndarray)]
    assert sum(array.size for array in [*arrays, histogram]) < 3000


def test_a_lesion_that_later_ones_cover_is_left_out():
    meter = LocalizationMeter(0.5)
    add(meter, lesions=np.where(LESIONS == 2, 3, LESIONS), types=("mass", "other", "calcification"))
    summary = meter.summary(resamples=40)
    assert summary["lesions"] == 2
    assert sorted(summary["by_type"]) == ["calcification", "mass"]

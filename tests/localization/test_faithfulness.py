"""Faithfulness: closed forms on networks that can be seen through, shuffled weights, and what a run leaves."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lemlight.localization.choice import RegionSettings
from lemlight.localization.faithfulness import (
    RULES,
    _correlation,
    local_tissue,
    measure_faithfulness,
    order_of,
    replaced,
)
from lemlight.metrics import FAITHFULNESS_NAMES
from lemlight.models.classifier import Scores
from lemlight.reporting.localization_results import measure_localization
from lemlight.reporting.run_page import faithful_table, localization_text
from tests.localization.test_evaluation import make_place

SETTINGS = RegionSettings(keep=0.5, smoothing=0.0, cutoff=0.3)


def breast(height=12, width=8):
    image = np.random.default_rng(0).uniform(0.2, 1, (height, width)).astype(np.float32)
    image[:, 5:] = 0  # air
    return image


def test_pixels_go_in_the_order_of_the_map_inside_the_breast_and_tissue_takes_their_place():
    image, strength = breast(), np.zeros((12, 8), np.float32)
    strength[2, 3], strength[9, 1], strength[4, 7] = 1.0, 0.5, 0.9  # the last one in the air
    ranks = order_of(strength, image > 0)
    assert (ranks[2, 3], ranks[9, 1], ranks[4, 7]) == (0, 1, -1)
    assert sorted(ranks[image > 0]) == list(range(60))
    deleted, inserted = replaced(image, strength, steps=60)
    tissue = local_tissue(image)
    assert deleted.shape == inserted.shape == (61, 12, 8)
    assert np.array_equal(deleted[0], image)
    assert np.array_equal(deleted[-1], tissue)
    assert np.array_equal(inserted[0], tissue)
    assert np.array_equal(inserted[-1], image)
    assert deleted[1, 2, 3] == tissue[2, 3] != image[2, 3]
    assert (deleted[1] != image).sum() == (inserted[1] != tissue).sum() == 1
    assert (deleted[:, :, 5:] == 0).all()
    assert (inserted[:, :, 5:] == 0).all()


def test_tissue_is_local_and_air_does_not_darken_it():
    image = np.zeros((64, 40), np.float32)
    image[:32, :20], image[32:, :20] = 0.8, 0.2
    tissue = local_tissue(image)
    assert tissue[2, 19] == pytest.approx(0.8, abs=1e-3)  # beside the air
    assert tissue[61, 0] == pytest.approx(0.2, abs=1e-3)
    assert 0.3 < tissue[32, 5] < 0.7
    assert local_tissue(np.zeros((8, 8), np.float32)).max() == 0


@pytest.mark.parametrize("ties", [False, True])
def test_correlation_is_spearmans(ties):
    one, other = np.random.default_rng(3).random((2, 200)).astype(np.float32)
    one, other = (np.round(values, 1) if ties else values for values in (one, other + one))
    assert _correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert _correlation(np.zeros(5, np.float32), np.arange(5, dtype=np.float32)) == 0


class Grain(nn.Module):
    """Malignant where the square at the top left has grain, which blurred tissue has not; nothing else counts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0))

    def forward(self, images, bag=None):
        logit = 100 * (images[:, 0, :24, :24].diff(dim=2).abs().mean(dim=(1, 2)) - 0.05)
        return Scores(logit, logit, images[:, 0], logit.sum() * 0)


def square(classifier, images, malignant):
    maps = torch.zeros_like(images[:, 0])
    maps[:, :24, :24] = 1
    return maps


def elsewhere(classifier, images, malignant):
    maps = torch.zeros_like(images[:, 0])
    maps[:, 60:, :40] = 1
    return maps


def of_weights(classifier, images, malignant):
    maps = torch.zeros_like(images[:, 0])
    maps[:, :12, :12] = classifier.weight.detach().view(1, 1, 12)
    return maps


def test_a_map_of_what_counts_is_told_from_one_of_what_does_not():
    place = make_place(faithfulness=4)
    object.__setattr__(place, "classifier", Grain())
    for number, image in enumerate(place.store.images):
        image[:] = np.random.default_rng(number).integers(20000, 40000, image.shape)
    methods = {"square": square, "elsewhere": elsewhere, "of_weights": of_weights}
    place.settings.methods = methods
    found = {name: measure_faithfulness(place, name, SETTINGS, place.with_a_lesion("val"), 40) for name in methods}
    assert all(set(RULES) < set(one) and one["images"] == 4 for one in found.values())
    assert found["square"]["deletion"]["value"] < found["elsewhere"]["deletion"]["value"] - 0.1
    assert found["square"]["insertion"]["value"] > found["elsewhere"]["insertion"]["value"] + 0.1
    assert found["square"]["shuffled_correlation"]["value"] == pytest.approx(1)  # it looks at no weight
    assert found["square"]["shuffled_ssim"]["value"] == pytest.approx(1)
    assert found["of_weights"]["shuffled_ssim"]["value"] < 0.999
    assert found["square"]["deletion"]["low"] <= found["square"]["deletion"]["value"]
    again = measure_faithfulness(place, "square", SETTINGS, place.with_a_lesion("val"), 40)
    assert again == found["square"]


def test_energy_is_the_fraction_inside_the_lesions_and_undefined_without_any():
    place = make_place(faithfulness=20)
    lesion = place.lesions("1") > 0
    weighed = torch.from_numpy(np.where(lesion, 3.5, 0.5))[None].float()
    place.settings.methods = {"half": lambda classifier, images, malignant: weighed}
    found = measure_faithfulness(place, "half", SETTINGS, ["1"], 40)
    inside, outside = 3.5 * lesion.sum(), 0.5 * (~lesion).sum()
    assert found["energy"]["value"] == pytest.approx(inside / (inside + outside), rel=1e-5)
    assert "reason" in found["energy"]  # one patient
    assert measure_faithfulness(place, "half", SETTINGS, ["0"], 40)["energy"]["value"] is None


def test_a_run_leaves_it_in_its_metrics_its_table_and_its_text(tmp_path):
    place = make_place(faithfulness=3, compare=["cam"])
    summary, _ = measure_localization(place, {}, "val", tmp_path, resamples=40)
    own, cam = summary["localization"]["faithfulness"], summary["localization_compared"]["cam"]["faithfulness"]
    assert own["images"] == cam["images"] == 3
    assert own["deletion"] != cam["deletion"]
    assert 0 <= own["shuffled_ssim"]["value"] <= 1
    table = (tmp_path / "localization.csv").read_text()
    assert "deletion,deletion_low" in table.splitlines()[0]
    assert [row[0] for row in faithful_table(summary)] == ["Method", "Importance", "CAM"]
    assert "Deletion (best: low)" in localization_text(summary)
    assert set(FAITHFULNESS_NAMES) == set(RULES)
    without, _ = measure_localization(make_place(), {}, "val", None, resamples=40)
    assert without == {}

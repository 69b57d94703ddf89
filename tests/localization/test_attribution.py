"""What a classifier says and where it looks: extrema, methods, suspicion, and what a region speaks for."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.overrides import TorchFunctionMode

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.errors import LemlightError
from lemlight.localization import propagation_rules
from lemlight.localization.attribution import (
    ForwardPass,
    Importance,
    MeanStrength,
    explain,
    extremum_points,
    regions_of,
    select_extrema,
)
from lemlight.localization.baselines import CAM, GradCAM, GradCAMPlusPlus, SmoothGrad
from lemlight.localization.choice import RegionSettings, settings_together
from lemlight.localization.regions import smoothed
from lemlight.models.ensemble import Ensemble, moves_of
from tests.localization.test_excitation_backprop import breasts, build
from tests.models.test_ensemble import network

# mean 0; maxima 8, 4, 2 and -0.5, minima -8, -4, -1.5 and 0.5 (each in a corner or ringed by values between)
DRAWN = torch.tensor(
    [
        [8.0, 0, 2, 0, -8],
        [0, 0, 0, 0, 0],
        [4, 0, 0, 0, -4],
        [-1, -1, -1, 1, 1],
        [-1, -0.5, -1, 1, 0.5],
        [-1.5, -1, -1, 1, 1],
    ]
)
DRAWN = DRAWN - DRAWN.mean()
MALIGNANT = torch.tensor([0.9])


def cells(mask):
    return [tuple(cell) for cell in torch.nonzero(mask[0]).tolist()]


def test_the_fraction_of_the_strongest_drawn_by_hand():
    def kept(keep):
        maxima, minima = select_extrema(DRAWN[None], MALIGNANT, follow="both", keep=keep)
        return cells(maxima), cells(minima)

    assert kept(1.0) == ([(0, 0)], [(0, 4)])
    assert kept(0.45) == ([(0, 0), (2, 0)], [(0, 4), (2, 4)])
    # the maximum of -0.5 and the minimum of 0.5 stand on the wrong side of the mean
    assert kept(0.0) == ([(0, 0), (0, 2), (2, 0)], [(0, 4), (2, 4), (5, 0)])


@pytest.mark.parametrize(
    ("follow", "probability", "threshold", "uses"),
    [
        ("predicted", 0.51, 0.5, (True, False)),
        ("predicted", 0.5, 0.5, (False, True)),
        ("predicted", 0.3, 0.2, (True, False)),
        ("maxima", 0.1, 0.5, (True, False)),
        ("minima", 0.9, 0.5, (False, True)),
        ("both", 0.1, 0.5, (True, True)),
    ],
)
def test_what_is_followed(follow, probability, threshold, uses):
    chosen = select_extrema(DRAWN[None], torch.tensor([probability]), follow=follow, keep=0.5, threshold=threshold)
    assert tuple(bool(kind.any()) for kind in chosen) == uses


def test_each_image_is_judged_by_itself():
    maps = torch.stack([DRAWN, 0.01 * DRAWN, -DRAWN])
    maxima, minima = select_extrema(maps, torch.tensor([0.9, 0.2, 0.7]), follow="predicted", keep=1.0)
    assert torch.nonzero(maxima).tolist() == [[0, 0, 0], [2, 0, 4]]
    assert torch.nonzero(minima).tolist() == [[1, 0, 4]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (3, 4)])
def test_a_flat_map_gives_none(shape):
    for ties in ("strict", "all"):  # with the literal equations every cell is an extremum, but none above the mean
        chosen = select_extrema(torch.full((1, *shape), -3.0), MALIGNANT, follow="both", keep=0.0, ties=ties)
        assert not torch.stack(chosen).any()


def test_ties_are_the_rule_of_local_extrema_and_half_precision_is_judged_in_float32():
    plateau = torch.tensor([[[0.0, 0, 0, 0], [0, 3, 3, 0], [0, 0, 0, 0]]])
    assert not select_extrema(plateau, MALIGNANT, follow="maxima", keep=1.0).maxima.any()
    assert cells(select_extrema(plateau, MALIGNANT, follow="maxima", keep=1.0, ties="all").maxima) == [(1, 1), (1, 2)]
    maxima, _ = select_extrema(DRAWN[None].bfloat16(), MALIGNANT, follow="maxima", keep=0.45)
    assert cells(maxima) == [(0, 0), (2, 0)]


MAPS = st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 7)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(-8, 8).map(float))
)


@settings(deadline=None, max_examples=100)
@given(MAPS, st.floats(0, 1), st.sampled_from([-64.0, 3.0, 128.0]))
def test_a_bias_changes_nothing_and_a_smaller_fraction_only_adds(maps, keep, bias):
    score_map, probability = torch.from_numpy(maps), torch.tensor([0.2, 0.8])
    chosen = select_extrema(score_map, probability, follow="both", keep=keep)
    # fractions right at the cutoff may fall either way by rounding: a hair on both sides of it bounds the answer
    lower = select_extrema(score_map + bias, probability, follow="both", keep=max(0.0, keep - 1e-9))
    upper = select_extrema(score_map + bias, probability, follow="both", keep=min(1.0, keep + 1e-9))
    for kind in range(2):
        assert not (chosen[kind] & ~lower[kind]).any()
        # of equally strong ones rounding may leave one at a fraction of 1, not at any other
        assert keep > 1 - 1e-8 or not (upper[kind] & ~chosen[kind]).any()
    # maxima of the negated map are the minima of the map
    mirrored = select_extrema(-score_map, probability, follow="both", keep=keep)
    assert torch.equal(mirrored.maxima, chosen.minima)
    everything = select_extrema(score_map, probability, follow="both", keep=0.0)
    assert not (chosen.maxima & ~everything.maxima).any()
    assert bool(everything.maxima.any()) == bool(chosen.maxima.any())


def test_extrema_as_points_of_the_prepared_image():
    marked = torch.zeros(3, 4, dtype=torch.bool)
    marked[0, 3] = marked[2, 0] = True
    # cells of 32 x 16 px: the centre of the first lies between px 15 and 16, and between px 7 and 8
    np.testing.assert_allclose(extremum_points(marked, (96, 64)), [[55.5, 15.5], [7.5, 79.5]])
    assert extremum_points(marked & False, (96, 64)).shape == (0, 2)


KEEPS = [0.0, 0.5, 1.0]


def explain_by_keep(classifier, images, method, keeps, *, follow, threshold, suspicion_at):
    return ForwardPass(classifier, images, [method], threshold, repeat=True).explain(
        method, keeps, follow, suspicion_at
    )


@pytest.fixture(scope="module")
def classifier():
    return build("resnet18")


@pytest.mark.parametrize(
    ("method", "passes"), [(Importance(), 1), (CAM(), 1), (GradCAM(), 1), (SmoothGrad(copies=2), 3)]
)
def test_the_probability_is_that_of_the_network_by_itself_which_is_passed_once_where_features_do(
    classifier, method, passes
):
    images, counted = breasts(2, 96, 64), []
    with torch.no_grad():
        scores = classifier(images)
    handle = classifier.backbone.register_forward_hook(lambda *_: counted.append(1))
    found = explain(classifier, images, method)
    handle.remove()
    assert len(counted) == passes
    torch.testing.assert_close(found.probability, scores.logit.double().sigmoid())
    torch.testing.assert_close(found.score_map, scores.score_map)
    torch.testing.assert_close(found.maps, method(classifier, images, found.malignant), rtol=0, atol=0)


def test_one_pass_gives_for_each_keep_and_the_suspicion_what_passes_of_their_own_give(classifier):
    images, passes = breasts(3, 160, 128), []
    handle = classifier.backbone.register_forward_hook(lambda *_: passes.append(1))
    together = explain_by_keep(classifier, images, Importance(), KEEPS, follow="both", threshold=0.5, suspicion_at=0.5)
    handle.remove()
    assert len(passes) == 1
    assert together[0].maxima.sum() > together[2].maxima.sum()  # else there would be nothing to compare
    for keep, found in zip(KEEPS, together, strict=True):
        alone = explain(classifier, images, Importance(), follow="both", keep=keep)
        for one, other in zip(found[:7], alone[:7], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert [found.suspicion is None for found in together] == [True, False, True]
    maxima = explain(classifier, images, Importance(), follow="maxima", keep=0.5)
    torch.testing.assert_close(together[1].suspicion, maxima.maps, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0", "densenet121"])
def test_several_methods_on_one_pass_give_what_each_gives_alone(backbone):
    methods = [Importance(), CAM(), GradCAM(), GradCAMPlusPlus(), SmoothGrad(copies=1)]
    classifier, images, counted = build(backbone), breasts(2, 96, 64), []
    handle = classifier.backbone.register_forward_hook(lambda *_: counted.append(1))
    seen = ForwardPass(classifier, images, methods, 0.5, repeat=True)
    together = [seen.explain(method, [0.5], "predicted", suspicion_at=0.5)[0] for method in methods[:4]]
    assert len(counted) == 1
    handle.remove()
    together += seen.explain(methods[4], [0.5], "predicted", suspicion_at=0.5)
    for method, found in zip(methods, together, strict=True):
        for one, other in zip(found[:7], explain(classifier, images, method)[:7], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        expected = method(classifier, images, torch.ones(2, dtype=torch.bool))
        torch.testing.assert_close(found.suspicion, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [Importance(), GradCAM()])
def test_suspicion_is_the_map_of_malignancy_whatever_is_predicted(classifier, method):
    images, classifier = breasts(2, 96, 64), copy.deepcopy(classifier)
    with torch.no_grad():
        classifier.scorer.bias -= classifier(images).logit.mean() / 2  # counts twice, in maxima and in minima
    assert sorted(explain(classifier, images, CAM()).malignant.tolist()) == [False, True]
    expected = method(classifier, images, torch.tensor([True, True]))
    for threshold in (0.0, 0.5, 1.0):
        (found,) = explain_by_keep(
            classifier, images, method, [0.5], follow="predicted", threshold=threshold, suspicion_at=0.5
        )
        torch.testing.assert_close(found.suspicion, expected, rtol=1e-4, atol=1e-6)
        alike = found.malignant.view(-1, 1, 1)
        torch.testing.assert_close(found.maps.where(alike, 0), found.suspicion.where(alike, 0), rtol=0, atol=0)


@pytest.mark.parametrize(
    "own",
    [
        lambda classifier, images, malignant: images,
        lambda classifier, images, malignant: -images[:, 0],
        lambda classifier, images, malignant: images[:, 0] / 0,
        lambda classifier, images, malignant: None,
    ],
)
def test_an_own_method_that_gives_no_maps_is_named(classifier, own):
    with pytest.raises(LemlightError, match=r"method <lambda> must give finite maps \(1, 64, 64\) of at least 0"):
        explain(classifier, breasts(1, 64, 64), own)


def evidence(classifier, images, method, **settings):
    found = explain(classifier, images, method, **settings)
    height, width = images.shape[2:]
    geometry = BreastGeometry((height, width), False, (0, 0, height, width), (1.0, 1.0), (height, width))
    strength = smoothed(found.maps[0].numpy(), 0)
    return float(found.probability[0]), regions_of(found, 0, strength, 0.2, geometry, None)


@pytest.mark.parametrize("method", [Importance(), CAM()])
def test_regions_of_an_image_predicted_benign_speak_for_benign_and_have_no_score(classifier, method):
    images = breasts(1, 96, 64)
    probability, regions = evidence(classifier, images, method, threshold=0.0)
    assert regions
    assert {region.evidence for region in regions} == {"malignant"}
    assert regions[0].score == pytest.approx(probability)
    _, regions = evidence(classifier, images, method, threshold=1.0)
    assert {(region.evidence, region.score) for region in regions} in ({("benign", None)}, set())


def test_where_both_kinds_are_followed_the_nearest_extremum_says_what_a_region_speaks_for(classifier):
    images = breasts(1, 160, 128)
    found = explain(classifier, images, Importance(), follow="both", keep=0.0)
    _, regions = evidence(classifier, images, Importance(), follow="both", keep=0.0)
    points = {
        kind: {tuple(point) for point in extremum_points(cells[0], (160, 128)).tolist()}
        for kind, cells in (("malignant", found.maxima), ("benign", found.minima))
    }
    assert {region.evidence for region in regions} == {"malignant", "benign"}
    assert all(region.extremum in points[region.evidence] for region in regions)


class NoFloat64(TorchFunctionMode):
    """A device without float64, as MPS is."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("this device has no float64")
        return result


@pytest.mark.parametrize("method", [Importance(), CAM(), SmoothGrad(copies=2)])
def test_no_float64_is_made_on_a_device_that_has_none(classifier, method, monkeypatch):
    images = breasts(2, 96, 64)
    given = {"follow": "predicted", "threshold": 0.5, "suspicion_at": 0.5}
    expected = explain_by_keep(classifier, images, method, KEEPS, **given)
    assert expected[0].probability.dtype == torch.float64
    with pytest.raises(TypeError, match="no float64"), NoFloat64():
        explain(classifier, images, method)
    monkeypatch.setattr(propagation_rules, "exact_dtype", lambda device: torch.float32)
    with NoFloat64():
        found = explain_by_keep(classifier, images, method, KEEPS, **given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.maps, other.maps, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(one.probability.double(), other.probability, rtol=1e-6, atol=0)


OWN = [RegionSettings(keep=0.0, smoothing=1.0, cutoff=0.2), RegionSettings(keep=1.0, smoothing=2.0, cutoff=0.4)]


@pytest.mark.parametrize("follow", ["predicted", "maxima"])
@pytest.mark.parametrize("method", [Importance(), CAM()])
def test_every_network_explains_what_the_ensemble_predicts_with_its_own_settings(method, follow):
    networks, moves = [network(3), network(4)], moves_of(["flip"], 4)
    images = torch.rand(3, 1, 24, 16)
    ensemble = Ensemble(networks, moves)
    found = explain(ensemble, images, MeanStrength(method, OWN, follow))
    torch.testing.assert_close(found.probability, ensemble(images).logit.double().sigmoid())
    malignant = ensemble(images).logit > 0
    for number in range(3):
        strengths = []
        for one, own in zip(networks, OWN, strict=True):
            for move in moves:
                image = move.there(images[number : number + 1])
                threshold = -1.0 if malignant[number] else 2.0  # what the network alone would say does not matter
                alone = explain(one, image, method, follow=follow, keep=own.keep, threshold=threshold)
                strengths.append(move.back(torch.from_numpy(smoothed(alone.maps[0].numpy(), own.smoothing))).numpy())
        np.testing.assert_allclose(found.maps[number], np.mean(strengths, axis=0), atol=1e-5)


def test_one_network_has_its_own_strength():
    one, images = network(3), torch.rand(1, 1, 24, 16)
    maps = explain(Ensemble([one]), images, MeanStrength(CAM(), OWN[:1])).maps
    np.testing.assert_allclose(maps[0], smoothed(explain(one, images, CAM()).maps[0].numpy(), 1.0), atol=1e-6)


def test_the_cutoff_is_the_mean_of_the_networks():
    together = settings_together(OWN)
    assert (together.keep, together.smoothing, together.cutoff) == (0.0, 0.0, pytest.approx(0.3))
    with pytest.raises(LemlightError, match="cutoff_by"):
        settings_together([OWN[0], OWN[1].model_copy(update={"cutoff_by": "mass"})])
    with pytest.raises(LemlightError, match="several networks"):
        MeanStrength(CAM(), OWN)(network(0), torch.rand(1, 1, 24, 16), torch.tensor([True]))

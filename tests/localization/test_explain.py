"""Explaining images: what the network says is what it says without us, and one pass serves every keep."""

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.localization.attribution import METHODS, MapSettings, explain, explain_by_keep
from tests.localization.test_importance import breasts, build

KEEPS = [0.0, 0.5, 1.0]


@pytest.fixture(scope="module", params=["resnet18", "densenet121"])
def classifier(request):
    return build(request.param)


@pytest.mark.parametrize("method", METHODS)
def test_the_probability_is_that_of_the_network_by_itself(classifier, method):
    images = breasts(2, 96, 64)
    with torch.no_grad():
        scores = classifier(images)
    found = explain(classifier, images, MapSettings(method))
    torch.testing.assert_close(found.probability, scores.logit.double().sigmoid())
    torch.testing.assert_close(found.score_map, scores.score_map)


def test_one_pass_gives_for_each_keep_what_a_pass_of_its_own_gives(classifier):
    images = breasts(3, 160, 128)
    together = explain_by_keep(classifier, images, MapSettings(follow="both"), KEEPS)
    assert together[0].maxima.sum() > together[2].maxima.sum()  # else there would be nothing to compare
    for keep, found in zip(KEEPS, together, strict=True):
        alone = explain(classifier, images, MapSettings(follow="both", keep=keep))
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_images_pass_the_network_once_for_all_keeps(classifier):
    passes = []
    handle = classifier.backbone.register_forward_hook(lambda *_: passes.append(1))
    explain_by_keep(classifier, breasts(1, 64, 64), MapSettings(), KEEPS)
    handle.remove()
    assert len(passes) == 1


def test_a_rival_knows_no_keep_and_says_the_same_for_each(classifier):
    first, second = explain_by_keep(classifier, breasts(1, 64, 64), MapSettings("cam"), [0.0, 1.0])
    torch.testing.assert_close(first.maps, second.maps, rtol=0, atol=0)


def test_a_method_that_is_not_there_is_named(classifier):
    with pytest.raises(LemlightError, match="no method 'saliency'"):
        explain(classifier, breasts(1, 64, 64), MapSettings("saliency"))

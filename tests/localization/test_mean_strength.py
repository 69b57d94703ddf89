"""The mean strength of several networks and copies against a loop over them."""

import numpy as np
import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.localization.attribution import Importance, explain
from lemlight.localization.baselines import CAM
from lemlight.localization.choice import RegionSettings
from lemlight.localization.mean_strength import MeanStrength, settings_together
from lemlight.localization.regions import smoothed
from lemlight.models.ensemble import Ensemble, moves_of
from tests.models.test_ensemble import network

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

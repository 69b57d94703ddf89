"""The comparison that decides whether a file is left."""

from pathlib import Path

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.models.exported import Agreement, ExportedNetwork, PredictingGraph, check_images, compare

SHAPE = (83, 61)


def shifted(classifier, probability=0.0, score=0.0, cells=None):
    """The network itself, with its answers shifted by known amounts."""

    def run(images):
        scores = classifier(images)
        return scores.logit.sigmoid() + probability, (scores.score_map + score)[:, :cells]

    return ExportedNetwork(Path("model.onnx"), {}, run)


def test_black_noise_and_prepared_images_are_compared():
    prepared = torch.full((1, 1, *SHAPE), 0.5)
    batches = check_images(SHAPE, [prepared])
    assert [batch.shape for batch in batches] == [(3, 1, *SHAPE), (1, 1, *SHAPE), (1, 1, *SHAPE)]
    assert [batch.unique().numel() > 1 for batch in batches] == [True, False, False]
    assert (batches[1].max(), batches[2].max()) == (0, 0.5)


def test_the_largest_difference_is_found(gap):
    found = compare(PredictingGraph(gap), shifted(gap, 0.03, 0.5), check_images(SHAPE, []))
    assert found.images == 4
    assert found.probability == pytest.approx(0.03, abs=1e-6)
    assert found.score == pytest.approx(0.5, abs=1e-5)


def test_maps_of_another_size_are_another_network(gap):
    with pytest.raises(LemlightError, match="score maps of"):
        compare(PredictingGraph(gap), shifted(gap, cells=2), check_images(SHAPE, []))


def test_the_tolerance():
    Agreement(4, 0.9e-4, 2.0).check()
    for probability, score in ((1.1e-4, 1.0), (float("nan"), 0.0)):
        with pytest.raises(LemlightError, match="no file was left"):
            Agreement(4, probability, score).check()


def test_a_decision_by_rounding_is_named():
    with pytest.raises(LemlightError, match="equal but for rounding"):
        Agreement(4, 0.01, 2e-5).check()


@pytest.mark.parametrize(
    "answer",
    [
        (torch.tensor([1.5]), torch.zeros(1, 2, 3)),
        (torch.tensor([float("nan")]), torch.zeros(1, 2, 3)),
        (torch.tensor([0.5, 0.5]), torch.zeros(1, 2, 3)),
        (torch.tensor([0.5]), torch.full((1, 2, 3), float("inf"))),
        (torch.tensor([0.5]), torch.zeros(1, 0, 3)),
        (torch.tensor([0.5]), torch.zeros(2, 3)),
    ],
)
def test_an_answer_that_is_none_is_refused(answer):
    with pytest.raises(LemlightError, match="other than probabilities"):
        ExportedNetwork(Path("model.onnx"), {}, lambda _: answer).predict(torch.zeros(1, 1, *SHAPE))

"""Whether an exported file predicts what the network predicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.exporting.network import ExportedNetwork
from lemlight.exporting.program import PredictingGraph

TOLERANCE = 1e-4  # of a probability


@dataclass(frozen=True)
class Agreement:
    """The largest differences over all images: of a probability, and of a score in logits."""

    images: int
    probability: float
    score: float

    def check(self) -> None:
        """Raise LemlightError where a probability differs by more than the tolerance."""
        if self.probability <= TOLERANCE:  # not true of NaN either
            return
        why = ""
        if self.score <= TOLERANCE:
            why = (
                f", although no score differs by more than {self.score:.1e}: the pooling method decides between cells "
                "whose scores are equal but for rounding, as in flat areas"
            )
        raise LemlightError(
            f"the exported network is not the trained one: probabilities differ by up to {self.probability:.1e}, "
            f"{TOLERANCE:.0e} is allowed{why}; no file was left"
        )


def check_images(shape: tuple[int, int], prepared: Sequence[Tensor]) -> list[Tensor]:
    """Batches `(N, 1, H, W)` to compare on: three of noise at once, a black image, and prepared images one by one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 1, *shape, generator=generator)
    return [noise, torch.zeros(1, 1, *shape), *prepared]


@torch.no_grad()
def compare(original: PredictingGraph, exported: ExportedNetwork, batches: Sequence[Tensor]) -> Agreement:
    """Predict batches with both and say by how much they differ."""
    probabilities, scores = [], []
    for images in batches:
        expected, score_map = original(images)
        probability, exported_map = exported.predict(images)
        if exported_map.shape != score_map.shape:
            raise LemlightError(
                f"the exported network has score maps of {tuple(exported_map.shape)} for {tuple(score_map.shape)}"
            )
        probabilities.append((expected - probability).abs().max())
        scores.append((score_map - exported_map).abs().max())
    count = sum(len(images) for images in batches)
    # max of tensors keeps NaN, where Python's max may lose it
    return Agreement(count, float(torch.stack(probabilities).max()), float(torch.stack(scores).max()))

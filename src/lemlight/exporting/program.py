"""The graph that is exported, traced from the network: images to probability and score map."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lemlight.models.classifier import MammogramClassifier

INPUT, OUTPUTS = "image", ("probability", "score_map")


class PredictingGraph(nn.Module):
    """Images `(N, 1, H, W)` in [0, 1], as prepared -> probability `(N,)` and score map `(N, h, w)` in logits.

    What only a training needs, the second logit and the loss terms, is left out.
    """

    def __init__(self, classifier: MammogramClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict; float32."""
        features = self.classifier.backbone(image)
        score_map: Tensor = self.classifier.scorer(features)
        logit: Tensor = self.classifier.pooling(score_map, features, self.classifier.scorer)
        return logit.sigmoid(), score_map


def trace(classifier: MammogramClassifier, shape: tuple[int, int]) -> ExportedProgram:
    """Trace a network in eval mode on the CPU for prepared images of `shape` (H, W) px; N stays free."""
    graph = PredictingGraph(classifier).eval()
    example = torch.rand(2, 1, *shape)  # of one image, N would be taken for a constant
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=({0: Dim("images", min=1)},), strict=False)

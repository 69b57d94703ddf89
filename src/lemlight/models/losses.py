"""The losses: what a classifier says of images and their labels -> scalars to minimize.

A loss is a module whose `forward(scores, label, lam)` returns a dict of scalars; `total` is minimized, the others are
logged. An argument `train_labels` of its constructor is given the labels of the train split. See docs/own/loss.md.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lemlight.arguments import NotNegative, Positive, checked
from lemlight.models.classifier import Scores

Smoothing = Annotated[float, Field(ge=0, lt=1)]
PositiveWeight = Positive | Literal["balanced"] | None


class CombinedLoss(nn.Module):
    """Combined loss, Eq. 7-8: `(1 - lam) * BCE(gap) + lam * (BCE(pool) + beta * regularizer)`.

    The place of beta is our reading [reading]; weight decay belongs to the optimizer. Where a pooling has further
    logits, as GMIC, BCE(pool) is the sum of all.

    Args:
        beta: weight of the pooling's regularizer; the paper's is "a very small value" [open].
        positive_weight: weight of malignant images in both cross-entropies: null is 1, "balanced" makes both classes of
            the train split weigh the same.
        ramp_all_poolings: whether lambda ramps for every pooling, not for those alone that ask for it.
        label_smoothing: in [0, 1): labels 1 and 0 become `1 - s / 2` and `s / 2` in both cross-entropies (Szegedy et
            al., CVPR 2016, section 7, for two classes).
        train_labels: of the train split, 0 or 1.

    Attributes:
        positive_weight: the number that "balanced" became.
    """

    @checked
    def __init__(
        self,
        beta: NotNegative,
        positive_weight: PositiveWeight = None,
        ramp_all_poolings: bool = False,
        label_smoothing: Smoothing = 0.0,
        train_labels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.beta, self.ramp_all_poolings, self.label_smoothing = beta, ramp_all_poolings, label_smoothing
        self.positive_weight = balanced_weight(train_labels) if positive_weight == "balanced" else positive_weight

    def forward(self, scores: Scores, label: Tensor, lam: float | Tensor) -> dict[str, Tensor]:
        """Give the scalars `total`, `gap`, `pool` (cross-entropies) and `regularizer` (not yet times beta).

        Args:
            scores: of a `MammogramClassifier`.
            label: `(N,)`, 1 = malignant, 0 = benign.
            lam: lambda in [0, 1]; 0 is a CNN with GAP, 1 the pooling method alone.
        """
        weight = None if self.positive_weight is None else scores.logit.new_tensor(self.positive_weight)
        target = label.to(scores.logit.dtype)
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        gap = functional.binary_cross_entropy_with_logits(scores.gap_logit, target, pos_weight=weight)
        pool = functional.binary_cross_entropy_with_logits(scores.logit, target, pos_weight=weight)
        for logit in scores.further:
            pool = pool + functional.binary_cross_entropy_with_logits(logit, target, pos_weight=weight)
        total = (1 - lam) * gap + lam * (pool + self.beta * scores.regularizer)
        return {"total": total, "gap": gap, "pool": pool, "regularizer": scores.regularizer}


class PoolingLoss(CombinedLoss):
    """Binary cross-entropy of the pooling's logit alone: no GAP term, no regularizer, whatever lambda is."""

    @checked
    def __init__(
        self,
        positive_weight: PositiveWeight = None,
        label_smoothing: Smoothing = 0.0,
        train_labels: Sequence[int] = (),
    ) -> None:
        super().__init__(0.0, positive_weight, False, label_smoothing, train_labels)

    def forward(self, scores: Scores, label: Tensor, lam: float | Tensor) -> dict[str, Tensor]:
        """Give the same scalars; `total` is `pool`."""
        return super().forward(scores, label, 1.0)


def balanced_weight(labels: Sequence[int]) -> float | None:
    """The weight of malignant images with which both classes weigh the same; None without malignant ones."""
    malignant = sum(labels)
    return (len(labels) - malignant) / malignant if malignant else None

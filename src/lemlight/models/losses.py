"""The combined loss."""

import torch
from torch import Tensor
from torch.nn import functional

from lemlight.errors import LemlightError
from lemlight.models.classifier import Scores


def combined_loss(
    scores: Scores, label: Tensor, lam: float | Tensor, beta: float, positive_weight: float | None = None
) -> dict[str, Tensor]:
    """Combined loss, Eq. 7-8: `(1 - lam) * BCE(gap) + lam * (BCE(pool) + beta * regularizer)`.

    The place of beta is our reading [reading]; weight decay belongs to the optimizer.

    Args:
        scores: what `MammogramClassifier` returned.
        label: `(N,)`, 1 = malignant, 0 = benign.
        lam: in [0, 1]; 0 is a CNN with GAP, 1 the pooling method alone.
        beta: weight of the pooling's regularizer, at least 0; the paper's is "a very small value" [open].
        positive_weight: weight of the positive class in both cross-entropies, more than 0; None is 1.

    Returns:
        Scalars `total`, `gap`, `pool` (cross-entropies) and `regularizer` (not yet times beta).

    Raises:
        LemlightError: a value outside its range, or labels of another shape.
    """
    _check(scores, label, lam, beta, positive_weight)
    weight = None if positive_weight is None else scores.logit.new_tensor(positive_weight)
    target = label.to(scores.logit.dtype)
    gap = functional.binary_cross_entropy_with_logits(scores.gap_logit, target, pos_weight=weight)
    pool = functional.binary_cross_entropy_with_logits(scores.logit, target, pos_weight=weight)
    total = (1 - lam) * gap + lam * (pool + beta * scores.regularizer)
    return {"total": total, "gap": gap, "pool": pool, "regularizer": scores.regularizer}


def _check(scores: Scores, label: Tensor, lam: float | Tensor, beta: float, positive_weight: float | None) -> None:
    problems = []
    # A tensor is not looked at: that would make the device wait.
    if not isinstance(lam, torch.Tensor) and not 0 <= lam <= 1:
        problems.append(f"lam must be in [0, 1], got {lam}")
    if not beta >= 0:
        problems.append(f"beta must be at least 0, got {beta}")
    if positive_weight is not None and not positive_weight > 0:
        problems.append(f"positive_weight must be more than 0, got {positive_weight}")
    if label.shape != scores.logit.shape:
        problems.append(f"label must have shape {tuple(scores.logit.shape)}, got {tuple(label.shape)}")
    if problems:
        raise LemlightError("loss: " + "; ".join(problems))

"""What a pooling method is, and the checks that several of them share."""

from torch import Tensor, nn

from lemlight.errors import LemlightError
from lemlight.models.scorer import Scorer


class Pooling(nn.Module):
    """Turns the scores of the regions of an image into one logit.

    Each image is pooled on its own: the result does not depend on the rest of the batch.

    Attributes:
        ties: how the extrema of its score maps are told, see `local_extrema`; of LEM a choice.
    """

    ties = "strict"

    def forward(self, score_map: Tensor, features: Tensor, scorer: Scorer) -> Tensor:
        """Pool a score map `(N, h, w)` of features `(N, C, h, w)`, scored by `scorer`, into logits `(N,)`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it pools")

    def regularizer(self, score_map: Tensor) -> Tensor:
        """Return the method's own loss term, a scalar; 0 where it has none."""
        return score_map.new_zeros(())


def check_share(method: str, name: str, value: float) -> None:
    """Check that a share of regions lies in (0, 1].

    Raises:
        LemlightError: naming method and option.
    """
    if not 0 < value <= 1:
        raise LemlightError(f"{method}: {name} is a share of the regions and must be in (0, 1], got {value}")


def share_count(share: float, regions: int) -> int:
    """Return the number of regions in a share of them: rounded, at least 1."""
    return max(1, round(share * regions))

"""Which extrema of a score map are followed back to the pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemlight.errors import LemlightError
from lemlight.models.lem import Extrema, local_extrema

FOLLOW = ("predicted", "maxima", "minima", "both")


def select_extrema(
    score_map: Tensor,
    probability: Tensor,
    *,
    follow: str,
    keep: float,
    ties: str = "strict",
    threshold: float = 0.5,
) -> Extrema:
    """Choose the extrema that a location map starts from (Zhu et al., Bioengineering 2025, Algorithm 2).

    Which extrema the paper selects is [open]. Here the strength of a maximum is its score's distance above the mean of
    its map, that of a minimum the distance below, so that a bias, which shifts all scores alike, changes nothing. An
    extremum counts where its strength is positive and reaches the share `keep` of the strongest of its kind in the
    same map.

    Args:
        score_map: raw scores `(N, h, w)`.
        probability: of malignancy, `(N,)` in [0, 1]; looked at only where `follow` is "predicted".
        follow: "maxima", "minima", "both", or as in the paper "predicted": the maxima of images whose probability
            exceeds `threshold`, the minima of the others.
        keep: in [0, 1]; 1 leaves the strongest alone (several if equally strong), 0 all of positive strength.
        ties: see `local_extrema`.
        threshold: probability, 0.5 in the paper.

    Returns:
        Maxima and minima, bool `(N, h, w)`; nothing where a map has no extremum that counts.

    Raises:
        LemlightError: a value outside its range, or shapes that do not fit.
    """
    _check(score_map, probability, follow, keep)
    maxima, minima = local_extrema(score_map, ties)
    scores = score_map.detach()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    above = scores - scores.mean(dim=(1, 2), keepdim=True)
    malignant = (probability > threshold).to(maxima.device).view(-1, 1, 1)
    use_maxima = malignant if follow == "predicted" else torch.full_like(malignant, follow in ("maxima", "both"))
    use_minima = ~malignant if follow == "predicted" else torch.full_like(malignant, follow in ("minima", "both"))
    return Extrema(_strong(above, maxima, keep) & use_maxima, _strong(-above, minima, keep) & use_minima)


def pack_selections(selections: Sequence[Extrema]) -> tuple[list[Extrema], Tensor]:
    """Put K selections from the same maps together so that what an image has twice is followed once.

    Returns:
        As many selections as the image with the most different ones has, and where to find each of the given ones:
        `(K, N)`, the number of the packed selection.
    """
    flat = torch.stack([torch.stack(selection, dim=1).flatten(1) for selection in selections])  # (K, N, 2 h w)
    first = (flat.unsqueeze(0) == flat.unsqueeze(1)).all(dim=-1).int().argmax(dim=1)  # of all that are the same
    new = first == torch.arange(len(selections), device=first.device).unsqueeze(1)
    places = (new.cumsum(dim=0) - 1).gather(0, first)
    packed = []
    for number in range(int(places.max()) + 1):
        here = ((places == number).unsqueeze(-1) & flat).any(dim=0)
        packed.append(Extrema(*here.view(len(here), 2, *selections[0].maxima.shape[1:]).unbind(1)))
    return packed, places


def extremum_points(cells: Tensor, prepared_shape: tuple[int, int]) -> NDArray[np.float64]:
    """Centres of the marked cells `(h, w)` in the prepared image (H, W): points (x, y) px `(K, 2)`, in row-major order.

    The map is taken to cover the whole image, as it does where maps of cells are enlarged to the image.
    """
    rows, columns = np.nonzero(cells.detach().cpu().numpy())
    cell_height, cell_width = prepared_shape[0] / cells.shape[0], prepared_shape[1] / cells.shape[1]
    return np.stack([(columns + 0.5) * cell_width - 0.5, (rows + 0.5) * cell_height - 0.5], axis=1)


def _strong(strength: Tensor, extrema: Tensor, keep: float) -> Tensor:
    """The extrema whose strength is positive and reaches `keep` of the strongest's, per map."""
    strongest = strength.masked_fill(~extrema, 0).amax(dim=(1, 2), keepdim=True)
    return extrema & (strength > 0) & (strength >= keep * strongest)


def _check(score_map: Tensor, probability: Tensor, follow: str, keep: float) -> None:
    problems = []
    if score_map.ndim != 3 or probability.shape != score_map.shape[:1]:
        shapes = f"{tuple(score_map.shape)} and {tuple(probability.shape)}"
        problems.append(f"score_map and probability must have shapes (N, h, w) and (N,), got {shapes}")
    if follow not in FOLLOW:
        problems.append(f"follow must be one of {', '.join(FOLLOW)}, got '{follow}'")
    if not 0 <= keep <= 1:
        problems.append(f"keep is a share of the strongest extremum and must be in [0, 1], got {keep}")
    if problems:
        raise LemlightError("localization: " + "; ".join(problems))
